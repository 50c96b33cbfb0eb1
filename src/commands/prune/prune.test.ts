import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { ModelProto } from 'onnx-buf';
import { floatAttribute } from '../../onnx/attributes.js';
import { openModel, saveModel } from '../../node/model-file.js';
import { Graph } from '../../onnx/graph.js';
import { findLayers, weightMatrix } from '../../onnx/layers.js';
import { toBytes } from '../../onnx/to-bytes.js';
import type { ProgressEvent } from '../../progress.js';
import { PRUNING_METHODS } from '../../pruning/methods.js';
import { runOnce } from '../../runtime/run-once.js';
import { argmax } from '../../runtime/scores.js';
import { engine, info, op, tinyModel } from '../../testing/graph-writing.js';
import { normals, tinyResNet } from '../../testing/tiny-models.js';
import { npzOf } from '../../testing/tiny-net.js';
import { makeTensor } from '../../onnx/tensor.js';
import { pruneModel, type PruneInput } from './prune.js';

let folder: string;
const at = (name: string): string => join(folder, name);
const SIZE = 3 * 8 * 8;
const MODEL = tinyResNet(17, 16);

const options = (more: Partial<PruneInput> = {}): PruneInput => ({
  ...{ data: at('train.npz'), test: at('test.npz'), output: at('out.onnx'), force: true, align: 4 },
  ...{ calibSamples: 64, probeSamples: 32, steps: 0, batchSize: 32, latencyRuns: 2, ...more },
});

/** The model with a normalization inside the block, and its scales. */
function withNorms(): { model: ModelProto; gammas: Float32Array } {
  const graph = new Graph(MODEL);
  const output = graph.mustGet('block.a.y');
  const uses = [...output.uses];
  const gammas = normals(16, 77);
  const vector = (name: string, values: Float32Array) => graph.addInitializer(makeTensor(name, 1, [16], values));
  const inputs = [vector('gamma', gammas), vector('beta', normals(16, 78)), vector('mean', normals(16, 79))];
  const norm = graph.insertOp('BatchNormalization', [
    output,
    ...inputs,
    vector('variance', new Float32Array(16).fill(1)),
  ]);
  for (const { node, index } of uses) graph.setInput(node, index, norm);
  return { model: graph.toModel(), gammas };
}

/** The model with an operator behind its first activation that no gradient goes through. */
function withoutGradients(): ModelProto {
  const graph = new Graph(MODEL);
  const value = graph.mustGet('block.relu');
  const uses = [...value.uses];
  const shrunk = graph.insertOp('Shrink', [value], [floatAttribute('lambd', 0.1)], 'block.shrink');
  for (const { node, index } of uses) graph.setInput(node, index, shrunk);
  return graph.toModel();
}

/** Samples with the class that the model gives them. */
async function labelled(count: number, seed: number): Promise<Uint8Array> {
  const values = normals(count * SIZE, seed);
  const { logits } = await runOnce(engine, MODEL, { x: { type: 'float32', dims: [count, 3, 8, 8], data: values } });
  const labels = Array.from({ length: count }, (_, i) => argmax(logits!.data, 5 * i, 5));
  return npzOf('x', [3, 8, 8], values, labels);
}

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'prune-'));
  await saveModel(MODEL, at('model.onnx'));
  await writeFile(at('train.npz'), await labelled(300, 1));
  await writeFile(at('test.npz'), await labelled(100, 2));
  await writeFile(at('unlabelled.npz'), npzOf('x', [3, 8, 8], normals(200 * SIZE, 3)));
});
afterAll(() => rm(folder, { recursive: true }));

