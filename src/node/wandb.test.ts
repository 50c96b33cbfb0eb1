import { describe, expect, it, vi } from 'vitest';
import type { TrainingEvent } from '../training/trainer.js';
import { wandbLog, type WandbRun, type WandbSdk } from './wandb.js';

type Finish = (code?: number) => Promise<void>;

/** An SDK that notes what it is given. */
function noting(finish: Finish = () => Promise.resolve()) {
  const rows: { step?: number; data: Record<string, unknown> }[] = [];
  const codes: (number | undefined)[] = [];
  const run: WandbRun = {
    log: (data, step) => void rows.push({ data, ...(step !== undefined && { step }) }),
    finish: (code) => {
      codes.push(code);
      return finish(code);
    },
  };
  const init = vi.fn<WandbSdk['init']>(() => Promise.resolve(run));
  return { rows, codes, init, sdk: { init } };
}

const step = (number: number): TrainingEvent => ({
  ...{ kind: 'step', step: number, epoch: 1, loss: 2 / number, learningRate: 0.1 / number },
  ...{ gradientNorm: 3, samplesPerSecond: 100 },
});
const epoch = (number: number, at: number): TrainingEvent => ({
  ...{ kind: 'evaluation', step: at, epoch: number, loss: 1, score: 0.5, metric: 'f1-macro' },
  ...{ best: true, learningRate: 0.1, seconds: 10 },
});

describe('wandbLog', () => {
  it('gives one row per step to a silent run of the project, with what the epoch adds', async () => {
    const { rows, codes, init, sdk } = noting();
    const log = await wandbLog('digits', { seed: 3 }, sdk);
    for (const event of [step(1), step(2), epoch(1, 2), step(3)]) log.write(event);
    await log.close(true);
    expect(init).toHaveBeenCalledExactlyOnceWith({
      ...{ project: 'digits', config: { seed: 3 } },
      settings: { silent: true },
    });
    expect(rows.map((row) => row.step)).toEqual([1, 2, 3]);
    expect(rows[1]!.data).toEqual({
      ...{ 'train/loss': 1, 'train/learning_rate': 0.05, 'train/gradient_norm': 3, 'train/samples_per_second': 100 },
      ...{ 'val/f1-macro': 0.5, 'train/epoch_loss': 1, epoch: 1 },
    });
    expect(rows[2]!.data).not.toHaveProperty('val/f1-macro');
    expect(codes).toEqual([0]);
  });

  it('tells of failure, and survives an SDK that fails or never ends', async () => {
    const failing = noting(() => Promise.reject(new Error('no network')));
    failing.sdk.init.mockImplementation(() =>
      Promise.resolve({
        log: () => {
          throw new Error('closed');
        },
        finish: (code) => {
          failing.codes.push(code);
          return Promise.reject(new Error('no network'));
        },
      }),
    );
    const log = await wandbLog('p', {}, failing.sdk);
    log.write(step(1));
    await log.close(false);
    expect(failing.codes).toEqual([1]);
    const endless = noting(() => new Promise(() => undefined));
    await (await wandbLog('p', {}, endless.sdk, 5)).close(true);
  });

  it('leaves signals to the command', async () => {
    const { sdk, init } = noting();
    const start = init.getMockImplementation()!;
    const quit = vi.fn();
    const own = vi.fn();
    process.once('SIGTERM', own);
    init.mockImplementation((options) => {
      process.once('SIGTERM', quit);
      return start(options);
    });
    await wandbLog('p', {}, sdk);
    expect(process.listeners('SIGTERM')).toContain(own);
    expect(process.listeners('SIGTERM')).not.toContain(quit);
    process.off('SIGTERM', own);
  });

  it('says what is missing', async () => {
    await expect(wandbLog('p', {})).rejects.toMatchObject({
      ...{ code: 'bad-input', node: '@wandb/sdk' },
      message: expect.stringMatching(/not installed/) as string,
      hint: expect.stringContaining('npm install @wandb/sdk') as string,
    });
    const { sdk, init } = noting();
    init.mockRejectedValue(new Error('No API key found'));
    await expect(wandbLog('p', {}, sdk)).rejects.toMatchObject({
      ...{ code: 'io', node: 'p' },
      message: expect.stringContaining('No API key found') as string,
      hint: expect.stringContaining('WANDB_API_KEY') as string,
    });
  });
});
