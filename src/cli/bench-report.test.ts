import { existsSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { SweepRequest } from '../commands/sweep.js';
import { COMPARED_METHODS } from '../experiments/comparison.js';
import { referenceTo } from '../experiments/trial.js';
import { workbench, type Outcome, type Workbench } from '../testing/command-line.js';
import { benchReport } from '../testing/reports.js';
import { library } from './library.js';

let bench: Workbench;
let args: string[];
beforeEach(async () => {
  bench = await workbench();
  const data = await bench.write('d.npz', '-');
  args = ['bench', 'report', '--data', data!, '--folder', bench.at('runs')];
});
afterEach(() => bench.remove());

async function asked(line: readonly string[]): Promise<Outcome & { request?: SweepRequest }> {
  let request: SweepRequest | undefined;
  const runSweep = (given: SweepRequest): Promise<{ report: ReturnType<typeof benchReport> }> => {
    request = given;
    return Promise.resolve({ report: benchReport() });
  };
  const outcome = await bench.run(line, { library: { ...library, runSweep } });
  return { ...outcome, ...(request && { request }) };
}

describe('flow-compress bench report', () => {
  it('trains every network, and applies every method to what was trained under the same seed', async () => {
    const more = ['--models', 'simple-cnn,lenet5-enhanced', '--seeds', '0,5', '--channels', '1', '--epochs', '2'];
    const { code, request } = await asked([...args, ...more, '--steps', '7', '--mean', '0.3', '--augment', 'flip']);
    expect(code).toBe(0);
    expect(request!.bestFirst).toBe(true);
    const { trials } = request!.plan!;
    const originals = trials.filter(({ command }) => command === 'train');
    expect(originals.map(({ models, options }) => [models[0], options['seed'], options['epochs']])).toEqual([
      ['simple-cnn', 0, 2],
      ['simple-cnn', 5, 2],
      ['lenet5-enhanced', 0, 2],
      ['lenet5-enhanced', 5, 2],
    ]);
    expect(originals[0]!.options).toMatchObject({ 'input-size': 32, channels: 1, augment: ['flip'] });
    for (const original of originals) {
      const made = trials.filter(({ models, options }) => (models[0] ?? options['teacher']) === referenceTo(original));
      expect(made.map(({ labels }) => labels['method']).sort()).toEqual(
        COMPARED_METHODS.map(({ name }) => name).sort(),
      );
      for (const { options } of made) expect(options).toMatchObject({ seed: original.options['seed'], mean: '0.3' });
    }
    const optionsOf = (name: string) => trials.find(({ labels }) => labels['method'] === name)!.options;
    expect(optionsOf('IDAP++')).toMatchObject({ steps: 7, augment: ['flip'] });
    expect(optionsOf('QAT INT8')).toMatchObject({ recover: 7 });
    expect(optionsOf('FAD')).toMatchObject({ epochs: 2 });
    expect(optionsOf('static INT8')).not.toHaveProperty('augment');
  });

  it.each([
    [['--models', 'lenet-5-enhanced'], /no architecture "lenet-5-enhanced"[^]*"lenet5-enhanced"/],
    [['--models', 'resnet50', '--input-size', '28'], /--input-size: 28 is too small[^]*32/],
    [['--models', 'gpt-ti'], /no architecture|no such option/],
    [['--seeds', 'x'], /whole number/],
    [['--augment', 'flop'], /flop|augment/],
    [['--epochs', '0'], /--epochs/],
  ])('refuses %j before anything runs', async (more, message) => {
    const { code, stderr, request } = await asked([...args, ...more]);
    expect({ code, request }).toEqual({ code: 2, request: undefined });
    expect(stderr).toMatch(message);
    expect(existsSync(bench.at('runs'))).toBe(false);
  });

  it('has its methods in the help', async () => {
    const { stdout } = await bench.run(['bench', 'report', '--help']);
    for (const { name } of COMPARED_METHODS) expect(stdout).toContain(name);
  });
});
