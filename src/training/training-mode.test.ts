import type { ModelProto } from 'onnx-buf';
import { describe, expect, it } from 'vitest';
import { floatAttribute } from '../onnx/attributes.js';
import { Graph } from '../onnx/graph.js';
import { makeTensor } from '../onnx/tensor.js';
import { toBytes } from '../onnx/to-bytes.js';
import { exposeValue } from '../runtime/trace.js';
import { engine, info, op, tensorFeed, tinyModel, weights } from '../testing/graph-writing.js';
import { buildNetwork } from '../zoo/build.js';
import { findArchitecture } from '../zoo/registry.js';
import { enterTrainingMode, suitableBatchNorm, type Buffer } from './training-mode.js';

const DIMS = [4, 3, 2, 2];
const [SCALE, SHIFT, MEAN, VARIANCE] = [
  [1, 2, -1],
  [0, 0.5, 1],
  [0.1, -0.2, 0.3],
  [1, 0.5, 2],
];

function normalized(opset: number, tail: string, extra = {}): ModelProto {
  const vector = (name: string, values: readonly number[]) => makeTensor(name, 1, [3], [...values]);
  return tinyModel({
    opset,
    inputs: [info('x', ['N', 3, 2, 2])],
    outputs: [info('y')],
    nodes: [
      op('BatchNormalization x scale shift mean var -> n', [
        floatAttribute('momentum', 0.7),
        floatAttribute('epsilon', 1e-3),
      ]),
      op(tail),
    ],
    initializers: [vector('scale', SCALE!), vector('shift', SHIFT!), vector('mean', MEAN!), vector('var', VARIANCE!)],
    ...extra,
  });
}

async function run(graph: Graph, buffers: readonly Buffer[], optimization: 'all' | 'disabled') {
  for (const { updated } of buffers) exposeValue(graph, updated);
  const session = await engine.createSession(toBytes(graph.toModel()), { optimization });
  const results = await session.run({ x: tensorFeed(DIMS) });
  await session.release();
  return results;
}

/** Elements of a channel. */
const channel = (data: ArrayLike<number>, c: number): number[] =>
  Array.from(data).filter((_, i) => Math.floor(i / 4) % 3 === c);

