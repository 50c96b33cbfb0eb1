/** Scores from gradients against finite differences in float64 and closed forms. */
import { describe, expect, it } from 'vitest';
import type { ModelProto } from 'onnx-buf';
import type { Batch } from '../data/dataset.js';
import { DataType } from '../onnx/dtypes.js';
import { Graph, rewrite } from '../onnx/graph.js';
import { intAttribute } from '../onnx/attributes.js';
import { makeTensor, readFloats } from '../onnx/tensor.js';
import { traceDims, traceShapes } from '../runtime/trace.js';
import { Builder } from '../testing/flow-models.js';
import { engine, tensorFeed } from '../testing/graph-writing.js';
import { array } from '../testing/reference/array.js';
import { evaluate } from '../testing/reference/evaluate.js';
import { normals, tinyResNet } from '../testing/tiny-models.js';
import { gradientScores } from './gradient-scores.js';
import { dependencyGroups } from './groups.js';
import { layerUnits } from './layer-units.js';
import { pruningScore, type GradientScore, type ScoreName } from './scores.js';

interface Given {
  readonly model: ModelProto;
  readonly dims: readonly number[];
  readonly samples: Float32Array;
  readonly labels?: readonly number[];
  readonly score: ScoreName;
  readonly scores?: string;
  readonly batchSize?: number;
}

const sizeOf = (dims: readonly number[]): number => dims.reduce((a, b) => a * b, 1);

/** Scores of the units of every group, by the layers that make it. */
async function scoresOf(given: Given): Promise<Map<string, number[]>> {
  const { model, dims, samples, labels, scores } = given;
  const size = sizeOf(dims);
  const count = samples.length / size;
  const graph = new Graph(model);
  const dependencies = dependencyGroups(model, await traceDims(engine, model, { x: tensorFeed([2, ...dims]) }));
  async function* batches(limit: number, rows: number): AsyncGenerator<Batch> {
    for (let from = 0; from < limit; from += rows) {
      const to = Math.min(from + rows, limit);
      const x = { type: 'float32' as const, dims: [to - from, ...dims], data: samples.slice(from * size, to * size) };
      yield await Promise.resolve({
        ...{ feeds: { x }, size: to - from },
        ...(labels && { labels: Int32Array.from(labels.slice(from, to)) }),
      });
    }
  }
  const score = pruningScore(given.score) as GradientScore;
  const found = await gradientScores(
    graph,
    layerUnits(graph, dependencies),
    dependencies.units.classOf.length,
    { ...score, ...(given.batchSize !== undefined && { batchSize: given.batchSize }) },
    {
      ...{ engine, scores, fixedBatch: undefined, batches, available: count, wanted: count, seed: 3 },
      shapes: await traceShapes(engine, model, { x: tensorFeed([1, ...dims]) }),
    },
    {},
  );
  return new Map(
    dependencies.groups.map(({ layers, units }) => [layers.join(), Array.from(units, (unit) => found[unit]!)]),
  );
}

/** The model with the rows of these layers that make channel `c` times a factor, weights and biases. */
function scaled(model: ModelProto, layers: readonly string[], c: number, factor: number): ModelProto {
  return rewrite(model, (graph) => {
    for (const name of layers.flatMap((layer) => [`${layer}.w`, `${layer}.b`])) {
      const value = graph.mustGet(name);
      const dims = value.initializer!.dims.map(Number);
      const inner = sizeOf(dims.slice(1));
      const values = readFloats(value.initializer!).map((v, i) => (Math.floor(i / inner) === c ? v * factor : v));
      graph.setInitializer(value, makeTensor(name, DataType.FLOAT, dims, values));
    }
  });
}

/** Mean cross-entropy of [N, 5] logits, in float64. */
function lossOf(model: ModelProto, samples: Float32Array, labels: readonly number[]): number {
  const { data } = evaluate(model, { x: array([labels.length, 3, 8, 8], samples) }).get('logits')!;
  return (
    labels.reduce((sum, label, n) => {
      const row = Array.from(data.slice(5 * n, 5 * n + 5));
      return sum + Math.log(row.reduce((a, z) => a + Math.exp(z), 0)) - row[label]!;
    }, 0) / labels.length
  );
}

