import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { ModelProto } from 'onnx-buf';
import type { Dataset } from '../data/dataset.js';
import { seedOf, shuffled } from '../data/random.js';
import { batches } from '../data/loader.js';
import { Graph } from '../onnx/graph.js';
import { findLayers, weightMatrix } from '../onnx/layers.js';
import { engine, tensorFeed } from '../testing/graph-writing.js';
import { normals, tinyResNet } from '../testing/tiny-models.js';
import { NO_AUGMENTATION } from '../training/augment.js';
import type { HostTensor } from '../runtime/engine.js';
import { runOnce } from '../runtime/run-once.js';
import { traceValues } from '../runtime/trace.js';
import { argmax } from '../runtime/scores.js';
import { deploy } from '../quantization/deploy.js';
import { quantizedValues } from '../quantization/execution/quantized-values.js';
import type { QuantizationOutcome } from '../quantization/method.js';
import { meanKl, relativeError } from '../runtime/output-divergence.js';
import type { Deployment } from '../quantization/placement.js';
import { roundLayerNearest } from '../quantization/round-layer.js';
import { trainableQuantized } from '../quantization/recover/trainable.js';
import { simulate } from '../quantization/simulate.js';
import { recover, type RecoveryRequest, type Student } from './recover.js';
import { openValidator, type Quality, type Validator } from './validate.js';

const MODEL = tinyResNet();
const SIZE = 3 * 8 * 8;

function dataset(count: number, seed: number, labels?: Int32Array): Dataset {
  const all = normals(count * SIZE, seed);
  return {
    source: 'normal numbers',
    size: count,
    ...(labels && { labels }),
    read: (indices) => {
      const data = new Float32Array(indices.length * SIZE);
      Array.from(indices).forEach((i, n) => {
        data.set(all.subarray(i * SIZE, (i + 1) * SIZE), n * SIZE);
      });
      return Promise.resolve({
        size: indices.length,
        feeds: { x: { type: 'float32', dims: [indices.length, 3, 8, 8], data } },
        ...(labels && { labels: Int32Array.from(indices, (i) => labels[i]!) }),
      });
    },
    close: () => Promise.resolve(),
  };
}

/** Two bits everywhere, every weight to its nearest level. */
function coarse(): QuantizationOutcome {
  const graph = new Graph(MODEL);
  const weights = new Map(
    findLayers(graph).map((layer) => [layer.name, roundLayerNearest(layer, weightMatrix(graph, layer), 2, true)]),
  );
  return { weights, activations: new Map(), findings: [] };
}

const OUTCOME = coarse();
const planOf = ({ weights, activations }: QuantizationOutcome): Deployment => ({
  ...{ weights, activations, int8: new Set() },
});
const measureWith =
  (validator: Validator) =>
  (outcome: QuantizationOutcome): Promise<Quality> =>
    validator.measure(deploy(MODEL, planOf(outcome)));

const studentOf = (plan: Deployment): Student<QuantizationOutcome> => trainableQuantized(MODEL, plan, OUTCOME);

let request: RecoveryRequest<QuantizationOutcome>;
let validator: Validator;
beforeAll(async () => {
  const val = dataset(96, 2);
  validator = await openValidator(engine, MODEL, 'logits', () => batches(val, 40));
  request = {
    ...{ engine, teacher: MODEL, start: OUTCOME, student: studentOf(planOf(OUTCOME)), scores: 'logits' },
    train: dataset(160, 1),
    ...{ feedsFor: (rows) => ({ x: tensorFeed([rows, 3, 8, 8]) }), measure: measureWith(validator) },
    options: {
      ...{ steps: 40, evaluations: 10, batchSize: 32, learningRate: 0.01, temperature: 1, hintWeight: 0, seed: 3 },
      augment: NO_AUGMENTATION,
    },
  };
});
afterAll(() => validator.release());