describe('pruneModel', () => {
  it('writes a model with fewer multiply-accumulates that gives much the same answers', async () => {
    const { model, report } = await pruneModel(at('model.onnx'), options({ reduce: 0.4 }));
    const { before, after, budget, steps, groups, layers } = report;
    expect(budget).toMatchObject({ of: 'macs', requested: 0.4, met: true });
    expect(after.macs!).toBeLessThanOrEqual(0.605 * before.macs!);
    expect(1 - after.macs! / before.macs!).toBeCloseTo(budget!.achieved, 6);
    expect(after.bytes).toBeLessThan(before.bytes);
    expect(after.metrics!.find(({ name }) => name === 'agreement')!.value).toBeGreaterThan(0.7);
    expect(steps).toHaveLength(1);
    expect(steps[0]).toMatchObject({ step: 1, accepted: true, macs: after.macs, params: after.params });
    expect(steps[0]!.aligned!.divergence).toBeLessThan(steps[0]!.cut!.divergence);
    expect(report.original).toMatchObject({ divergence: 0, top1: 1, agreement: 1 });
    const written = findLayers(new Graph((await openModel(at('out.onnx'))).model));
    expect(layers.map(({ channels }) => channels.after).filter((width) => width > 0)).toEqual(
      written.map(({ channels }) => channels),
    );
    expect(groups.every(({ before: was, after: is }) => is <= was)).toBe(true);
    expect(toBytes(model)).toEqual(new Uint8Array(await readFile(at('out.onnx'))));
  });

  it('takes statistics anew of normalizations that it cannot fold, and says what that gave back', async () => {
    const graph = new Graph(MODEL);
    const value = graph.mustGet('block.sum');
    const vector = (name: string, values: Float32Array) => graph.addInitializer(makeTensor(name, 1, [16], values));
    const ones = new Float32Array(16).fill(1);
    const uses = [...value.uses];
    const inputs = [
      vector('gamma', ones),
      vector('beta', normals(16, 78, 0.1)),
      vector('mean', ones),
      vector('v', ones),
    ];
    const norm = graph.insertOp('BatchNormalization', [value, ...inputs], [], 'norm');
    for (const { node, index } of uses) graph.setInput(node, index, norm);
    const { model, report } = await pruneModel(graph.toModel(), options({ reduce: 0.4, stages: 'filters' }));
    expect(findLayers(new Graph(model)).length).toBe(4);
    const { refitted, normalized, aligned } = report.steps[0]!;
    expect(normalized!.divergence).not.toBe(refitted!.divergence);
    expect(aligned!.divergence).toBeLessThan(refitted!.divergence);
    const plain = await pruneModel(at('model.onnx'), options({ reduce: 0.4, stages: 'filters' }));
    expect(plain.report.steps[0]).not.toHaveProperty('normalized');
  });

  it('gives the same bytes for the same seed, and learns from the original', async () => {
    const learn: Partial<PruneInput> = { reduce: 0.5, steps: 40, lr: 1e-3 };
    const first = await pruneModel(at('model.onnx'), options(learn));
    const second = await pruneModel(at('model.onnx'), options(learn));
    expect(toBytes(second.model)).toEqual(toBytes(first.model));
    expect(first.report.recovery!.after.divergence).toBeLessThan(first.report.recovery!.before.divergence);
  });

  const cutting = PRUNING_METHODS.filter(({ kind, name }) => kind === 'structured' && name !== 'bn-scale');
  it.each(cutting.map(({ name }) => name))('reaches the goal with %s', async (method) => {
    const { report } = await pruneModel(at('model.onnx'), options({ method, reduce: 0.3 }));
    expect(report.method).toBe(method);
    expect(report.budget!.met).toBe(true);
    expect(report.steps.at(-1)!.units + report.steps.at(-1)!.branches.length).toBeGreaterThan(0);
  });

  it.each(PRUNING_METHODS.flatMap(({ name, kind }) => (kind === 'weights' ? name : [])))(
    'removes single weights with %s, and stores what is left',
    async (method) => {
      const { model, report } = await pruneModel(
        at('model.onnx'),
        options({ method, sparsity: 0.8, steps: 20, lr: 2e-3 }),
      );
      expect(report.budget).toMatchObject({ of: 'params', requested: 0.8, met: true });
      expect(report.budget!.achieved).toBeCloseTo(0.8, 2);
      expect(report.after.bytes).toBeLessThan(0.35 * report.before.bytes);
      expect(report.after.params).toBe(report.before.params);
      // A fifth of them in float, and a bit for each: 4 / (1/8 + 0.8) and less for what is not packed.
      const [note] = report.warnings!.filter((text) => text.includes('8 bits'));
      const [whole, alone] = [...note!.matchAll(/([\d.]+) times/g)].map(([, factor]) => Number(factor));
      expect(whole).toBeCloseTo(report.before.bytes / report.after.bytes, 1);
      expect(alone).toBeGreaterThan(1);
      expect(alone).toBeLessThan(0.6 * whole!);
      const quality = report.recovery!.after;
      expect(quality.divergence).toBeLessThanOrEqual(report.steps[0]!.cut!.divergence);
      const written = await openModel(at('out.onnx'));
      expect(toBytes(written.model)).toEqual(toBytes(model));
      const again = await pruneModel(at('model.onnx'), options({ method, sparsity: 0.8, steps: 20, lr: 2e-3 }));
      expect(toBytes(again.model)).toEqual(toBytes(model));
    },
  );

  it.each([1, 2])(
    'ranks filters by the scales of normalizations that its own form no longer has (cuts: %i)',
    async (cuts) => {
      const { model, gammas } = withNorms();
      const { report } = await pruneModel(model, options({ method: 'bn-scale', reduce: 0.3, cuts }));
      expect(report.budget!.met).toBe(true);
      expect(report.steps).toHaveLength(cuts);
      // Only the layer inside the block has a normalization.
      expect(report.warnings!.join()).toMatch(/1 of 2 groups .* no batch normalization and keep their widths: stem/);
      expect(report.layers.map(({ channels }) => channels.after)).toEqual([16, 8, 16, 5]);
      const graph = new Graph((await openModel(at('out.onnx'))).model);
      const kept = findLayers(graph).find(({ name }) => name === 'block.a')!;
      const rows = weightMatrix(graph, kept);
      const original = findLayers(new Graph(model)).find(({ name }) => name === 'block.a')!;
      const before = weightMatrix(new Graph(model), original);
      const largest = [...gammas.keys()].sort((a, b) => Math.abs(gammas[b]!) - Math.abs(gammas[a]!)).slice(0, 8);
      largest.sort((a, b) => a - b);
      largest.forEach((channel, row) => {
        // The scale is folded in.
        const [was, is] = [before[channel * original.cols]!, rows[row * kept.cols]!];
        expect(is / was).toBeCloseTo(gammas[channel]! / Math.sqrt(1 + 1e-5), 4);
      });
    },
  );

  it('says what to do where the normalizations are folded', async () => {
    const refused = pruneModel(at('model.onnx'), options({ method: 'bn-scale', output: at('refused.onnx') }));
    await expect(refused).rejects.toMatchObject({
      code: 'bad-input',
      message: expect.stringContaining('fold them into the convolutions') as string,
      hint: expect.stringContaining('BatchNormalization nodes') as string,
    });
    expect((await readdir(folder)).filter((name) => name.includes('refused'))).toEqual([]);
  });

  it('names an operator without a gradient rule before anything is cut', async () => {
    const model = withoutGradients();
    const stages = new Set<string>();
    const onProgress = ({ stage }: ProgressEvent): unknown => stages.add(stage);
    const refused = (more: Partial<PruneInput>, hint: string) =>
      expect(pruneModel(model, options({ onProgress, ...more }))).rejects.toMatchObject({
        code: 'unsupported',
        message: expect.stringContaining('Shrink') as string,
        node: expect.stringContaining('block.shrink') as string,
        hint: expect.stringContaining(hint) as string,
      });
    for (const score of ['taylor', 'fisher'] as const) await refused({ score }, 'export');
    for (const asked of [{ steps: 5 }, { epochs: 1 }, { maxTime: 1 }, { method: 'magnitude', steps: 5 }])
      await refused({ steps: undefined, ...asked }, '--steps 0');
    await refused({ method: 'sfp', steps: undefined }, '--method');
    expect([...stages].filter((stage) => /calibrate|cut|normalize|recover/.test(stage))).toEqual([]);
  });

  it('leaves the learning out where the model cannot learn and nobody asked for it', async () => {
    const { report } = await pruneModel(withoutGradients(), options({ reduce: 0.3, steps: undefined }));
    expect(report.budget!.met).toBe(true);
    expect(report.recovery).toBeUndefined();
    expect(report.warnings!.join()).toMatch(/does not learn after the cuts: .*Shrink/);
  });

  it('removes what scores highest on request, which hurts more', async () => {
    const agreement = async (order: 'lowest' | 'highest'): Promise<number> => {
      const { report } = await pruneModel(at('model.onnx'), options({ method: 'taylor', order, reduce: 0.3 }));
      expect(report.budget!.met).toBe(true);
      expect(report.settings!['order']).toBe(order === 'highest' ? order : undefined);
      return report.steps.at(-1)!.cut!.divergence;
    };
    expect(await agreement('highest')).toBeGreaterThan(2 * (await agreement('lowest')));
  });

  describe.each(['sfp', 'swd'])('%s', (method) => {
    const shrink = (more: Partial<PruneInput> = {}) =>
      pruneModel(at('model.onnx'), options({ method, reduce: 0.4, steps: 40, lr: 2e-3, ...more }));

    it('learns first and then cuts to the goal, with the same bytes every time', async () => {
      const { model, report } = await shrink();
      expect(report.budget).toMatchObject({ requested: 0.4, met: true });
      expect(report.after.macs!).toBeLessThanOrEqual(0.605 * report.before.macs!);
      const { before, after, bestStep } = report.recovery!;
      // What VAL judged is what was cut, and nothing was learned after that.
      expect(report.steps).toHaveLength(1);
      expect(report.steps[0]!.cut!.divergence).toBeCloseTo(after.divergence, 5);
      expect(report.steps[0]!.recovered).toBeUndefined();
      expect(bestStep).toBeGreaterThan(0);
      expect(after.divergence).toBeLessThan(0.7 * before.divergence);
      // Without learning it is the same share of the filters of least norm.
      const plain = await pruneModel(at('model.onnx'), options({ method: 'l2', reduce: 0.4, cuts: 1 }));
      expect(before.divergence).toBeCloseTo(plain.report.steps[0]!.cut!.divergence, 5);
      expect(report.after.macs).toBe(plain.report.after.macs);
      expect(toBytes((await shrink()).model)).toEqual(toBytes(model));
    });

    it('goes on after an interrupt to the same bytes', async () => {
      const whole = await shrink({ runDir: at(`${method}-whole`) });
      const runDir = at(`${method}-stopped`);
      const abort = new AbortController();
      const onProgress = (event: ProgressEvent): unknown =>
        event.stage === 'recover' && event.done === 23 && abort.abort();
      await expect(shrink({ runDir, signal: abort.signal, onProgress })).rejects.toMatchObject({ code: 'aborted' });
      const again = await shrink({ runDir, resume: true });
      expect(toBytes(again.model)).toEqual(toBytes(whole.model));
    });

    it.each<[Partial<PruneInput>, RegExp]>([
      [{ maxDrop: 0.1 }, /maxDrop: .*share of the cost only/],
      [{ of: 'latency' }, /of: .*anything to time/],
      [{ score: 'l1' }, /score: .*norms/],
      [{ order: 'highest' }, /order: .*least first/],
      [{ cuts: 2 }, /cuts: .*once/],
      [{ stages: 'layers' }, /stages: .*filters only/],
      [{ steps: 0 }, /steps: .*time to learn/],
    ])('refuses %o', async (more, message) => {
      await expect(shrink(more)).rejects.toMatchObject({
        code: 'bad-input',
        message: expect.stringMatching(message) as string,
      });
    });

    it('says before it learns that the goal cannot be met', async () => {
      const stages = new Set<string>();
      const onProgress = ({ stage }: ProgressEvent): unknown => stages.add(stage);
      await expect(shrink({ reduce: 0.99, onProgress })).rejects.toMatchObject({ code: 'infeasible' });
      expect(stages.has('recover')).toBe(false);
    });
  });

  it('takes out whole branches where only layers may go, and none where only filters may', async () => {
    const layers = await pruneModel(at('model.onnx'), options({ stages: 'layers', reduce: 0.3 }));
    expect(layers.report.removed.map(({ layers: names }) => names)).toEqual([['block.a', 'block.b']]);
    expect(layers.report.steps[0]!.units).toBe(0);
    expect(layers.report.layers.map(({ channels }) => channels.after)).toEqual([16, 0, 0, 5]);
    const filters = await pruneModel(at('model.onnx'), options({ stages: 'filters', reduce: 0.3 }));
    expect(filters.report.removed).toEqual([]);
  });

  it.each<[PruneInput['method'], boolean]>([
    ['l1', false],
    ['idap-paper', true],
    ['obc', true],
  ])('looks at activations where its method does (%s: %s)', async (method, looks) => {
    const stages = new Set<string>();
    const onProgress = ({ stage }: ProgressEvent): unknown => stages.add(stage);
    await pruneModel(at('model.onnx'), options({ method, reduce: 0.3, onProgress }));
    expect(stages.has('calibrate')).toBe(looks);
  });

  it('prunes by parameters and by latency', async () => {
    const params = await pruneModel(at('model.onnx'), options({ of: 'params', reduce: 0.5 }));
    expect(params.report.after.params!).toBeLessThanOrEqual(0.505 * params.report.before.params!);
    const { report } = await pruneModel(at('model.onnx'), options({ of: 'latency', reduce: 0.05, bestEffort: true }));
    expect(report.budget).toMatchObject({ of: 'latency', requested: 0.05 });
    expect(report.steps.length).toBeGreaterThan(0);
  });

  it('works without labels', async () => {
    const { report } = await pruneModel(
      at('model.onnx'),
      options({ data: at('unlabelled.npz'), test: undefined, reduce: 0.3, maxDrop: 0.5 }),
    );
    expect(report.drop).toMatchObject({ metric: 'agreement', allowed: 0.5, met: true });
    expect(report.original).toEqual({ divergence: 0, agreement: 1 });
  });

  it('takes a cut back that loses too much, and says how far it came', async () => {
    const strict = options({ reduce: 0.9, maxDrop: 0.1, output: at('strict.onnx') });
    await expect(pruneModel(at('model.onnx'), strict)).rejects.toMatchObject({
      code: 'infeasible',
      message: expect.stringMatching(/^Only \d+\.\d % of the macs could be removed, not 90\.0 %/) as string,
    });
    expect(await readdir(folder)).not.toContain('strict.onnx');
    const { report } = await pruneModel(at('model.onnx'), { ...strict, bestEffort: true });
    expect(report.budget!.met).toBe(false);
    expect(report.drop!.met).toBe(true);
    expect(report.steps.some(({ accepted }) => !accepted)).toBe(true);
    const kept = report.steps.filter(({ accepted }) => accepted).at(-1);
    if (kept) expect(report.after.macs).toBe(kept.macs);
  });

  it('says before it measures anything that no cut can meet the goal', async () => {
    const told = async (more: Partial<PruneInput>): Promise<{ stages: Set<string>; error: unknown }> => {
      const stages = new Set<string>();
      const onProgress = ({ stage }: ProgressEvent): unknown => stages.add(stage);
      const refused = options({ output: at('refused.onnx'), onProgress, ...more });
      const error: unknown = await pruneModel(at('model.onnx'), refused).catch((reason: unknown) => reason);
      return { stages, error };
    };
    for (const goal of [
      { reduce: 0.99 },
      { reduce: 0.97, stages: 'filters' },
      { reduce: 0.99, of: 'params' },
    ] as const) {
      const { stages, error } = await told(goal);
      expect(error).toMatchObject({
        code: 'infeasible',
        message: expect.stringMatching(/^Only \d+\.\d % of the (macs|params) could be removed/) as string,
      });
      expect([...stages].filter((stage) => /calibrate|cut/.test(stage))).toEqual([]);
    }
    // Filters have to stay, and the method takes no layers.
    const { stages, error } = await told({ stages: 'layers', method: 'obc', bestEffort: true });
    expect(error).toMatchObject({ code: 'infeasible', message: expect.stringContaining('nothing in the') as string });
    expect(stages.has('calibrate')).toBe(false);
    expect((await readdir(folder)).filter((name) => name.includes('refused'))).toEqual([]);
    const { report } = await pruneModel(at('model.onnx'), options({ reduce: 0.99, bestEffort: true }));
    expect(report.budget).toMatchObject({ met: false });
  });

  it('does not learn where cuts fell short of the goal', async () => {
    const stages = new Set<string>();
    const onProgress = ({ stage }: ProgressEvent): unknown => stages.add(stage);
    const wanted = options({ of: 'latency', reduce: 0.97, steps: 5, onProgress, output: at('refused.onnx') });
    await expect(pruneModel(at('model.onnx'), wanted)).rejects.toMatchObject({
      code: 'infeasible',
      message: expect.stringMatching(/of the latency could be removed, not 97/) as string,
    });
    expect(stages.has('align layers')).toBe(true);
    expect(stages.has('recover')).toBe(false);
  });

  it('refuses a drop that the first step exceeds, and says by how much', async () => {
    const tight = options({ maxDrop: 0.07, stages: 'layers', output: at('refused.onnx') });
    await expect(pruneModel(at('model.onnx'), tight)).rejects.toMatchObject({
      code: 'infeasible',
      message: expect.stringMatching(/smallest 0\.\d+ of top1 on VAL, 0\.07 are allowed/) as string,
      hint: expect.stringContaining('--max-drop') as string,
    });
    expect((await readdir(folder)).filter((name) => name.includes('refused'))).toEqual([]);
    const { report } = await pruneModel(at('model.onnx'), { ...tight, bestEffort: true, output: at('out.onnx') });
    expect(report.after.macs).toBe(report.before.macs);
  });

  it('goes as far as the drop allows when no goal is given', async () => {
    const { report } = await pruneModel(at('model.onnx'), options({ maxDrop: 0.3, stages: 'filters' }));
    expect(report.budget).toBeUndefined();
    expect(report.drop).toMatchObject({ metric: 'top1', allowed: 0.3, met: true });
    expect(report.steps.length).toBeGreaterThan(1);
    expect(report.after.macs!).toBeLessThan(report.before.macs!);
  });

  it('goes on after an interrupt to the same bytes', async () => {
    const run = (more: Partial<PruneInput>) =>
      pruneModel(at('model.onnx'), options({ reduce: 0.6, cuts: 2, steps: 10, lr: 1e-3, ...more }));
    const whole = await run({ runDir: at('whole') });
    for (const [i, stops] of [
      (event: ProgressEvent) => event.stage === 'align layers' && event.done === 1,
      (event: ProgressEvent) => event.stage === 'recover' && event.done === 6,
    ].entries()) {
      const runDir = at(`stopped-${String(i)}`);
      const abort = new AbortController();
      const stopped = run({ runDir, signal: abort.signal, onProgress: (event) => stops(event) && abort.abort() });
      await expect(stopped).rejects.toMatchObject({ code: 'aborted' });
      const again = await run({ runDir, resume: true });
      expect(toBytes(again.model)).toEqual(toBytes(whole.model));
    }
  });

  it.each<[string, Partial<PruneInput>, string, RegExp]>([
    ['a sparsity for filters', { sparsity: 0.5 }, 'bad-input', /belongs to methods that remove single weights/],
    ['a reduction for weights', { method: 'magnitude', reduce: 0.5 }, 'bad-input', /single weights go by --sparsity/],
    [
      'an order for weights',
      { method: 'magnitude', order: 'highest' },
      'bad-input',
      /belongs to methods that remove filters/,
    ],
    ['a drop that VAL cannot tell', { maxDrop: 0.001 }, 'bad-input', /cannot be told on VAL: each of its 30 /],
    [
      'widths that leave nothing to remove',
      { align: 64, stages: 'filters', reduce: 0.9 },
      'infeasible',
      /Only .* not 90/,
    ],
  ])('refuses %s', async (_, more, code, message) => {
    const refused = options({ ...more, output: at('refused.onnx') });
    await expect(pruneModel(at('model.onnx'), refused)).rejects.toMatchObject({
      code,
      message: expect.stringMatching(message) as string,
    });
    expect((await readdir(folder)).filter((name) => name.includes('refused'))).toEqual([]);
  });

  it('refuses to let a model of fixed batches learn before it cuts it; left to itself it prunes it without', async () => {
    const rows = new Graph(MODEL);
    for (const value of [...rows.inputs, ...rows.outputs].filter((each) => !each.initializer))
      value.info = value.name === 'x' ? info('x', [1, 3, 8, 8]) : info('logits', [1, 5]);
    const fixed = rows.toModel();
    const stages: string[] = [];
    const refused = pruneModel(fixed, options({ steps: 5, onProgress: ({ stage }) => stages.push(stage) }));
    await expect(refused).rejects.toMatchObject({
      code: 'unsupported',
      message: expect.stringContaining('batches of 1 only') as string,
    });
    expect(stages).not.toContain('measure cuts');
    const { report } = await pruneModel(fixed, options({ reduce: 0.3, steps: undefined }));
    expect(report.budget!.met).toBe(true);
    expect(report.recovery).toBeUndefined();
    expect(report.warnings!.join()).toContain('does not learn after the cuts');
    // Gradients are taken in the batches that the model insists on; there is no learning before a cut either.
    for (const method of ['taylor', 'fisher']) {
      const scored = await pruneModel(fixed, options({ method, reduce: 0.3, steps: 0 }));
      expect(scored.report.budget!.met).toBe(true);
    }
    await expect(pruneModel(fixed, options({ method: 'swd', steps: undefined }))).rejects.toMatchObject({
      code: 'unsupported',
    });
  });

  it('refuses a model whose output depends on everything', async () => {
    const linear = tinyModel({
      inputs: [info('x', ['N', 3, 8, 8])],
      outputs: [info('logits', ['N', 5])],
      nodes: [op('Flatten x -> f'), op('Gemm f w b -> logits')],
      initializers: [makeTensor('w', 1, [SIZE, 5], normals(5 * SIZE, 1)), makeTensor('b', 1, [5], normals(5, 2))],
    });
    await expect(pruneModel(linear, options())).rejects.toMatchObject({
      code: 'infeasible',
      message: expect.stringContaining('nothing in the model') as string,
    });
  });
});
