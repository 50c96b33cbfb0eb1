/** `quantize --recover` through the whole program: what it changes, how it goes on after an interrupt, what it refuses. */
import { readFile, rm } from 'node:fs/promises';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { ProgressEvent } from '../progress.js';
import type { QuantizeReport } from '../report/report.js';
import { listeningTo, workbench, type Outcome, type Workbench } from '../testing/command-line.js';
import { normals, tinyResNet } from '../testing/tiny-models.js';
import { npzOf } from '../testing/tiny-net.js';

const SAMPLES = 120;
const LABELS = Array.from({ length: SAMPLES }, (_, i) => i % 5);
const DATA = npzOf('x', [3, 8, 8], normals(SAMPLES * 192, 3), LABELS);
const STEPS = 12;

let bench: Workbench;
let args: string[];

beforeEach(async () => {
  bench = await workbench();
  const model = await bench.model('model.onnx', tinyResNet());
  const data = await bench.write('data.npz', DATA);
  args = ['quantize', model, '-o', bench.at('out.onnx'), '--force', '--data', data, '--json', '--quiet'];
  args.push('--bits', '2', '--edge-bits', '2', '--recover-batch-size', '16', '--latency-runs', '2');
});
afterEach(() => bench.remove());

const bytes = (): Promise<Buffer> => readFile(bench.at('out.onnx'));

async function run(flags: string[], stopAt: (event: ProgressEvent) => boolean = () => false): Promise<Outcome> {
  const abort = new AbortController();
  return bench.run([...args, ...flags], {
    signal: abort.signal,
    library: listeningTo((event) => {
      if (stopAt(event)) abort.abort();
    }),
  });
}

async function reportOf(flags: string[]): Promise<QuantizeReport> {
  const { code, stdout, stderr } = await run(flags);
  expect(stderr).toBe('');
  expect(code).toBe(0);
  return JSON.parse(stdout) as QuantizeReport;
}