describe('recovery', () => {
  it('brings the answers on VAL nearer to those of the original, with the widths as they were', async () => {
    const divergences: number[] = [];
    const result = await recover({
      ...request,
      onEvent: (event) => event.kind === 'evaluation' && divergences.push(event.score),
    });
    expect(result).toMatchObject({ measure: 'kl', steps: 40, before: await request.measure(OUTCOME) });
    expect(result.after.divergence).toBeLessThan(0.5 * result.before.divergence);
    expect(divergences).toHaveLength(10);
    expect(result.after).toEqual(await request.measure(result.state));
    expect(result.after.divergence).toBe(Math.min(...divergences));
    for (const [name, { grid, codes }] of OUTCOME.weights) {
      const mine = result.state.weights.get(name)!;
      expect(mine.grid).toEqual(grid);
      expect(Math.min(...mine.codes)).toBeGreaterThanOrEqual(grid.low);
      expect(Math.max(...mine.codes)).toBeLessThanOrEqual(grid.high);
      expect(mine.codes).not.toEqual(codes);
    }
  });

  it('learns the outputs themselves where they are no scores', async () => {
    const val = dataset(96, 2);
    const plain = await openValidator(engine, MODEL, undefined, () => batches(val, 40));
    try {
      const result = await recover({ ...request, scores: undefined, measure: measureWith(plain) });
      expect(result.measure).toBe('relative-error');
      expect(result.after.divergence).toBeLessThan(0.5 * result.before.divergence);
    } finally {
      await plain.release();
    }
  });

  it('holds values inside against those of the original', async () => {
    const taught = [{ student: 'block.out', teacher: 'block.out' }];
    const { feeds } = await request.train.read(Int32Array.from({ length: 64 }, (_, i) => i));
    const [place] = taught;
    const inside = async (model: ModelProto): Promise<Record<string, HostTensor>> =>
      Object.fromEntries(await traceValues(engine, model, feeds, new Set([place!.student])));
    const errorAfter = async (hintWeight: number): Promise<number> => {
      const options = { ...request.options, hintWeight };
      const { state } = await recover({ ...request, taught, options });
      const [a, b] = [await inside(MODEL), await inside(deploy(MODEL, planOf(state)))];
      return relativeError([place!.student], a, b);
    };
    expect(await errorAfter(30)).toBeLessThan(0.8 * (await errorAfter(0)));
  });

  it('learns from what the file will compute: its first loss is that of the plan', async () => {
    const int8 = new Set(['stem.y', 'block.a.y', 'block.b.y', 'block.sum']);
    const values = quantizedValues(new Graph(MODEL), int8);
    const activations = new Map(values.map(({ value }) => [value.name, { scale: 0.1, zeroPoint: 60 }]));
    const plan: Deployment = { weights: OUTCOME.weights, activations, int8 };
    const losses: number[] = [];
    const options = { ...request.options, steps: 2 };
    await recover({
      ...request,
      student: studentOf(plan),
      options,
      onEvent: (e) => e.kind === 'step' && losses.push(e.loss),
    });
    const order = shuffled(160, seedOf(options.seed, 0)).subarray(0, options.batchSize);
    const { feeds } = await request.train.read(order);
    const simulated = await runOnce(engine, simulate(MODEL, plan), feeds, { optimization: 'disabled' });
    const expected = meanKl((await runOnce(engine, MODEL, feeds))['logits']!, simulated['logits']!);
    expect(Math.abs(losses[0]! - expected)).toBeLessThan(1e-3 * expected);
  });

  it.each<[string, Quality]>([
    ['no nearer', { divergence: 0.3, top1: 0.9 }],
    ['less often right', { divergence: 0.1, top1: 0.89 }],
    ['no number', { divergence: NaN, top1: 1 }],
  ])('keeps the rounded model where the others are %s', async (_, quality) => {
    const measure = (outcome: QuantizationOutcome): Promise<Quality> =>
      Promise.resolve(outcome === OUTCOME ? { divergence: 0.3, top1: 0.9 } : quality);
    const options = { ...request.options, steps: 2 };
    const result = await recover({ ...request, options, measure });
    expect(result.state).toBe(OUTCOME);
    expect(result).toMatchObject({ bestStep: 0, steps: 2, after: result.before });
  });

  it('refuses less data than an update takes', async () => {
    const options = { ...request.options, batchSize: 200 };
    await expect(recover({ ...request, options })).rejects.toMatchObject({ code: 'bad-input' });
  });
});

describe('the quality on VAL', () => {
  it('is the divergence over all samples and the share of right labels', async () => {
    const labels = Int32Array.from({ length: 96 }, (_, i) => i % 5);
    const val = dataset(96, 2, labels);
    const { feeds } = await val.read(Int32Array.from({ length: 96 }, (_, i) => i));
    const changed = deploy(MODEL, planOf(OUTCOME));
    const [before, after] = [await runOnce(engine, MODEL, feeds), await runOnce(engine, changed, feeds)];
    const labelled = await openValidator(engine, MODEL, 'logits', () => batches(val, 40));
    const open = await openValidator(engine, MODEL, undefined, () => batches(val, 96));
    try {
      // The second time from memory.
      for (let time = 0; time < 2; time++) {
        const { divergence, top1 } = await labelled.measure(changed);
        expect(divergence).toBeCloseTo(meanKl(before['logits']!, after['logits']!), 6);
        const { data } = after['logits']!;
        expect(top1).toBeCloseTo([...labels].filter((label, i) => argmax(data, 5 * i, 5) === label).length / 96, 9);
      }
      const plain = await open.measure(changed);
      expect(plain.divergence).toBeCloseTo(relativeError(['logits'], before, after), 6);
      expect(plain.top1).toBeUndefined();
    } finally {
      await labelled.release();
      await open.release();
    }
  });
});