const WIDTH = 4;
const RESNET = tinyResNet(17, WIDTH);
const LABELS = [0, 2, 1, 4, 3, 2];
const SAMPLES = normals(LABELS.length * 3 * 64, 21);
const GROUPS = [['stem', 'block.b'], ['block.a']];
const resnet = { model: RESNET, dims: [3, 8, 8], samples: SAMPLES, labels: LABELS, scores: 'logits' };

describe('the Taylor score', () => {
  /** Derivative of the loss in a factor on everything that makes the unit. */
  function slope(layers: readonly string[], c: number, from: number, to: number): number {
    const h = 1e-3;
    const at = (factor: number): number =>
      lossOf(scaled(RESNET, layers, c, factor), SAMPLES.slice(192 * from, 192 * to), LABELS.slice(from, to));
    return (at(1 + h) - at(1 - h)) / (2 * h);
  }

  it.each([
    [6, [[0, 6]]],
    [
      3,
      [
        [0, 3],
        [3, 6],
      ],
    ],
  ])('is the mean over batches of %i samples of the squared slope', async (batchSize, parts) => {
    const found = await scoresOf({ ...resnet, score: 'taylor', batchSize });
    for (const layers of GROUPS) {
      const scores = found.get(layers.join())!;
      expect(scores).toHaveLength(WIDTH);
      scores.forEach((score, c) => {
        const expected = parts.reduce((sum, [from, to]) => sum + slope(layers, c, from!, to!) ** 2, 0) / parts.length;
        expect(Math.sqrt(score)).toBeCloseTo(Math.sqrt(expected), 4);
      });
      expect(Math.max(...scores)).toBeGreaterThan(1e-4);
    }
  });

  it('is the square of what the loss changes by without a unit, where that is little', async () => {
    for (const layers of GROUPS) {
      const faint = scaled(RESNET, layers, 1, 0.02);
      const [, score] = (await scoresOf({ ...resnet, model: faint, score: 'taylor' })).get(layers.join())!;
      const change = lossOf(scaled(faint, layers, 1, 0), SAMPLES, LABELS) - lossOf(faint, SAMPLES, LABELS);
      expect(Math.abs(change)).toBeGreaterThan(1e-5);
      expect(Math.sqrt(score!) / Math.abs(change)).toBeCloseTo(1, 1);
    }
  });

  it('takes labels drawn from the model without labels, and projections of outputs that are no scores', async () => {
    const { labels, scores, ...bare } = resnet;
    const labelled = (await scoresOf({ ...resnet, score: 'taylor' })).get('block.a')!;
    for (const more of [{ scores }, {}]) {
      const found = (await scoresOf({ ...bare, ...more, score: 'taylor' })).get('block.a')!;
      expect(Math.min(...found)).toBeGreaterThanOrEqual(0);
      expect(Math.max(...found)).toBeGreaterThan(0);
      expect(found).not.toEqual(labelled);
    }
    expect(labels).toHaveLength(6);
  });
});

