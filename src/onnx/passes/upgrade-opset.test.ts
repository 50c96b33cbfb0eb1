import { create } from '@bufbuild/protobuf';
import {
  AttributeProto_AttributeType as Kind,
  AttributeProtoSchema,
  type AttributeProto,
  type NodeProto,
  type TensorProto,
  type ValueInfoProto,
} from 'onnx-buf';
import { describe, expect, it } from 'vitest';
import { FlowCompressError } from '../../errors.js';
import {
  distance,
  info,
  ints,
  op,
  opsOf,
  run,
  tensorFeed,
  tinyGraph,
  tinyModel,
  weights,
} from '../../testing/graph-writing.js';
import { floatAttribute, intAttribute, intsAttribute, stringAttribute } from '../attributes.js';
import { DataType } from '../dtypes.js';
import { rewrite } from '../graph.js';
import { makeTensor } from '../tensor.js';
import { validateModel } from '../validate.js';
import { upgradeOpset, type OpsetUpgrade } from './upgrade-opset.js';

function floats(name: string, values: number[]): AttributeProto {
  return create(AttributeProtoSchema, { name, type: Kind.FLOATS, floats: values });
}

function body(name: string, spec: Parameters<typeof tinyGraph>[0]): AttributeProto {
  return create(AttributeProtoSchema, { name, type: Kind.GRAPH, g: tinyGraph(spec, name) });
}

interface Case {
  what: string;
  opset: number;
  /** Dims of the input `x`. */
  dims: number[];
  nodes: NodeProto[];
  initializers?: TensorProto[];
  outputs?: ValueInfoProto[];
  /** Operators of the upgraded model. */
  ops?: string[];
}

const scalesOf = (values: number[]): TensorProto => makeTensor('s', DataType.FLOAT, [values.length], values);
const nearest = stringAttribute('mode', 'nearest');
const linear = stringAttribute('mode', 'linear');

