import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openModel, saveModel } from '../../node/model-file.js';
import { Graph } from '../../onnx/graph.js';
import { toBytes } from '../../onnx/to-bytes.js';
import type { ProgressEvent } from '../../progress.js';
import { parseReport } from '../../report/report.js';
import { runOnce } from '../../runtime/run-once.js';
import { argmax } from '../../runtime/scores.js';
import { commandLine } from '../../testing/command-line.js';
import { engine, info } from '../../testing/graph-writing.js';
import { normals, tinyResNet } from '../../testing/tiny-models.js';
import { npzOf } from '../../testing/tiny-net.js';
import { compressModel, type CompressInput } from './compress.js';

let folder: string;
const at = (name: string): string => join(folder, name);
const SIZE = 3 * 8 * 8;
const MODEL = tinyResNet(17, 16);
const ORIGINAL_BYTES = toBytes(MODEL).length;

const compress = (more: Partial<CompressInput>) =>
  compressModel(at('model.onnx'), {
    ...{ data: at('train.npz'), test: at('test.npz'), output: at('out.onnx'), force: true, align: 4, threads: 1 },
    ...{ calibSamples: 48, probeSamples: 16, steps: 0, batchSize: 32, latencyRuns: 2, execution: 'float', ...more },
  });

/** Samples with the class that the model gives them. */
async function labelled(count: number, seed: number): Promise<Uint8Array> {
  const values = normals(count * SIZE, seed);
  const { logits } = await runOnce(engine, MODEL, { x: { type: 'float32', dims: [count, 3, 8, 8], data: values } });
  const labels = Array.from({ length: count }, (_, i) => argmax(logits!.data, 5 * i, 5));
  return npzOf('x', [3, 8, 8], values, labels);
}

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'compress-'));
  await saveModel(MODEL, at('model.onnx'));
  await writeFile(at('train.npz'), await labelled(300, 1));
  await writeFile(at('test.npz'), await labelled(100, 2));
  await writeFile(at('unlabelled.npz'), npzOf('x', [3, 8, 8], normals(300 * SIZE, 3)));
});
afterAll(() => rm(folder, { recursive: true }));