describe('quantize --recover', () => {
  it('changes nothing with 0 updates, and says what more of them did', async () => {
    const plain = await reportOf(['--execution', 'int8']);
    const before = await bytes();
    expect(plain.recovery).toBeUndefined();
    const none = await reportOf(['--execution', 'int8', '--recover', '0']);
    expect(none.recovery).toBeUndefined();
    expect((await bytes()).equals(before)).toBe(true);
    const report = await reportOf(['--execution', 'int8', '--recover', String(STEPS), '--augment', 'flip,mixup']);
    const { recovery } = report;
    expect(recovery).toMatchObject({ steps: STEPS, measure: 'kl' });
    expect(recovery!.after.divergence).toBeLessThan(recovery!.before.divergence);
    expect(recovery!.after.top1).toBeGreaterThanOrEqual(recovery!.before.top1!);
    expect(recovery!.points.map(({ step }) => step)).toEqual([2, 4, 6, 8, 10, 12]);
    const best = recovery!.points.find(({ step }) => step === recovery!.bestStep)!;
    const { divergence, top1 } = recovery!.after;
    expect(best).toMatchObject({ divergence, top1 });
    expect(report.settings).toMatchObject({ temperature: 1, recoverBatchSize: 16, augment: ['flip', 'mixup'] });
    expect(report.layers.map(({ bits }) => bits)).toEqual(plain.layers.map(({ bits }) => bits));
    expect(report.after.bytes).toBe(plain.after.bytes);
    expect((await bytes()).equals(before)).toBe(false);
  });

  it.each([
    ['between two updates', ({ stage, done }: ProgressEvent) => stage === 'recover' && done === 5],
    ['before an evaluation', ({ stage, done }: ProgressEvent) => stage === 'recover' && done === 8],
  ])('goes on after an interrupt %s to the same bytes', async (_, stopAt) => {
    const recovering = ['--execution', 'float', '--recover', String(STEPS), '--augment', 'crop'];
    const whole = await reportOf([...recovering, '--run-dir', bench.at('whole')]);
    const expected = await bytes();
    await rm(bench.at('out.onnx'));
    const stopped = await run([...recovering, '--run-dir', bench.at('run')], stopAt);
    expect(stopped).toMatchObject({ code: 130 });
    const resumed = await reportOf([...recovering, '--run-dir', bench.at('run'), '--resume']);
    expect((await bytes()).equals(expected)).toBe(true);
    const timeless = ({ recovery }: QuantizeReport): unknown =>
      JSON.parse(JSON.stringify(recovery, (key, value: unknown) => (key === 'seconds' ? 0 : value)));
    expect(timeless(resumed)).toEqual(timeless(whole));
  });

  it.each(['fad', 'crd'])('goes on after an interrupt to the same bytes when taught by %s', async (teaching) => {
    // Its labels have nothing to do with the model: without them every update brings it nearer.
    await bench.write('data.npz', npzOf('x', [3, 8, 8], normals(SAMPLES * 192, 3)));
    const recovering = ['--execution', 'float', '--recover', '6', '--recover-lr', '0.003', '--teaching', teaching];
    const { recovery } = await reportOf([...recovering, '--run-dir', bench.at('whole')]);
    // What comes behind the interrupt is in the file.
    expect(recovery!.bestStep).toBeGreaterThan(4);
    const expected = await bytes();
    await rm(bench.at('out.onnx'));
    const stopAt = ({ stage, done }: ProgressEvent): boolean => stage === 'recover' && done === 3;
    expect(await run([...recovering, '--run-dir', bench.at('run')], stopAt)).toMatchObject({ code: 130 });
    await reportOf([...recovering, '--run-dir', bench.at('run'), '--resume']);
    expect((await bytes()).equals(expected)).toBe(true);
  });

  it('keeps to the execution that the run chose, whatever would be chosen now', async () => {
    const flags = ['--remeasure', '--recover', '4', '--run-dir', bench.at('run')];
    await run(flags, ({ stage, done }) => stage === 'recover' && done === 2);
    const file = bench.at('run/state.json');
    const state = JSON.parse(await readFile(file, 'utf8')) as { cache: Record<string, string> };
    const key = Object.keys(state.cache).find((name) => name.startsWith('execution'))!;
    state.cache[key] = JSON.stringify({ name: 'of this run', int8: [], refused: 0 });
    await bench.write('run/state.json', JSON.stringify(state));
    await rm(bench.at('run/checkpoint.npz'));
    expect((await reportOf([...flags, '--resume'])).settings).toMatchObject({ execution: 'of this run' });
  });

  it.each<[string, string[], RegExp]>([
    ['a sweep', ['--recover', '4', '--sweep', '3'], /--recover: cannot be combined with a sweep/],
    ['activations without quantizers', ['--recover', '4', '--method', 'dynamic-int8'], /dynamic-int8 cannot be/],
    ['a negative number', ['--recover', '-1'], /--recover/],
    ['more samples per update than there are', ['--recover', '4', '--recover-batch-size', '5000'], /A step takes 5000/],
  ])('refuses %s', async (_, flags, message) => {
    const outcome = await run(flags);
    expect(outcome.code).toBe(2);
    const { error } = JSON.parse(outcome.stdout) as { error: { message: string } };
    expect(error.message).toMatch(message);
  });

  it('refuses a model of fixed batch by name', async () => {
    const fixed = tinyResNet();
    const input = fixed.graph!.input[0]!.type!.value;
    if (input.case === 'tensorType') input.value.shape!.dim[0]!.value = { case: 'dimValue', value: 2n };
    args[1] = await bench.model('fixed.onnx', fixed);
    const outcome = await run(['--recover', '2']);
    expect(outcome.stdout).toMatch(/takes batches of 2 only/);
    expect(outcome.code).toBe(2);
  });
});
