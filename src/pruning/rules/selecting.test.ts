/** Concat, Split, Slice, Pad, Gather and Resize, each between two convolutions. */
import { describe, it } from 'vitest';
import { stringAttribute } from '../../onnx/attributes.js';
import { DataType } from '../../onnx/dtypes.js';
import { makeTensor } from '../../onnx/tensor.js';
import { checkBetween, int, scalar, type BetweenCase } from '../../testing/between-convs.js';
import { ints, op, weights } from '../../testing/graph-writing.js';

const CASES: readonly BetweenCase[] = [
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
    name: 'Resize by scales',
    body: [op('Resize h _ scales -> z')],
    stored: [makeTensor('scales', DataType.FLOAT, [4], Float32Array.of(1, 1, 2, 2))],
    units: [8],
  },
  {
    name: 'Resize by sizes',
    body: [op('Resize h _ _ sizes -> z')],
    stored: [ints('sizes', [2, 8, 7, 9])],
    units: [8],
  },
  {
    name: 'Resize of channels',
    body: [op('Resize h _ _ sizes -> z')],
    stored: [ints('sizes', [2, 16, 4, 4])],
    units: [],
    why: /resizes it/,
    width: 16,
  },
];

describe('selecting', () => {
  it.each(CASES.map((each) => [each.name, each] as const))('%s', (_, each) => checkBetween(each));
});