describe('compressModel', () => {
  it('meets a size with the planned model of least loss, and says what every stage cost', async () => {
    const notes: string[] = [];
    const { model, report } = await compress({
      ...{ sizeRatio: 4, steps: 40, lr: 2e-3 },
      onProgress: ({ note }) => note !== undefined && notes.push(note),
    });
    const { plan, states, limits, before, after, layers, answers } = report;
    expect(parseReport(JSON.parse(JSON.stringify(report)))).toEqual(JSON.parse(JSON.stringify(report)));
    expect(before.bytes).toBe(ORIGINAL_BYTES);
    expect(limits.size).toEqual({ requested: Math.floor(ORIGINAL_BYTES / 4), achieved: after.bytes, met: true });
    expect(after.bytes).toBeLessThanOrEqual(ORIGINAL_BYTES / 4);
    const written = await readFile(at('out.onnx'));
    expect(toBytes(model)).toEqual(new Uint8Array(written));
    expect(after.bytes).toBe(written.length);

    const fits = plan.filter((one) => one.fits);
    const [chosen] = plan.filter((one) => one.chosen);
    expect(chosen!.quality.divergence).toBe(Math.min(...fits.map(({ quality }) => quality.divergence)));
    expect(plan.map(({ rung }) => rung)).toEqual(plan.map((_, i) => i));
    expect(plan.map(({ params }) => params)).toEqual([...plan.map(({ params }) => params)].sort((a, b) => b - a));
    // Less to store leaves more bits for the rest.
    expect(plan.at(-1)!.bits).toBeGreaterThan(plan[0]!.bits);
    expect(notes).toHaveLength(1);
    expect(notes[0]).toContain('chosen');

    const names = states.map(({ name }) => name);
    expect(names).toEqual(
      chosen!.rung === 0
        ? ['original', 'quantized', 'recovered']
        : ['original', 'cut', 'learned', 'quantized', 'recovered'],
    );
    expect(states.at(-1)!.bytes).toBe(after.bytes);
    expect(states.at(-1)!.quality.divergence).toBeLessThanOrEqual(states.at(-2)!.quality.divergence);
    // Both learnings are held against the original, not against what was cut.
    const quantized = states.find(({ name }) => name === 'quantized')!;
    expect(report.recovery!.before.divergence).toBeCloseTo(quantized.quality.divergence, 6);
    const updates = states.reduce((sum, state) => sum + (state.updates ?? 0), 0);
    expect(updates).toBe(40);

    const { nodes } = new Graph((await openModel(at('out.onnx'))).model);
    const kept = nodes.filter((node) => node.is('Conv') || node.is('Gemm')).length;
    expect(layers.filter(({ bits }) => bits !== undefined).length).toBe(kept);
    expect(layers.reduce((sum, { bytes }) => sum + bytes.after, 0)).toBeLessThan(after.bytes);

    expect(answers!.samples).toBe(100);
    expect(answers!.classes.reduce((sum, { samples }) => sum + samples, 0)).toBe(100);
    const alike = answers!.classes.reduce((sum, { samples, agreement }) => sum + samples * agreement, 0);
    const agreement = after.metrics!.find(({ name }) => name === 'agreement')!.value;
    expect(alike / 100).toBeCloseTo(agreement, 12);
    const right = answers!.classes.reduce((sum, one) => sum + one.labelled!.samples * one.labelled!.after, 0);
    expect(right / 100).toBeCloseTo(after.metric!.value, 12);
  });

  it('cuts once where cuts are weighed against bits, and needs a size and widths for that', async () => {
    const { report } = await compress({ method: 'joint', sizeRatio: 4 });
    const { plan, limits } = report;
    expect(limits.size!.met).toBe(true);
    const uncut = plan.filter(({ rung }) => rung === 0);
    // The size itself, and the widths between which the harm of rounding is known.
    expect(uncut).toHaveLength(6);
    expect(uncut.filter(({ fits }) => fits).length).toBeGreaterThan(0);
    expect(Math.max(...plan.map(({ rung }) => rung))).toBeLessThanOrEqual(1);
    const best = Math.min(...plan.filter(({ fits }) => fits).map(({ quality }) => quality.divergence));
    expect(plan.find(({ chosen }) => chosen)!.quality.divergence).toBe(best);
    await expect(compress({ method: 'joint', maxDrop: 0.1 })).rejects.toThrow(/say how small/);
    await expect(compress({ method: 'joint', sizeRatio: 6, quantizer: 'static-int8' })).rejects.toThrow(/one width/);
  });

  it('meets a speed, with bits that hardly change an answer', async () => {
    const { report } = await compress({ speedup: 1.1, align: 8, bestEffort: true });
    expect(report.limits.speed).toMatchObject({ requested: 1.1, batch: 32 });
    expect(report.limits.speed!.achieved).toBeGreaterThan(0.2);
    expect(report.plan.every(({ speedup, bits }) => speedup! > 0 && bits > 7)).toBe(true);
  });

  it('finds the smallest file that keeps to a drop', async () => {
    const { report } = await compress({ maxDrop: 0.1 });
    expect(report.limits).toEqual({
      drop: { metric: 'top1', requested: 0.1, achieved: report.limits.drop!.achieved, met: true },
    });
    const drop = report.states[0]!.quality.top1! - report.states.at(-1)!.quality.top1!;
    expect(report.limits.drop!.achieved).toBeCloseTo(drop, 12);
    const holding = report.plan.filter(({ quality }) => report.states[0]!.quality.top1! - quality.top1! <= 0.1);
    expect(report.plan.find(({ chosen }) => chosen)!.bytes).toBe(Math.min(...holding.map(({ bytes }) => bytes)));
  });

  it('does not cut where nothing can go, and does not learn where batches are fixed', async () => {
    const fixed = new Graph(MODEL);
    for (const value of [...fixed.inputs, ...fixed.outputs].filter((each) => !each.initializer))
      value.info = value.name === 'x' ? info('x', [1, 3, 8, 8]) : info('logits', [1, 5]);
    const options = { data: at('train.npz'), test: at('test.npz'), output: at('fixed.onnx'), calibSamples: 16 };
    const { report } = await compressModel(fixed.toModel(), {
      ...{ ...options, sizeRatio: 3, align: 64, execution: 'float', probeSamples: 8, latencyRuns: 2, threads: 1 },
    });
    expect(report.warnings!.join()).toContain('does not learn');
    const renewing = compressModel(fixed.toModel(), {
      ...options,
      sizeRatio: 3,
      method: 'kd-ptq',
      threads: 1,
      force: true,
    });
    await expect(renewing).rejects.toMatchObject({
      code: 'unsupported',
      message: expect.stringContaining('batches of 1 only') as string,
    });
    expect(report.limits.size!.met).toBe(true);
    expect(report.plan.filter(({ rung }) => rung > 0).every(({ params }) => params < report.before.params!)).toBe(true);
    expect(report.states.map(({ name }) => name)).toEqual(
      report.plan.find(({ chosen }) => chosen)!.rung === 0
        ? ['original', 'quantized']
        : ['original', 'cut', 'quantized'],
    );
  });

  it('works without labels, all limits together', async () => {
    const { report } = await compress({
      ...{ data: at('unlabelled.npz'), test: undefined, align: 8 },
      ...{ sizeRatio: 3, speedup: 1.01, maxDrop: 0.6, bestEffort: true },
    });
    expect(Object.keys(report.limits)).toEqual(['size', 'speed', 'drop']);
    expect(report.limits.drop).toMatchObject({ metric: 'agreement', met: true });
    expect(report.answers!.classes.every(({ labelled: labels }) => labels === undefined)).toBe(true);
    expect(report.answers!.worst.every(({ label }) => label === undefined)).toBe(true);
  });

  it('goes on after an interrupt to the same bytes, whatever the stage', async () => {
    const options: Partial<CompressInput> = { sizeRatio: 5.5, steps: 12, lr: 2e-3, recoverLr: 1e-3 };
    const whole = await compress({ ...options, runDir: at('whole') });
    expect(whole.report.plan.find(({ chosen }) => chosen)!.rung).toBeGreaterThan(0);
    const stops: ((event: ProgressEvent, stages: readonly string[]) => boolean)[] = [
      ({ stage, done }, stages) =>
        stage === 'align layers' && done === 1 && stages.filter((one) => one === 'plan').length === 2,
      ({ stage, done }, stages) =>
        stage === 'recover' && done === 3 && stages.filter((one) => one === 'recover').length === 1,
      ({ stage, done }, stages) =>
        stage === 'recover' && done === 3 && stages.filter((one) => one === 'recover').length === 2,
    ];
    for (const [i, stop] of stops.entries()) {
      const runDir = at(`stopped-${String(i)}`);
      const abort = new AbortController();
      const stages: string[] = [];
      const onProgress = (event: ProgressEvent): void => {
        if (stages.at(-1) !== event.stage) stages.push(event.stage);
        if (stop(event, stages)) abort.abort();
      };
      const stopped = compress({ ...options, runDir, signal: abort.signal, onProgress });
      await expect(stopped, `stop ${String(i)}: ${stages.join()}`).rejects.toMatchObject({ code: 'aborted' });
      const after: string[] = [];
      const again = await compress({ ...options, runDir, resume: true, onProgress: ({ stage }) => after.push(stage) });
      // The ladder is not climbed again.
      if (i > 0) expect(after).not.toContain('measure cuts');
      expect(toBytes(again.model)).toEqual(toBytes(whole.model));
    }
  });

  it('says before it learns which limit cannot be met, and how close it comes', async () => {
    const stages = new Set<string>();
    const hopeless = { sizeRatio: 200, steps: 10, output: at('refused.onnx') };
    const onProgress = ({ stage }: ProgressEvent): unknown => stages.add(stage);
    await expect(compress({ ...hopeless, onProgress })).rejects.toMatchObject({
      code: 'infeasible',
      message: expect.stringMatching(/limits cannot be met together: the nearest file has .* k?B, not \d+ B/) as string,
      hint: expect.stringContaining('--best-effort') as string,
    });
    expect(stages.has('recover')).toBe(false);
    expect((await readdir(folder)).filter((name) => name.includes('refused'))).toEqual([]);
    const { report } = await compress({ ...hopeless, steps: 0, bestEffort: true });
    expect(report.limits.size!.met).toBe(false);
    expect(report.plan.every(({ fits }) => !fits)).toBe(true);
    expect(report.plan.find(({ chosen }) => chosen)!.bytes).toBe(Math.min(...report.plan.map(({ bytes }) => bytes)));
  });

  it('makes a second model when the first loses too much, and says what it loses', async () => {
    const strict = { sizeRatio: 5.5, maxDrop: 0.07, output: at('strict.onnx') };
    await expect(compress(strict)).rejects.toMatchObject({
      code: 'infeasible',
      message: expect.stringMatching(/it loses [\d.]+ pp on VAL, 7\.00 pp are allowed/) as string,
    });
    const { report } = await compress({ ...strict, bestEffort: true });
    expect(report.limits.drop!.met).toBe(false);
    expect(report.plan.flatMap(({ tried }) => tried ?? []).sort()).toEqual([1, 2]);
  });

  it.each<[string, Partial<CompressInput>]>([
    ['sequential', { sizeRatio: 3.5, reduce: 0.4 }],
    ['prune-only', { sizeRatio: 1.6 }],
    ['quantize-only', { sizeRatio: 3.5 }],
    ['prune-qat', { sizeRatio: 3.5, reduce: 0.4 }],
    ['kd-ptq', { sizeRatio: 3.5, reduce: 0.4 }],
    ['distill-ptq', { sizeRatio: 4.5 }],
    ['distill-only', { sizeRatio: 2 }],
  ])('has %s to compare with, under the same limits and learning', async (method, more) => {
    const { report } = await compress({ method, steps: 20, lr: 2e-3, ...more });
    expect(report.method).toBe(method);
    expect(report.limits.size!.met).toBe(true);
    expect(report.states.reduce((sum, { updates = 0 }) => sum + updates, 0)).toBe(20);
    const names = report.states.map(({ name }) => name);
    const expected: Record<string, string[]> = {
      sequential: ['original', 'cut', 'learned', 'quantized'],
      'prune-only': ['original', 'cut', 'learned'],
      'quantize-only': ['original', 'quantized', 'recovered'],
      'prune-qat': ['original', 'cut', 'learned', 'quantized', 'recovered'],
      'kd-ptq': ['original', 'cut', 'renewed', 'learned', 'quantized'],
      'distill-ptq': ['original', 'cut', 'renewed', 'learned', 'quantized'],
      'distill-only': ['original', 'cut', 'renewed', 'learned'],
    };
    expect(names).toEqual(expected[method]);
    const widths = new Set(report.layers.flatMap(({ bits }) => bits ?? []));
    if (method === 'sequential') expect(widths.size).toBe(1);
    if (method === 'prune-only' || method === 'distill-only') expect([...widths]).toEqual([32]);
    if (method === 'distill-ptq') expect([...widths].every((bits) => bits >= 7)).toBe(true);
    const renewed = report.states.find(({ name }) => name === 'renewed');
    if (renewed) {
      // What the original knew is gone: it answers as chance does, and learns.
      expect(renewed.quality.divergence).toBeGreaterThan(report.states.at(-1)!.quality.divergence);
      expect(report.settings!.stages).toContain('renew');
    }
    // As wide as the limit lets it be, but for a step of 10 %.
    if (method.startsWith('distill'))
      expect(report.limits.size!.achieved).toBeGreaterThan(0.7 * report.limits.size!.requested);
    if (method === 'sequential') expect(report.after.macs!).toBeLessThanOrEqual(0.605 * report.before.macs!);
  });

  it('takes another quantizer and another teaching, and says so', async () => {
    const { report } = await compress({
      ...{ sizeRatio: 5, steps: 8, lr: 2e-3, quantizer: 'hawq', teaching: 'fad', method: 'sequential', reduce: 0.3 },
    });
    expect(report.settings!.stages).toBe('cut l1, learn fad, quantize hawq');
    expect(new Set(report.layers.flatMap(({ bits }) => bits ?? [])).size).toBeGreaterThan(1);
    expect(report.limits.size!.met).toBe(true);
    const search = await compress({ sizeRatio: 4, steps: 0, method: 'quantize-only', quantizer: 'haq-lite' });
    expect(search.report.settings!.stages).toBe('quantize haq-lite');
    expect(search.report.limits.size!.met).toBe(true);
  });

  it.each<[string, Partial<CompressInput>, RegExp]>([
    [
      'a quantizer where nothing is rounded',
      { sizeRatio: 2, method: 'prune-only', quantizer: 'hawq' },
      /prune-only leaves the weights in float/,
    ],
    [
      'a quantizer that is none',
      { sizeRatio: 2, quantizer: 'haqlite' },
      /unknown quantizer "haqlite" .did you mean haq-lite\?/,
    ],
    ['a teaching without time', { sizeRatio: 2, steps: 0, teaching: 'kd' }, /no time to teach/],
    [
      'hints of values that are new',
      { sizeRatio: 2, steps: 5, method: 'kd-ptq', teaching: 'hints' },
      /give kd, fad or crd/,
    ],
    ['new weights without time', { sizeRatio: 2, method: 'distill-ptq', steps: 0 }, /needs time to learn/],
    [
      'a width from a drop',
      { maxDrop: 0.1, steps: 5, method: 'distill-ptq' },
      /as wide as a size or a speed lets it be/,
    ],
    ['a method by its nearest', { sizeRatio: 2, method: 'kd-pqt' }, /did you mean kd-ptq\?/],
    [
      'labels that are not there',
      { sizeRatio: 2, steps: 5, teaching: 'labels', data: 'unlabelled.npz', test: undefined },
      /no labels to learn from/,
    ],
    ['no limit at all', {}, /sizeRatio: a limit is missing/],
    ['two sizes', { sizeRatio: 4, maxSize: 1000 }, /sizeRatio: cannot be combined/],
    [
      'a share of what is planned',
      { sizeRatio: 4, reduce: 0.5 },
      /reduce: belongs to methods that cut by a rule: sequential, prune-qat, kd-ptq/,
    ],
    ['an unknown method', { sizeRatio: 4, method: 'magic' }, /unknown method "magic"; there are flow-compress, /],
    ['a drop that VAL cannot tell', { maxDrop: 0.001 }, /cannot be told on VAL/],
    ['to resume nothing', { sizeRatio: 4, resume: true }, /resume: needs --run-dir/],
  ])('refuses %s', async (_, { data, ...more }, message) => {
    await expect(compress({ ...more, ...(data !== undefined && { data: at(data) }) })).rejects.toMatchObject({
      code: 'bad-input',
      message: expect.stringMatching(message) as string,
    });
  });
});

describe('the command line', () => {
  const args = (): string[] => ['compress', at('model.onnx'), '-o', at('cli.onnx'), '--data', at('train.npz')];

  it('ends with 2 without a limit, and with 3 where one is not met', async () => {
    const none = await commandLine(args());
    expect(none).toMatchObject({ code: 2 });
    expect(none.stderr).toContain('--size-ratio: a limit is missing');
    const small = ['--size-ratio', '200', '--steps', '0', '--calib-samples', '64', '--probe-samples', '16'];
    const options = [...args(), ...small, '--execution', 'float', '--latency-runs', '2', '--threads', '1'];
    expect(await commandLine(options)).toMatchObject({ code: 3, stdout: '' });
    const best = await commandLine([...options, '--best-effort', '--json', '--quiet']);
    expect(best.code).toBe(3);
    expect(JSON.parse(best.stdout)).toMatchObject({ command: 'compress', limits: { size: { met: false } } });
  });
});
