/**
 * Every rule between two convolutions or products: the units that it leaves, or why it leaves none, and that each single unit
 * can be removed without anything else being different.
 */
import type { AttributeProto, ModelProto, NodeProto, TensorProto } from 'onnx-buf';
import { describe, expect, it } from 'vitest';
import { floatAttribute, intAttribute, intsAttribute, stringAttribute } from '../onnx/attributes.js';
import { DataType } from '../onnx/dtypes.js';
import { makeTensor } from '../onnx/tensor.js';
import { cutAndCheck } from '../testing/random-cuts.js';
import { info, ints, op, tensorFeed, tinyModel, weights } from '../testing/graph-writing.js';
import { selectUnits } from './selection.js';

const scalar = (name: string, value: number): TensorProto =>
  makeTensor(name, DataType.FLOAT, [], Float32Array.of(value));
const positive = (name: string, dims: readonly number[]): TensorProto =>
  makeTensor(
    name,
    DataType.FLOAT,
    dims,
    Float32Array.from({ length: dims.reduce((a, b) => a * b, 1) }, (_, i) => 1 + (i % 3)),
  );
const int = (name: string, value: number): AttributeProto => intAttribute(name, value);
const axes = (name: string, values: readonly number[]): AttributeProto => intsAttribute(name, values);

interface Case {
  readonly name: string;
  readonly body: NodeProto[];
  readonly stored?: TensorProto[];
  /** Units of every group. */
  readonly units: readonly number[];
  /** Part of the reason why what the first layer makes is fixed. */
  readonly why?: RegExp;
  /** 18 by default. */
  readonly opset?: number;
  /** Input channels of the last layer; 8 by default. */
  readonly width?: number;
}

/** x [2, 3, 6, 6] -> 8 channels h [2, 8, 4, 4] -> body -> z [2, width, ., .] -> 5 channels y. */
function between({ body, stored = [], width = 8, opset = 18 }: Case): ModelProto {
  return tinyModel({
    opset,
    inputs: [info('x', ['N', 3, 6, 6])],
    outputs: [info('y', ['N', 5, 'h', 'w'])],
    nodes: [op('Conv x w b -> h', [], 'first'), ...body, op('Conv z v -> y', [], 'last')],
    initializers: [weights('w', [8, 3, 3, 3]), weights('b', [8], 2), weights('v', [5, width, 1, 1], 3), ...stored],
  });
}