describe('the Fisher score', () => {
  /** x [N, 3] -> 4 hidden -> 3 classes. */
  const b = new Builder(17, 5);
  const [w1, b1, w2] = [b.weight([3, 4]), b.weight([4], 0.5), b.weight([4, 3], 1.5)];
  const hidden = b.op('Relu', [b.op('Gemm', [b.input('x', [3]), w1, b1])]);
  const model = b.done(b.op('Gemm', [hidden, w2]));
  const scores = model.graph!.output[0]!.name;
  const COUNT = 6000;
  const samples = normals(3 * COUNT, 8);

  /** Half the expected square of every weight's product with the derivative of log p(y), y drawn from p, summed over a unit. */
  function expectedOf(unit: number): number {
    const [w, bias, v] = [w1, b1, w2].map((value) => readFloats(value.initializer!)) as [
      Float32Array,
      Float32Array,
      Float32Array,
    ];
    let sum = 0;
    for (let n = 0; n < COUNT; n++) {
      const x = samples.subarray(3 * n, 3 * n + 3);
      const h = Array.from({ length: 4 }, (_, j) => x.reduce((s, xk, k) => s + xk * w[4 * k + j]!, bias[j]!));
      if (h[unit]! <= 0) continue;
      const z = [0, 1, 2].map((c) => h.reduce((s, hj, j) => s + Math.max(hj, 0) * v[3 * j + c]!, 0));
      const total = z.reduce((s, zc) => s + Math.exp(zc), 0);
      const p = z.map((zc) => Math.exp(zc) / total);
      const mean = p.reduce((s, pc, c) => s + pc * v[3 * unit + c]!, 0);
      const variance = p.reduce((s, pc, c) => s + pc * (v[3 * unit + c]! - mean) ** 2, 0);
      const squares = x.reduce((s, xk, k) => s + (xk * w[4 * k + unit]!) ** 2, bias[unit]! ** 2);
      sum += (variance * squares) / 2;
    }
    return sum / COUNT;
  }

  it.each([1, 8])('is that of the closed form, whatever the batch: %i', async (batchSize) => {
    // Labels of the data must not matter.
    const labels = new Array<number>(COUNT).fill(0);
    const [found] = [
      ...(await scoresOf({ model, dims: [3], samples, labels, scores, score: 'fisher', batchSize })).values(),
    ];
    expect(found).toHaveLength(4);
    found!.forEach((score, unit) => {
      expect(Math.abs(score / expectedOf(unit) - 1)).toBeLessThan(0.15);
    });
  });
});

describe('scores from gradients', () => {
  /** x [N, 4] -> 6 hidden -> an operator -> 3 classes. */
  function with_(op: string): { model: ModelProto; scores: string } {
    const b = new Builder(17, 2);
    const hidden = b.op('Gemm', [b.input('x', [4]), b.weight([4, 6]), b.weight([6])]);
    const model = b.done(
      op === 'ArgMax'
        ? b.op('ArgMax', [b.op('Gemm', [hidden, b.weight([6, 3])])], [intAttribute('axis', 1)])
        : b.op('Gemm', [b.op(op, [hidden]), b.weight([6, 3])]),
    );
    return { model, scores: model.graph!.output[0]!.name };
  }
  const given = { dims: [4], samples: normals(24, 4), labels: [0, 1, 2, 0, 1, 2], score: 'taylor' as const };

  it('refuse an operator without a gradient rule, by name', async () => {
    await expect(scoresOf({ ...given, ...with_('Shrink') })).rejects.toMatchObject({
      code: 'unsupported',
      node: expect.stringMatching(/^Shrink/) as string,
      message: expect.stringContaining('Shrink') as string,
    });
  });

  it('refuse a loss that depends on nothing, and a model without float outputs', async () => {
    const refused = scoresOf({ ...given, ...with_('ArgMax') });
    await expect(refused).rejects.toMatchObject({ code: 'unsupported' });
    const b = new Builder(17, 2);
    const hidden = b.op('Gemm', [b.input('x', [4]), b.weight([4, 6]), b.weight([6])]);
    const model = b.done(b.op('Gemm', [b.op('Round', [hidden]), b.constant([6, 3], normals(18, 1))]));
    const scores = model.graph!.output[0]!.name;
    const [units] = [...(await scoresOf({ ...given, model, scores })).values()];
    expect(units).toEqual(new Array(6).fill(0));
  });

  it('refuse gradients that are not finite, naming the layer', async () => {
    const samples = given.samples.slice();
    samples[5] = NaN;
    await expect(scoresOf({ ...given, ...with_('Relu'), samples })).rejects.toMatchObject({
      code: 'bad-input',
      message: expect.stringMatching(/not finite in layer Gemm/) as string,
    });
  });
});
