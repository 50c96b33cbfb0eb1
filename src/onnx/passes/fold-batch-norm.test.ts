import type { AttributeProto, TensorProto } from 'onnx-buf';
import { describe, expect, it } from 'vitest';
import { distance, info, noise, op, opsOf, run, tensorFeed, tinyModel, weights } from '../../testing/graph-writing.js';
import { floatAttribute, intAttribute, intsAttribute } from '../attributes.js';
import { DataType } from '../dtypes.js';
import { rewrite } from '../graph.js';
import { makeTensor } from '../tensor.js';
import { validateModel } from '../validate.js';
import { foldBatchNorm } from './fold-batch-norm.js';

/** Parameters of a normalisation over `channels`, far from the identity. */
function norm(prefix: string, channels: number, seed = 5): TensorProto[] {
  const variance = noise(channels, seed + 3).map((v) => Math.abs(v) + 0.1);
  return [
    weights(`${prefix}g`, [channels], seed),
    weights(`${prefix}b`, [channels], seed + 1),
    weights(`${prefix}m`, [channels], seed + 2),
    makeTensor(`${prefix}v`, DataType.FLOAT, [channels], variance),
  ];
}

const eps = [floatAttribute('epsilon', 0.01)];

interface Case {
  what: string;
  dims: number[];
  layer: string;
  attributes?: AttributeProto[];
  weight: number[];
  bias?: number[];
  channels: number;
}

const FOLDED: Case[] = [
  { what: 'Conv', dims: [2, 3, 6, 6], layer: 'Conv x w b', weight: [4, 3, 3, 3], bias: [4], channels: 4 },
  { what: 'Conv without bias', dims: [2, 3, 6], layer: 'Conv x w', weight: [4, 3, 3], channels: 4 },
  {
    what: 'grouped Conv',
    dims: [2, 4, 6, 6],
    layer: 'Conv x w b',
    attributes: [intAttribute('group', 2)],
    weight: [6, 2, 3, 3],
    bias: [6],
    channels: 6,
  },
  {
    what: 'depthwise Conv',
    dims: [2, 4, 6, 6],
    layer: 'Conv x w',
    attributes: [intAttribute('group', 4)],
    weight: [4, 1, 3, 3],
    channels: 4,
  },
  {
    what: 'ConvTranspose',
    dims: [2, 3, 4, 4],
    layer: 'ConvTranspose x w b',
    attributes: [intsAttribute('strides', [2, 2])],
    weight: [3, 5, 3, 3],
    bias: [5],
    channels: 5,
  },
  {
    what: 'grouped ConvTranspose',
    dims: [2, 6, 4, 4],
    layer: 'ConvTranspose x w',
    attributes: [intAttribute('group', 3)],
    weight: [6, 2, 2, 2],
    channels: 6,
  },
  { what: 'Gemm', dims: [4, 3], layer: 'Gemm x w b', weight: [3, 5], bias: [5], channels: 5 },
  {
    what: 'Gemm with transB',
    dims: [4, 3],
    layer: 'Gemm x w b',
    attributes: [intAttribute('transB', 1)],
    weight: [5, 3],
    bias: [1, 5],
    channels: 5,
  },
  { what: 'square Gemm', dims: [4, 3], layer: 'Gemm x w', weight: [3, 3], channels: 3 },
];

describe('foldBatchNorm', () => {
  it.each(FOLDED)('$what', async ({ dims, layer, attributes, weight, bias, channels }) => {
    const model = tinyModel({
      inputs: [info('x', dims)],
      outputs: [info('y')],
      nodes: [op(`${layer} -> h`, attributes), op('BatchNormalization h g b_ m v -> y', eps)],
      initializers: [
        weights('w', weight, 1),
        ...(bias ? [weights('b', bias, 2)] : []),
        ...norm('', channels).map((tensor) =>
          tensor.name === 'b' ? makeTensor('b_', DataType.FLOAT, [channels], noise(channels, 9)) : tensor,
        ),
      ],
    });
    const folded = rewrite(model, (graph) => {
      expect(foldBatchNorm(graph)).toBe(1);
    });
    validateModel(folded);
    expect(opsOf(folded)).toEqual([layer.split(' ')[0]]);
    expect(folded.graph!.initializer).toHaveLength(2);
    const feeds = { x: tensorFeed(dims) };
    expect(distance(await run(model, feeds), await run(folded, feeds))).toBeLessThan(1e-5);
  });

  it('folds into each of two layers that share a weight, and leaves a third as it is', async () => {
    const model = tinyModel({
      inputs: [info('x', [1, 3, 5, 5])],
      outputs: [info('y')],
      nodes: [
        op('Conv x w -> a'),
        op('BatchNormalization a ag ab am av -> p', eps),
        op('Conv x w -> b'),
        op('BatchNormalization b bg bb bm bv -> q', eps),
        op('Conv x w -> c'),
        op('Sum p q c -> y'),
      ],
      initializers: [weights('w', [2, 3, 3, 3]), ...norm('a', 2, 20), ...norm('b', 2, 30)],
    });
    const folded = rewrite(model, (graph) => {
      expect(foldBatchNorm(graph)).toBe(2);
    });
    expect(opsOf(folded)).toEqual(['Conv', 'Conv', 'Conv', 'Sum']);
    const feeds = { x: tensorFeed([1, 3, 5, 5]) };
    expect(distance(await run(model, feeds), await run(folded, feeds))).toBeLessThan(1e-5);
  });

  it.each([
    [
      'the layer is read elsewhere',
      17,
      ['Conv x w -> h', 'BatchNormalization h g b m v -> n', 'Add h n -> y'],
      [2, 3, 1],
      [1, 3, 4],
    ],
    ['the layer is an output', 17, ['Conv x w -> z', 'BatchNormalization z g b m v -> y'], [2, 3, 1], [1, 3, 4]],
    [
      'the weight is computed',
      17,
      ['Abs w -> u', 'Conv x u -> h', 'BatchNormalization h g b m v -> y'],
      [2, 3, 1],
      [1, 3, 4],
    ],
    ['the bias of a Gemm is a column', 17, ['Gemm x w g2 -> h', 'BatchNormalization h g b m v -> y'], [3, 2], [2, 3]],
  ])('does not fold where %s', (_, opset, nodes, weight, dims) => {
    const model = tinyModel({
      opset,
      inputs: [info('x', dims)],
      outputs: [info('y'), ...(nodes[0]!.endsWith('z') ? [info('z')] : [])],
      nodes: nodes.map((text) => op(text)),
      initializers: [weights('w', weight), ...norm('', 2), weights('g2', [2, 1])],
    });
    rewrite(model, (graph) => {
      expect(foldBatchNorm(graph)).toBe(0);
    });
  });

  it('does not fold in training mode', () => {
    for (const node of [
      op('BatchNormalization h g b m v -> y', [intAttribute('training_mode', 1)]),
      op('BatchNormalization h g b m v -> y mean var'),
    ]) {
      const nodes = [op('Conv x w -> h'), node];
      const initializers = [weights('w', [2, 3, 1]), ...norm('', 2)];
      const model = tinyModel({ inputs: [info('x', [1, 3, 4])], outputs: [info('y')], nodes, initializers });
      rewrite(model, (graph) => {
        expect(foldBatchNorm(graph)).toBe(0);
      });
    }
  });
});