const CASES: Case[] = [
  ...[nearest, linear].flatMap((mode): Case[] => [
    {
      what: 'Upsample by attribute',
      opset: 7,
      dims: [1, 2, 5, 4],
      nodes: [op('Upsample x -> y', [mode, floats('scales', [1, 1, 2.5, 1.7])])],
      ops: ['Resize'],
    },
    {
      what: 'Upsample by input',
      opset: 9,
      dims: [1, 2, 5, 4],
      nodes: [op('Upsample x s -> y', [mode])],
      initializers: [scalesOf([1, 1, 3, 2.3])],
      ops: ['Resize'],
    },
    {
      what: 'Resize that enlarges',
      opset: 10,
      dims: [1, 2, 5, 4],
      nodes: [op('Resize x s -> y', [mode])],
      initializers: [scalesOf([1, 1, 2, 1.6])],
      ops: ['Resize'],
    },
    {
      what: 'Resize that reduces',
      opset: 10,
      dims: [1, 2, 9, 11],
      nodes: [op('Resize x s -> y', [mode])],
      initializers: [scalesOf([1, 1, 0.45, 0.6])],
      ops: ['Resize'],
    },
  ]),
  {
    what: 'Resize that does both',
    opset: 10,
    dims: [1, 2, 9, 5],
    nodes: [op('Resize x s -> y', [nearest])],
    initializers: [scalesOf([1, 1, 0.45, 1.7])],
    ops: ['Resize', 'Resize'],
  },
  {
    what: 'Upsample by computed scales',
    opset: 9,
    dims: [1, 2, 4, 4],
    nodes: [op('Mul s s -> t'), op('Upsample x t -> y')],
    initializers: [scalesOf([1, 1, 2, 1.5])],
  },
  {
    what: 'Resize for TensorFlow',
    opset: 11,
    dims: [1, 1, 5, 7],
    nodes: [
      op('Resize x r s -> y', [
        nearest,
        stringAttribute('coordinate_transformation_mode', 'tf_half_pixel_for_nn'),
        stringAttribute('nearest_mode', 'floor'),
      ]),
    ],
    initializers: [scalesOf([1, 1, 1.7, 0.6]), makeTensor('r', DataType.FLOAT, [0], [])],
  },
  {
    what: 'Slice',
    opset: 7,
    dims: [3, 6, 5],
    nodes: [
      op('Slice x -> y', [
        intsAttribute('axes', [1, 2]),
        intsAttribute('starts', [1, -3]),
        create(AttributeProtoSchema, { name: 'ends', type: Kind.INTS, ints: [2n ** 63n - 1n, -1n] }),
      ]),
    ],
  },
  {
    what: 'Slice without axes',
    opset: 9,
    dims: [3, 6],
    nodes: [op('Slice x -> y', [intsAttribute('starts', [1, 2]), intsAttribute('ends', [3, 5])])],
  },
  {
    what: 'Slice by inputs',
    opset: 10,
    dims: [3, 6],
    nodes: [op('Slice x a b -> y')],
    initializers: [ints('a', [1, 2]), ints('b', [3, 5])],
    ops: ['Slice'],
  },
  {
    what: 'Clip',
    opset: 6 + 1,
    dims: [20],
    nodes: [op('Clip x -> y', [floatAttribute('min', -0.2), floatAttribute('max', 0.3)])],
  },
  { what: 'Clip above only', opset: 10, dims: [20], nodes: [op('Clip x -> y', [floatAttribute('max', 0.3)])] },
  { what: 'Clip of nothing', opset: 9, dims: [20], nodes: [op('Clip x -> y')] },
  {
    what: 'Pad',
    opset: 7,
    dims: [2, 3],
    nodes: [op('Pad x -> y', [intsAttribute('pads', [0, 1, 2, -1]), floatAttribute('value', 1.5)])],
  },
  {
    what: 'Pad by reflection',
    opset: 10,
    dims: [2, 5],
    nodes: [op('Pad x -> y', [intsAttribute('pads', [0, 2, 0, 1]), stringAttribute('mode', 'reflect')])],
  },
  {
    what: 'Squeeze and Unsqueeze',
    opset: 8,
    dims: [3, 1, 2],
    nodes: [
      op('Squeeze x -> a', [intsAttribute('axes', [1])]),
      op('Unsqueeze a -> b', [intsAttribute('axes', [0, 3])]),
      op('Squeeze b -> y'),
    ],
  },
  {
    what: 'ReduceSum',
    opset: 11,
    dims: [3, 4, 2],
    nodes: [
      op('ReduceSum x -> a', [intsAttribute('axes', [-1, 0]), intAttribute('keepdims', 0)]),
      op('ReduceSum x -> b'),
      op('Add a b -> y'),
    ],
  },
  {
    what: 'Split',
    opset: 8,
    dims: [2, 7],
    nodes: [
      op('Split x -> a b', [intAttribute('axis', 1), intsAttribute('split', [3, 4])]),
      op('Concat b a -> y', [intAttribute('axis', 1)]),
    ],
  },
  { what: 'Split evenly', opset: 11, dims: [6], nodes: [op('Split x -> a b'), op('Sub b a -> y')] },
  ...['Softmax', 'LogSoftmax', 'Hardmax'].flatMap((name): Case[] => [
    {
      what: `${name} of rank 4 by default`,
      opset: 9,
      dims: [2, 3, 4, 2],
      nodes: [op(`${name} x -> y`)],
      ops: ['Flatten', name, 'Shape', 'Reshape'],
    },
    { what: `${name} over all`, opset: 11, dims: [2, 3], nodes: [op(`${name} x -> y`, [intAttribute('axis', 0)])] },
    {
      what: `${name} of the last axis`,
      opset: 12,
      dims: [2, 3, 4],
      nodes: [op(`${name} x -> y`, [intAttribute('axis', -1)])],
      ops: [name],
    },
    {
      what: `${name} of the last axis, counted from the front`,
      opset: 7,
      dims: [2, 3],
      nodes: [op('Relu x -> r'), op(`${name} r -> y`, [intAttribute('axis', 1)])],
      ops: ['Relu', name],
    },
    {
      what: `${name} within the graph`,
      opset: 11,
      dims: [2, 3, 4],
      nodes: [op(`${name} x -> s`, [intAttribute('axis', -2)]), op('Mul s x -> y')],
    },
  ]),
  { what: 'Dropout', opset: 7, dims: [2, 3], nodes: [op('Dropout x -> y mask', [floatAttribute('ratio', 0.7)])] },
  {
    what: 'BatchNormalization',
    opset: 7,
    dims: [2, 3, 4],
    nodes: [op('BatchNormalization x g b m v -> y', [intAttribute('spatial', 1), floatAttribute('epsilon', 0.01)])],
    initializers: [
      weights('g', [3], 1),
      weights('b', [3], 2),
      weights('m', [3], 3),
      makeTensor('v', DataType.FLOAT, [3], [1, 2, 0.5]),
    ],
  },
  {
    what: 'TopK',
    opset: 7,
    dims: [2, 6],
    nodes: [op('TopK x -> y i', [intAttribute('k', 3), intAttribute('axis', 1)])],
  },
  {
    what: 'Scatter',
    opset: 9,
    dims: [2, 3],
    nodes: [op('Scatter x i u -> y', [intAttribute('axis', 1)])],
    initializers: [ints('i', [0, 2, 1, 0], [2, 2]), weights('u', [2, 2])],
    ops: ['ScatterElements'],
  },
  {
    what: 'Gemm and Flatten',
    opset: 7,
    dims: [2, 3, 2],
    nodes: [op('Flatten x -> f'), op('Gemm f w b -> y', [intAttribute('transB', 1)])],
    initializers: [weights('w', [4, 6]), weights('b', [4])],
    ops: ['Flatten', 'Gemm'],
  },
  {
    what: 'pooling, Conv and ConvTranspose',
    opset: 8,
    dims: [1, 2, 8, 8],
    nodes: [
      op('Conv x w -> c'),
      op('MaxPool c -> p', [intsAttribute('kernel_shape', [2, 2])]),
      op('AveragePool p -> q', [intsAttribute('kernel_shape', [2, 2])]),
      op('ConvTranspose q w -> y'),
    ],
    initializers: [weights('w', [2, 2, 3, 3])],
  },
];

