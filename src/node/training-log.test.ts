import { appendFile, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { TrainingEvent } from '../training/trainer.js';
import { trainingLog } from './training-log.js';

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'flow-log-'));
});
afterEach(() => rm(folder, { recursive: true }));

const step = (number: number): TrainingEvent => ({
  ...{ kind: 'step', step: number, epoch: 1, loss: 2 / number, learningRate: 0.1 / number },
  ...{ gradientNorm: 3, samplesPerSecond: 100 },
});
const epoch = (number: number, at: number, score = 0.5): TrainingEvent => ({
  ...{ kind: 'evaluation', step: at, epoch: number, loss: 1, score, metric: 'top1', best: true },
  ...{ learningRate: 0.1 / at, seconds: 10 * number },
});
const lines = async (): Promise<Record<string, unknown>[]> =>
  (await readFile(join(folder, 'metrics.jsonl'), 'utf8'))
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as Record<string, unknown>);

describe('trainingLog', () => {
  it('keeps every step and epoch as a line, and scalars beside them', async () => {
    const log = trainingLog(folder, false);
    const events = [step(1), step(2), epoch(1, 2), step(3)];
    for (const event of events) log.write(event);
    log.close();
    expect(log.earlier).toEqual([]);
    const written = await lines();
    expect(written.map(({ time: _, ...rest }) => rest)).toEqual([
      events[0],
      events[1],
      { ...events[2], learningRate: 0.05 },
      events[3],
    ]);
    for (const { time } of written) expect(Math.abs(Date.parse(time as string) - Date.now())).toBeLessThan(60_000);
    const [file] = await readdir(join(folder, 'tensorboard'));
    const bytes = await readFile(join(folder, 'tensorboard', file!), 'latin1');
    for (const tag of ['train/loss', 'train/learning_rate', 'train/gradient_norm', 'val/top1', 'train/epoch_loss'])
      expect(bytes).toContain(tag);
  });

  it('gives a resumed training the epochs of the one before', async () => {
    const first = trainingLog(folder, false);
    for (const event of [step(1), epoch(1, 1), step(2), epoch(2, 2, 0.7), step(3)]) first.write(event);
    first.close();
    const points = [
      { epoch: 1, step: 1, loss: 1, score: 0.5, learningRate: 0.1, seconds: 10 },
      { epoch: 2, step: 2, loss: 1, score: 0.7, learningRate: 0.05, seconds: 20 },
    ];
    expect(trainingLog(folder, true).earlier).toEqual(points);
    // The end of the process between a line and the checkpoint: the epoch is done, and logged, again.
    const second = trainingLog(folder, true);
    for (const event of [step(2), epoch(2, 2, 0.8)]) second.write(event);
    second.close();
    await appendFile(join(folder, 'metrics.jsonl'), '{"kind":"epoch","ep');
    expect(trainingLog(folder, true).earlier).toEqual([points[0], { ...points[1]!, score: 0.8 }]);
    expect(trainingLog(folder, false).earlier).toEqual([]);
  });

  it('begins a new line after one that was cut short', async () => {
    await writeFile(join(folder, 'metrics.jsonl'), '{"kind":"step","st');
    const log = trainingLog(folder, true);
    log.write(epoch(1, 1));
    log.close();
    expect(trainingLog(folder, true).earlier.map((point) => point.epoch)).toEqual([1]);
  });

  it('forgets the lines of another training', async () => {
    const first = trainingLog(folder, false);
    first.write(epoch(1, 5));
    first.close();
    const second = trainingLog(folder, false);
    second.write(epoch(1, 3));
    second.close();
    expect(trainingLog(folder, true).earlier.map((point) => point.step)).toEqual([3]);
  });

  it('keeps nothing without a folder, and stops nothing when it cannot write', async () => {
    const none = trainingLog(undefined, true);
    none.write(step(1));
    none.close();
    expect(none.earlier).toEqual([]);
    const file = join(folder, 'file');
    await writeFile(file, '');
    const log = trainingLog(join(file, 'run'), false);
    expect(() => {
      log.write(step(1));
      log.write(epoch(1, 1));
      log.close();
    }).not.toThrow();
  });
});