const CASES: readonly Case[] = [
  { name: 'Relu', body: [op('Relu h -> z')], units: [8] },
  { name: 'Sigmoid: not 0 at 0, but the next layer has zeros', body: [op('Sigmoid h -> z')], units: [8] },
  {
    name: 'Exp, then a sum over channels',
    body: [op('Exp h -> e'), op('ReduceSum e one -> s'), op('Mul h s -> z')],
    stored: [ints('one', [1])],
    units: [],
    why: /sums over it/,
  },
  {
    name: 'a sum over channels that are 0',
    body: [op('ReduceSum h one -> s'), op('Mul h s -> z')],
    stored: [ints('one', [1])],
    units: [8],
  },
  {
    name: 'a mean over channels',
    body: [op('ReduceMean h one -> s'), op('Mul h s -> z')],
    stored: [ints('one', [1])],
    units: [],
    why: /reduces over it/,
  },
  { name: 'division by what would be 0', body: [op('Div h h -> z')], units: [], why: /not finite/ },
  { name: 'division by a stored vector', body: [op('Div h d -> z')], stored: [positive('d', [8, 1, 1])], units: [8] },
  { name: 'Log of what would be 0', body: [op('Log h -> z')], units: [], why: /not finite/ },
  { name: 'x to a power', body: [op('Pow h two -> z')], stored: [scalar('two', 2)], units: [8] },
  {
    name: 'Clip and PRelu',
    body: [op('Clip h low -> c'), op('PRelu c slope -> z')],
    stored: [scalar('low', -0.2), weights('slope', [8, 1, 1], 4)],
    units: [8],
  },
  { name: 'an added vector', body: [op('Add h a -> z')], stored: [weights('a', [1, 8, 1, 1], 4)], units: [8] },
  {
    name: 'Where',
    body: [op('Greater h zero -> c'), op('Where c h s -> z')],
    stored: [scalar('zero', 0), weights('s', [8, 1, 1], 6)],
    units: [8],
  },
  {
    name: 'BatchNormalization',
    body: [op('BatchNormalization h g s m p -> z')],
    stored: [weights('g', [8], 4), weights('s', [8], 5), weights('m', [8], 6), positive('p', [8])],
    units: [8],
  },
  {
    name: 'InstanceNormalization',
    body: [op('InstanceNormalization h g s -> z')],
    stored: [weights('g', [8], 4), weights('s', [8], 5)],
    units: [8],
  },
  {
    name: 'LayerNormalization over channels',
    body: [
      op('Transpose h -> t', [axes('perm', [0, 2, 3, 1])]),
      op('LayerNormalization t g -> n'),
      op('Transpose n -> z', [axes('perm', [0, 3, 1, 2])]),
    ],
    stored: [weights('g', [8], 4)],
    units: [],
    why: /normalizes over it/,
  },
  {
    name: 'LayerNormalization over positions',
    body: [op('LayerNormalization h g -> z')],
    stored: [weights('g', [4], 4)],
    units: [8],
  },
  {
    name: 'group normalization by reshaping',
    body: [op('Reshape h groups -> r'), op('InstanceNormalization r g s -> n'), op('Reshape n back -> z')],
    stored: [ints('groups', [0, 4, -1]), ints('back', [0, 8, 4, 4]), weights('g', [4], 4), weights('s', [4], 5)],
    units: [4],
  },
  {
    name: 'GroupNormalization with a scale per group',
    body: [op('GroupNormalization h g s -> z', [int('num_groups', 4)])],
    stored: [weights('g', [4], 4), weights('s', [4], 5)],
    units: [4],
  },
  {
    name: 'GroupNormalization of all channels together',
    body: [op('GroupNormalization h g s -> z', [int('num_groups', 1)])],
    stored: [weights('g', [1], 4), weights('s', [1], 5)],
    units: [],
    why: /nothing would be left/,
  },
  {
    name: 'a copied size of an axis that stays while its place in the result shrinks',
    body: [op('Reshape h there -> r'), op('Softmax r -> s', [int('axis', 1)]), op('Reshape s back -> z')],
    stored: [ints('there', [0, 2, 0, 16]), ints('back', [0, 8, 4, 4])],
    units: [4],
  },
  {
    name: 'halves that make up all of an axis together',
    body: [
      op('Split h sizes -> l r', [int('axis', 1)]),
      op('Add l r -> a'),
      op('Reshape a there -> t'),
      op('Reshape t back -> z'),
    ],
    stored: [ints('sizes', [4, 4]), ints('there', [0, 2, 2, 4, 4]), ints('back', [0, 4, 4, 4])],
    units: [2],
    width: 4,
  },
  {
    name: 'a ring of indices that hold each other',
    body: [op('Gather h turned -> g', [int('axis', 1)]), op('Add g h -> z')],
    stored: [ints('turned', [1, 2, 3, 4, 5, 6, 7, 0])],
    units: [],
    why: /all of it would have to go at once/,
  },
  {
    name: 'GroupNormalization with a scale per channel',
    body: [op('GroupNormalization h g s -> z', [int('num_groups', 2)])],
    stored: [weights('g', [8], 4), weights('s', [8], 5)],
    opset: 21,
    units: [2],
  },
  {
    name: 'stored numbers that are indices and data',
    body: [
      op('Gather h order -> p', [int('axis', 1)]),
      op('Cast order -> f', [int('to', 1)]),
      op('Unsqueeze f behind -> u'),
      op('Mul p u -> z'),
    ],
    stored: [ints('order', [7, 0, 1, 2, 3, 4, 5, 6]), ints('behind', [1, 2])],
    units: [],
    why: /does not follow/,
  },
  {
    name: 'Softmax over channels',
    body: [op('Softmax h -> z', [int('axis', 1)])],
    units: [],
    why: /Softmax works along/,
  },
  { name: 'Softmax over positions', body: [op('Softmax h -> z', [int('axis', 3)])], units: [8] },
  { name: 'LpNormalization over channels', body: [op('LpNormalization h -> z', [int('axis', 1)])], units: [8] },
  { name: 'LRN', body: [op('LRN h -> z', [int('size', 3)])], units: [], why: /LRN works along/ },
  {
    name: 'CumSum over channels',
    body: [op('CumSum h one -> z')],
    stored: [ints('one', [1], [])],
    units: [],
    why: /accumulates/,
  },
  {
    name: 'ArgMax over channels',
    body: [op('ArgMax h -> m', [int('axis', 1)]), op('Cast m -> f', [int('to', 1)]), op('Mul h f -> z')],
    units: [],
    why: /compares along/,
  },
  {
    name: 'TopK over channels',
    body: [op('TopK h k -> z i', [int('axis', 1)])],
    stored: [ints('k', [8])],
    units: [],
    why: /TopK works along/,
  },
  {
    name: 'pooling',
    body: [op('MaxPool h -> p', [axes('kernel_shape', [2, 2])]), op('GlobalAveragePool p -> z')],
    units: [8],
  },
  {
    name: 'indices of pooling that are read',
    body: [
      op('MaxPool h -> p i', [axes('kernel_shape', [2, 2])]),
      op('Cast i -> f', [int('to', 1)]),
      op('Add p f -> z'),
    ],
    units: [],
    why: /indices are read/,
  },
  {
    name: 'depthwise convolution',
    body: [op('Conv h d e -> z', [int('group', 8)], 'dw')],
    stored: [weights('d', [8, 1, 1, 1], 4), weights('e', [8], 5)],
    units: [8],
  },
  {
    name: 'depthwise convolution with two channels each',
    body: [op('Conv h d -> z', [int('group', 8)])],
    stored: [weights('d', [16, 1, 1, 1], 4)],
    units: [8],
    width: 16,
  },
  {
    name: 'grouped convolution: whole groups',
    body: [op('Conv h d -> z', [int('group', 4)])],
    stored: [weights('d', [12, 2, 1, 1], 4)],
    units: [4],
    width: 12,
  },
  {
    name: 'grouped convolution of what must stay: one channel in every group',
    body: [op('Softmax h -> s', [int('axis', 1)]), op('Conv s d -> z', [int('group', 4)], 'grouped')],
    stored: [weights('d', [12, 2, 1, 1], 4)],
    units: [3],
    width: 12,
  },
  {
    name: 'ConvTranspose',
    body: [op('ConvTranspose h d e -> z')],
    stored: [weights('d', [8, 6, 2, 2], 4), weights('e', [6], 5)],
    units: [8, 6],
    width: 6,
  },
  {
    name: 'grouped ConvTranspose',
    body: [op('ConvTranspose h d -> z', [int('group', 4)])],
    stored: [weights('d', [8, 3, 1, 1], 4)],
    units: [4],
    width: 12,
  },
  {
    name: 'grouped ConvTranspose of what must stay',
    body: [op('Softmax h -> s', [int('axis', 1)]), op('ConvTranspose s d -> z', [int('group', 4)])],
    stored: [weights('d', [8, 3, 1, 1], 4)],
    units: [3],
    width: 12,
  },
  { name: 'the same tensor twice', body: [op('Concat h h -> z', [int('axis', 1)])], units: [8], width: 16 },
  {
    name: 'another tensor beside it',
    body: [op('Conv x u -> o', [], 'other'), op('Concat h o h -> z', [int('axis', 1)])],
    stored: [weights('u', [4, 3, 3, 3], 4)],
    units: [8, 4],
    width: 20,
  },
  {
    name: 'Split and Concat in another order',
    body: [op('Split h sizes -> l r', [int('axis', 1)]), op('Concat r l -> z', [int('axis', 1)])],
    stored: [ints('sizes', [3, 5])],
    units: [8],
  },
  {
    name: 'Split in equal parts without sizes',
    body: [
      op('Split h -> l r', [int('axis', 1), int('num_outputs', 2)]),
      op('Relu l -> k'),
      op('Concat k r -> z', [int('axis', 1)]),
    ],
    units: [8],
  },
  {
    name: 'halves that are multiplied',
    body: [op('Split h -> l r', [int('axis', 1), int('num_outputs', 2)]), op('Sigmoid l -> g'), op('Mul g r -> z')],
    units: [4],
    width: 4,
  },
  {
    name: 'Slice from the end',
    body: [op('Slice h from to one -> z')],
    stored: [ints('from', [-6]), ints('to', [-1]), ints('one', [1])],
    units: [3, 5],
    width: 5,
  },
  {
    name: 'Slice with steps',
    body: [op('Slice h from to one steps -> z')],
    stored: [ints('from', [0]), ints('to', [8]), ints('one', [1]), ints('steps', [2])],
    units: [],
    why: /with steps/,
    width: 4,
  },
  {
    name: 'Pad with zeros in front and behind',
    body: [op('Pad h pads -> p'), op('Conv x u -> o', [], 'other'), op('Add p o -> z')],
    stored: [ints('pads', [0, 1, 0, 0, 0, 3, 0, 0]), weights('u', [12, 3, 3, 3], 4)],
    units: [8, 4],
    width: 12,
  },
  {
    name: 'Pad by reflection',
    body: [op('Pad h pads -> z', [stringAttribute('mode', 'reflect')])],
    stored: [ints('pads', [0, 1, 0, 0, 0, 1, 0, 0])],
    units: [],
    why: /more than a constant/,
    width: 10,
  },
  {
    name: 'Pad of positions with ones, then a sum',
    body: [op('Pad h pads one -> p'), op('ReduceSum p at -> s'), op('Mul p s -> z')],
    stored: [ints('pads', [0, 0, 1, 1, 0, 0, 1, 1]), scalar('one', 1), ints('at', [1])],
    units: [],
    why: /sums over it/,
  },
  {
    name: 'Gather in another order, some twice',
    body: [op('Gather h order -> z', [int('axis', 1)])],
    stored: [ints('order', [7, 0, 2, -6, 3])],
    units: [4, 4],
    width: 5,
  },
  {
    name: 'Gather of a single index',
    body: [op('Gather h three -> g', [int('axis', 1)]), op('Unsqueeze g one -> u'), op('Mul h u -> z')],
    stored: [ints('three', [3], []), ints('one', [1])],
    units: [7],
  },
  {
    name: 'flattening and back',
    body: [op('Flatten h -> f'), op('Reshape f back -> z')],
    stored: [ints('back', [-1, 8, 4, 4])],
    units: [8],
  },
  {
    name: 'a shape with a size and a copied axis',
    body: [op('Reshape h there -> r'), op('Reshape r back -> z')],
    stored: [ints('there', [0, 0, 16]), ints('back', [0, 8, 4, 4])],
    units: [8],
  },
  {
    name: 'channels split in two axes',
    body: [op('Reshape h there -> r'), op('Softmax r -> s', [int('axis', 2)]), op('Reshape s back -> z')],
    stored: [ints('there', [0, 2, 4, 4, 4]), ints('back', [0, 8, 4, 4])],
    units: [2],
  },
  {
    name: 'channels split in two axes, of which the outer must stay',
    body: [op('Reshape h there -> r'), op('Softmax r -> s', [int('axis', 1)]), op('Reshape s back -> z')],
    stored: [ints('there', [0, 2, 4, 4, 4]), ints('back', [0, 8, 4, 4])],
    units: [4],
  },
  {
    name: 'Expand of a new axis and Tile',
    body: [op('Unsqueeze h two -> u'), op('Expand u shape -> e'), op('Reshape e flat -> f'), op('Tile f twice -> z')],
    stored: [
      ints('two', [2]),
      ints('shape', [1, 8, 3, 4, 4]),
      ints('flat', [0, 24, 4, 4]),
      ints('twice', [1, 2, 1, 1]),
    ],
    units: [8],
    width: 48,
  },
  { name: 'DepthToSpace', body: [op('DepthToSpace h -> z', [int('blocksize', 2)])], units: [2], width: 2 },
  {
    name: 'DepthToSpace by columns',
    body: [op('DepthToSpace h -> z', [int('blocksize', 2), stringAttribute('mode', 'CRD')])],
    units: [2],
    width: 2,
  },
  { name: 'SpaceToDepth', body: [op('SpaceToDepth h -> z', [int('blocksize', 2)])], units: [8], width: 32 },
  {
    name: 'Resize by scales',
    body: [op('Resize h _ scales -> z')],
    stored: [makeTensor('scales', DataType.FLOAT, [4], Float32Array.of(1, 1, 2, 2))],
    units: [8],
  },
  {
    name: 'Squeeze without axes',
    body: [op('GlobalAveragePool h -> p'), op('Squeeze p -> q'), op('Unsqueeze q end -> z')],
    stored: [ints('end', [2, 3])],
    units: [],
    why: /drops whatever/,
  },
  {
    name: 'an operator without a rule',
    body: [op('Einsum h -> z', [stringAttribute('equation', 'ncij->ncij')])],
    units: [],
    why: /no rule for Einsum/,
  },
  {
    name: 'a shape that is read',
    body: [op('Shape h -> s'), op('Cast s -> f', [int('to', 1)]), op('ReduceSum f -> t'), op('Mul h t -> z')],
    units: [],
    why: /reads how long/,
  },
  {
    name: 'the length of another axis that is read',
    body: [op('Shape h -> s'), op('Gather s two -> g'), op('Cast g -> f', [int('to', 1)]), op('Mul h f -> z')],
    stored: [ints('two', [2])],
    units: [8],
  },
  {
    name: 'only the length of other axes that is read',
    body: [
      op('Shape h -> s', [int('start', -2)]),
      op('Cast s -> f', [int('to', 1)]),
      op('ReduceSum f -> t'),
      op('Mul h t -> z'),
    ],
    units: [8],
  },
  {
    name: 'a gate from pooled channels',
    body: [
      op('GlobalAveragePool h -> p'),
      op('Conv p a -> q', [], 'squeeze'),
      op('Relu q -> r'),
      op('Conv r c -> s', [], 'excite'),
      op('HardSigmoid s -> t', [floatAttribute('alpha', 0.2)]),
      op('Mul h t -> z'),
    ],
    stored: [weights('a', [2, 8, 1, 1], 4), weights('c', [8, 2, 1, 1], 5)],
    units: [8, 2],
  },
  {
    name: 'a residual connection',
    body: [op('Conv h a -> q', [], 'inner'), op('Conv q c -> r', [], 'back'), op('Add r h -> z')],
    stored: [weights('a', [6, 8, 1, 1], 4), weights('c', [8, 6, 1, 1], 5)],
    units: [8, 6],
  },
  {
    name: 'a weight that two layers share',
    body: [op('Conv h a -> q'), op('Conv q a -> z')],
    stored: [weights('a', [8, 8, 1, 1], 4)],
    units: [8],
  },
];

describe('rules between two convolutions', () => {
  it.each(CASES.map((each) => [each.name, each] as const))('%s', async (_, each) => {
    const model = between(each);
    const feeds = { x: tensorFeed([2, 3, 6, 6]) };
    const { dependencies } = await cutAndCheck(model, feeds, (found) => selectUnits(found, []));
    expect(dependencies.groups.map(({ units }) => units.length)).toEqual(each.units);
    const reasons = dependencies.fixed.filter(({ layer }) => layer === 'first').map(({ reason }) => reason);
    if (each.why) expect(reasons.join()).toMatch(each.why);
    for (const { index, units } of dependencies.groups) {
      for (const unit of units.length > 1 ? units.keys() : []) {
        await cutAndCheck(model, feeds, (found) => selectUnits(found, [{ group: index, units: [unit] }]));
      }
    }
    const { effect } = await cutAndCheck(model, feeds);
    if (each.units.length > 0) expect(effect).toBeGreaterThan(1e-4);
  });
});