describe('upgradeOpset', () => {
  it.each(CASES)('$what (opset $opset)', async ({ opset, dims, nodes, initializers = [], outputs, ops }) => {
    const model = tinyModel({ opset, inputs: [info('x', dims)], outputs: outputs ?? [info('y')], nodes, initializers });
    const upgraded = rewrite(model, (graph) => void upgradeOpset(graph));
    validateModel(upgraded);
    expect(upgraded.opsetImport.map((entry) => entry.version)).toEqual([13n]);
    const feeds = { x: tensorFeed(dims) };
    expect(distance(await run(model, feeds), await run(upgraded, feeds))).toBeLessThan(1e-6);
    if (ops) expect(opsOf(upgraded)).toEqual(ops);
  });

  it('upgrades subgraph bodies, with names that nothing else bears', async () => {
    const branch = (name: string, bound: number): AttributeProto =>
      body(name, {
        nodes: [
          op(`Clip x -> ${name}_c`, [floatAttribute('max', bound)]),
          op(`Softmax ${name}_c -> ${name}_out`, [intAttribute('axis', 1)]),
        ],
        outputs: [info(`${name}_out`)],
      });
    const model = tinyModel({
      opset: 10,
      inputs: [info('x', [2, 3, 2]), info('flag', [], DataType.BOOL)],
      outputs: [info('y')],
      nodes: [
        op('If flag -> z', [branch('then_branch', 0.2), branch('else_branch', -0.2)]),
        op('Softmax z -> y', [intAttribute('axis', 0)]),
      ],
    });
    const upgraded = rewrite(model, (graph) => void upgradeOpset(graph));
    validateModel(upgraded);
    for (const flag of [0, 1]) {
      const feeds = { x: tensorFeed([2, 3, 2]), flag: { type: 'bool' as const, dims: [], data: Uint8Array.of(flag) } };
      expect(distance(await run(model, feeds), await run(upgraded, feeds))).toBeLessThan(1e-6);
    }
  });

  it('withdraws initializers from the inputs, and leaves newer opsets as they are', () => {
    const model = tinyModel({
      opset: 17,
      irVersion: 3,
      inputs: [info('x', [2]), info('w', [2])],
      outputs: [info('y')],
      nodes: [op('Add x w -> y')],
      initializers: [weights('w', [2])],
    });
    let result: OpsetUpgrade | undefined;
    const upgraded = rewrite(model, (graph) => {
      result = upgradeOpset(graph);
    });
    expect(result).toEqual({ from: 17, to: 17, rewritten: 0, withdrawn: 1 });
    expect(upgraded.graph!.input.map((input) => input.name)).toEqual(['x']);
    expect(upgraded.irVersion).toBe(4n);
    expect(upgraded.graph!.node).toEqual(model.graph!.node);
  });

  it.each([
    ['an unknown operator', 12, op('Crop x -> y', [], 'odd')],
    ['spatial = 0', 7, op('BatchNormalization x x x x x -> y', [intAttribute('spatial', 0)], 'odd')],
    ['a mask that is read', 7, op('Dropout x -> m y', [], 'odd')],
    ['Scan with a batch axis', 8, op('Scan x -> y', [], 'odd')],
    ['a type by name', 7, op('Cast x -> y', [stringAttribute('to', 'FLOAT')], 'odd')],
    ['computed scales of Resize', 10, op('Resize x x -> y', [], 'odd')],
    ['old broadcasting', 7, op('Add x x -> y', [intAttribute('broadcast', 1)], 'odd')],
  ])('refuses %s by name', (_, opset, node) => {
    const model = tinyModel({ opset, inputs: [info('x', [2])], outputs: [info('y')], nodes: [node] });
    const upgrade = (): unknown => rewrite(model, (graph) => void upgradeOpset(graph));
    expect(upgrade).toThrow(FlowCompressError);
    expect(upgrade).toThrow(
      expect.objectContaining({ code: 'unsupported', node: 'odd', hint: expect.stringContaining('opset 13') }),
    );
  });
});
