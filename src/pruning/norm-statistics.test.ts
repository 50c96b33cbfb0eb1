import type { ModelProto } from 'onnx-buf';
import { describe, expect, it } from 'vitest';
import { intsAttribute } from '../onnx/attributes.js';
import { Graph, rewrite } from '../onnx/graph.js';
import { makeTensor, readFloats } from '../onnx/tensor.js';
import { runOnce } from '../runtime/run-once.js';
import { exposeOnly, traceDims, traceShapes } from '../runtime/trace.js';
import { engine, info, op, tensorFeed, tinyModel, weights } from '../testing/graph-writing.js';
import { normalBatches, normals } from '../testing/tiny-models.js';
import { cutUnits } from './cut.js';
import { dependencyGroups } from './groups.js';
import { restoreNormStatistics } from './norm-statistics.js';

const WIDTH = 12;
const LEFT = 8;
const DIMS = [3, 6, 6];
const SAMPLES = 64;
const pads = intsAttribute('pads', [1, 1, 1, 1]);
const positive = (name: string, seed: number) =>
  makeTensor(
    name,
    1,
    [WIDTH],
    normals(WIDTH, seed).map((v) => Math.exp(0.5 * v)),
  );

/** Normalizations in front of activations and behind a convolution, three of them in a row; statistics that are nobody's. */
const MODEL = tinyModel({
  inputs: [info('x', ['N', ...DIMS])],
  outputs: [info('y', ['N', 4, 6, 6])],
  nodes: [
    op('Conv x w0 -> p', [pads], 'first'),
    op('BatchNormalization p s1 b1 m1 v1 -> n1'),
    op('Relu n1 -> r1'),
    op('Conv r1 w1 -> q', [pads], 'second'),
    op('Add q p -> sum'),
    op('BatchNormalization sum s2 b2 m2 v2 -> n2'),
    op('Relu n2 -> r2'),
    op('Conv r2 w2 -> t', [pads], 'third'),
    op('BatchNormalization t s3 b3 m3 v3 -> n3'),
    op('Relu n3 -> r3'),
    op('Conv r3 w3 -> y', [pads], 'last'),
  ],
  initializers: [
    ...[
      weights('w0', [WIDTH, 3, 3, 3], 1),
      weights('w1', [WIDTH, WIDTH, 3, 3], 2),
      weights('w2', [WIDTH, WIDTH, 3, 3], 3),
      weights('w3', [4, WIDTH, 3, 3], 4),
    ],
    ...['1', '2', '3'].flatMap((which, i) => [
      positive(`s${which}`, 10 + i),
      weights(`b${which}`, [WIDTH], 20 + i),
      weights(`m${which}`, [WIDTH], 30 + i),
      positive(`v${which}`, 40 + i),
    ]),
  ],
});

/** The first channels of every group gone, and the same with statistics taken anew. */
async function cutAndRestored(count: number): Promise<{ cut: ModelProto; restored: ModelProto; kept: number[] }> {
  const feeds = (rows: number) => ({ x: tensorFeed([rows, ...DIMS]) });
  const dependencies = dependencyGroups(new Graph(MODEL), await traceDims(engine, MODEL, feeds(2)));
  const removed = new Uint8Array(dependencies.units.classOf.length);
  for (const { kind, units } of dependencies.groups)
    if (kind !== 'inputs') for (const unit of units.slice(0, count)) removed[unit] = 1;
  const cut = cutUnits(MODEL, { dependencies, removed });
  const { axes, classOf } = dependencies.units;
  const keptOf = (scale: string): number[] => {
    const axis = axes.get(scale)![0]!;
    return [...Array(axis.size).keys()].filter((channel) => removed[classOf[axis.start + channel]!] === 0);
  };
  const restored = await restoreNormStatistics({
    ...{ engine, original: MODEL, originalShapes: await traceShapes(engine, MODEL, feeds(1)) },
    ...{ model: cut, shapes: await traceShapes(engine, cut, feeds(1)), keptOf, samples: SAMPLES },
    batches: () => normalBatches('x', DIMS, SAMPLES, SAMPLES),
  });
  return { cut, restored: restored!, kept: keptOf('s1') };
}

/** Mean and variance by channel of what a value is on all samples. */
async function momentsOf(model: ModelProto, name: string): Promise<{ mean: number[]; variance: number[] }> {
  const { feeds } = (await normalBatches('x', DIMS, SAMPLES, SAMPLES).next()).value!;
  const shown = rewrite(model, (graph) => {
    exposeOnly(graph, [graph.mustGet(name)]);
  });
  const { data, dims } = (await runOnce(engine, shown, feeds))[name]!;
  const [rows, channels, ...rest] = dims as [number, number, ...number[]];
  const size = rest.reduce((a, b) => a * b, 1);
  const values = Array.from({ length: channels }, (_, c) =>
    Array.from({ length: rows }, (__, n) => [
      ...(data as Float32Array).subarray((n * channels + c) * size, (n * channels + c + 1) * size),
    ]).flat(),
  );
  const mean = values.map((own) => own.reduce((a, b) => a + b, 0) / own.length);
  return { mean, variance: values.map((own, c) => own.reduce((a, b) => a + (b - mean[c]!) ** 2, 0) / own.length) };
}

describe('statistics taken anew', () => {
  it('give every channel that is left the mean and variance that it had', async () => {
    const { cut, restored, kept } = await cutAndRestored(WIDTH - LEFT);
    expect(kept).toHaveLength(LEFT);
    for (const name of ['n1', 'n2', 'n3']) {
      const before = await momentsOf(MODEL, name);
      const after = await momentsOf(restored, name);
      kept.forEach((channel, c) => {
        expect(after.mean[c]).toBeCloseTo(before.mean[channel]!, 3);
        expect(after.variance[c]! / before.variance[channel]!).toBeCloseTo(1, 3);
      });
    }
    // The second one read something else: the test would prove nothing otherwise.
    const [was, without] = [await momentsOf(MODEL, 'n2'), await momentsOf(cut, 'n2')];
    expect(Math.max(...kept.map((channel, c) => Math.abs(without.mean[c]! - was.mean[channel]!)))).toBeGreaterThan(
      0.05,
    );
  });

  it('are those that were, where nothing has gone', async () => {
    const { restored } = await cutAndRestored(0);
    const [old, now] = [new Graph(MODEL), new Graph(restored)];
    for (const name of ['n1', 'n2', 'n3'])
      for (const index of [3, 4]) {
        const [a, b] = [old, now].map((graph) => readFloats(graph.mustGet(name).producer!.inputs[index]!.initializer!));
        b!.forEach((value, c) => {
          expect(value).toBeCloseTo(a![c]!, 3);
        });
      }
  });

  it('leave a model without normalizations alone', async () => {
    const plain = tinyModel({
      inputs: [info('x', ['N', ...DIMS])],
      outputs: [info('y', ['N', 4, 6, 6])],
      nodes: [op('Conv x w -> y', [pads])],
      initializers: [weights('w', [4, 3, 3, 3], 1)],
    });
    const shapes = await traceShapes(engine, plain, { x: tensorFeed([1, ...DIMS]) });
    const request = { engine, original: plain, originalShapes: shapes, model: plain, shapes, samples: 8 };
    const batches = () => normalBatches('x', DIMS, 8, 8);
    expect(await restoreNormStatistics({ ...request, keptOf: () => undefined, batches })).toBeUndefined();
  });
});