describe('enterTrainingMode', () => {
  it.each([
    [13, 'Relu n -> y', 'all'],
    [13, 'Relu n -> y', 'disabled'],
    [15, 'Identity n -> y', 'all'],
    [18, 'Relu n -> y', 'all'],
  ] as const)(
    'opset %s, %s: statistics of the batch, and running ones that move',
    async (opset, tail, optimization) => {
      const graph = new Graph(normalized(opset, tail));
      graph.requireOpset(15);
      const buffers = enterTrainingMode(graph);
      expect(buffers.map(({ name, size }) => [name, size])).toEqual([
        ['mean', 3],
        ['var', 3],
      ]);
      const results = await run(graph, buffers, optimization);
      const x = tensorFeed(DIMS).data as Float32Array;
      for (let c = 0; c < 3; c++) {
        const values = channel(x, c);
        const mean = values.reduce((a, b) => a + b, 0) / values.length;
        const variance = values.reduce((sum, v) => sum + (v - mean) ** 2, 0) / values.length;
        const expected = values
          .map((v) => ((v - mean) / Math.sqrt(variance + 1e-3)) * SCALE![c]! + SHIFT![c]!)
          .map((v) => (tail.startsWith('Relu') ? Math.max(v, 0) : v));
        channel(results.y!.data as Float32Array, c).forEach((v, i) => {
          expect(v).toBeCloseTo(expected[i]!, 5);
        });
        const [runningMean, runningVariance] = buffers.map(({ updated }) => Number(results[updated.name]!.data[c]));
        expect(runningMean).toBeCloseTo(0.7 * MEAN![c]! + 0.3 * mean, 5);
        expect(runningVariance).toBeCloseTo(0.7 * VARIANCE![c]! + 0.3 * variance, 5);
      }
    },
  );

  it('keeps the name of a graph output', async () => {
    const graph = new Graph(normalized(17, 'Relu x -> other', { outputs: [info('n')] }));
    const buffers = enterTrainingMode(graph);
    const results = await run(graph, buffers, 'all');
    const c0 = channel(results.n!.data as Float32Array, 0);
    expect(c0.reduce((a, b) => a + b, 0)).toBeCloseTo(0, 4);
  });

  it('leaves frozen statistics as they are', async () => {
    const model = normalized(17, 'Identity n -> y');
    const graph = new Graph(model);
    expect(enterTrainingMode(graph, { batchNorm: 'frozen' })).toEqual([]);
    const results = await run(graph, [], 'all');
    const x = tensorFeed(DIMS).data[0] as number;
    expect(results.y!.data[0]).toBeCloseTo(
      ((x - MEAN![0]!) / Math.sqrt(VARIANCE![0]! + 1e-3)) * SCALE![0]! + SHIFT![0]!,
      5,
    );
  });

  it('drops outputs of old opsets that nothing reads, frozen too', async () => {
    const model = normalized(13, 'Identity n -> y', {
      nodes: [
        op('BatchNormalization x scale shift mean var -> n m v sm sv', [floatAttribute('epsilon', 1e-3)]),
        op('Identity n -> y'),
      ],
    });
    const graph = new Graph(model);
    graph.requireOpset(15);
    enterTrainingMode(graph, { batchNorm: 'frozen' });
    const plain = await run(new Graph(normalized(17, 'Identity n -> y')), [], 'all');
    expect((await run(graph, [], 'all')).y!.data).toEqual(plain.y!.data);
  });

  it('refuses statistics that are computed, and shared ones', () => {
    const computed = normalized(17, 'Relu n -> y', {
      nodes: [op('Abs var -> positive'), op('BatchNormalization x scale shift mean positive -> y', [], 'norm')],
    });
    expect(() => enterTrainingMode(new Graph(computed))).toThrow(
      expect.objectContaining({ code: 'unsupported', node: 'norm' }),
    );
    const shared = tinyModel({
      inputs: [info('x', ['N', 3])],
      outputs: [info('y')],
      nodes: [op('BatchNormalization x a b c d -> h'), op('BatchNormalization h a b c e -> y', [], 'second')],
      initializers: ['a', 'b', 'c', 'd', 'e'].map((name) => weights(name, [3])),
    });
    expect(() => enterTrainingMode(new Graph(shared))).toThrow(
      expect.objectContaining({ code: 'unsupported', node: 'second' }),
    );
  });
});

describe('suitableBatchNorm', () => {
  const vector = (name: string, value: number) => makeTensor(name, 1, [3], [value, value, value]);
  const modeOf = (mean: number, variance: number, lines = ['BatchNormalization x scale shift mean var -> y']) =>
    suitableBatchNorm(
      new Graph(
        tinyModel({
          inputs: [info('x', ['N', 3, 2, 2])],
          outputs: [info('y')],
          nodes: lines.map((line) => op(line)),
          initializers: [vector('scale', 2), vector('shift', 1), vector('mean', mean), vector('var', variance)],
        }),
      ),
    );

  it('keeps statistics that a training has left, and only these', () => {
    expect(modeOf(0, 1)).toBe('updated');
    expect(modeOf(0.1, 1)).toBe('frozen');
    expect(modeOf(0, 2)).toBe('updated');
    expect(modeOf(0, 1, ['Abs mean -> m', 'BatchNormalization x scale shift m var -> y'])).toBe('frozen');
    expect(modeOf(0, 1, ['Relu x -> y'])).toBeUndefined();
  });

  it.each(['resnet20', 'mobilenet-v2', 'unet'])('begins them for %s with random weights', (name) => {
    expect(suitableBatchNorm(new Graph(buildNetwork(findArchitecture(name)!).model))).toBe('updated');
  });
});
