import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { info, noise, op, run, tinyModel, tensorFeed, weights } from '../testing/graph-writing.js';
import { intAttribute, intsAttribute } from './attributes.js';
import { Graph } from './graph.js';
import { findLayers, fromMatrix, toMatrix, weightMatrix, type WeightLayer } from './layers.js';

function layerOf(
  opType: string,
  weight: number[],
  attributes: Parameters<typeof op>[1] = [],
): { graph: Graph; layer: WeightLayer } {
  const inputs = opType === 'Gather' ? 'w x' : 'x w';
  const model = tinyModel({
    inputs: [info('x')],
    outputs: [info('y')],
    nodes: [op(`${opType} ${inputs} -> y`, attributes, 'layer')],
    initializers: [weights('w', weight, 3)],
  });
  const graph = new Graph(model);
  return { graph, layer: findLayers(graph)[0]! };
}

const small = fc.integer({ min: 1, max: 4 });

describe('toMatrix and fromMatrix', () => {
  it('are inverse permutations for every kind of layer', () => {
    const kinds = fc.oneof(
      fc.tuple(small, small, small, small).map(([o, i, k, g]) => ({ op: 'Conv', dims: [o * g, i, k, k], groups: g })),
      fc
        .tuple(small, small, small, small)
        .map(([i, o, k, g]) => ({ op: 'ConvTranspose', dims: [i * g, o, k, 2], groups: g })),
      fc.tuple(small, small).map(([a, b]) => ({ op: 'MatMul', dims: [a, b], groups: 1 })),
      fc.tuple(small, small).map(([a, b]) => ({ op: 'Gemm', dims: [a, b], groups: 1 })),
      fc.tuple(small, small).map(([a, b]) => ({ op: 'Gather', dims: [a, b], groups: 1 })),
    );
    fc.assert(
      fc.property(kinds, ({ op: opType, dims, groups }) => {
        const { layer } = layerOf(opType, dims, groups > 1 ? [intAttribute('group', groups)] : []);
        const count = dims.reduce((a, b) => a * b, 1);
        expect(layer.rows * layer.cols).toBe(count);
        const values = Float32Array.from({ length: count }, (_, i) => i);
        const matrix = toMatrix(layer, values);
        expect([...matrix].sort((a, b) => a - b)).toEqual([...values]);
        expect(fromMatrix(layer, matrix)).toEqual(values);
        expect(toMatrix(layer, fromMatrix(layer, values))).toEqual(values);
      }),
    );
  });
});

describe('weightMatrix', () => {
  it('has one row per output of a MatMul and a Gemm', () => {
    for (const [opType, dims, transB] of [
      ['MatMul', [3, 2], 0],
      ['Gemm', [3, 2], 0],
      ['Gemm', [2, 3], 1],
    ] as const) {
      const { graph, layer } = layerOf(opType, [...dims], transB ? [intAttribute('transB', 1)] : []);
      const w = noise(6, 3);
      expect([layer.rows, layer.cols, layer.channels]).toEqual([2, 3, 2]);
      const expected = transB ? [...w] : [0, 2, 4, 1, 3, 5].map((i) => w[i]);
      expect([...weightMatrix(graph, layer)]).toEqual(expected);
    }
  });

  it.each([1, 2, 3])('agrees with ONNX Runtime for a ConvTranspose of %i groups', async (groups) => {
    // Stride = kernel: each input position is multiplied into its own block of the output.
    const [inputs, outputs, k, size] = [2 * groups, 3 * groups, 2, 2];
    const attributes = [intAttribute('group', groups), intsAttribute('strides', [k, k])];
    const { graph, layer } = layerOf('ConvTranspose', [inputs, 3, k, k], attributes);
    const feed = tensorFeed([1, inputs, size, size]);
    const model = graph.toModel();
    const { y } = await run(model, { x: feed });
    const matrix = weightMatrix(graph, layer);
    expect([layer.rows, layer.cols, layer.channels]).toEqual([outputs * k * k, 2, outputs]);
    const width = size * k;
    for (let row = 0; row < layer.rows; row++) {
      const [channel, tap] = [Math.floor(row / (k * k)), row % (k * k)];
      const group = Math.floor(channel / 3);
      for (let at = 0; at < size * size; at++) {
        let sum = 0;
        for (let col = 0; col < layer.cols; col++) {
          sum += matrix[row * layer.cols + col]! * Number(feed.data[(group * layer.cols + col) * size * size + at]);
        }
        const oy = Math.floor(at / size) * k + Math.floor(tap / k);
        const ox = (at % size) * k + (tap % k);
        expect(Number(y!.data[(channel * width + oy) * width + ox])).toBeCloseTo(sum, 5);
      }
    }
  });
});

describe('findLayers', () => {
  it('names each layer once, and takes constant float weights only', () => {
    const model = tinyModel({
      inputs: [info('x', [2, 3])],
      outputs: [info('y')],
      nodes: [
        op('MatMul x w -> a', [], 'same'),
        op('MatMul a w -> b', [], 'same'),
        op('MatMul b x -> c', [], 'computed'),
        op('Add b bias -> d'),
        op('Gemm d w matrix -> e', [], 'gemm'),
        op('Sum c e -> y'),
      ],
      initializers: [weights('w', [3, 3]), weights('bias', [3]), weights('matrix', [2, 3])],
    });
    const layers = findLayers(new Graph(model));
    expect(layers.map((layer) => layer.name)).toEqual(['same', 'same#2', 'gemm']);
    expect(layers.map((layer) => layer.biasSlot?.node.opType)).toEqual([undefined, undefined, undefined]);
  });

  it('finds where a bias is or could be', () => {
    const model = tinyModel({
      inputs: [info('x', [2, 3])],
      outputs: [info('y'), info('z'), info('s')],
      nodes: [
        op('MatMul x w -> a'),
        op('Add bias a -> b', [], 'add'),
        op('Gemm b w -> y', [], 'free'),
        op('Gemm b w bias -> z', [], 'taken'),
        op('Gemm b w scalar -> s', [], 'scalar'),
      ],
      initializers: [weights('w', [3, 3]), weights('bias', [3]), weights('scalar', [1])],
    });
    const slots = findLayers(new Graph(model)).map(({ biasSlot }) => biasSlot && [biasSlot.node.label, biasSlot.index]);
    expect(slots).toEqual([['add', 0], ['free', 2], ['taken', 2], undefined]);
  });
});
