/** Normalizations and operators along one axis, each between two convolutions. */
import { describe, it } from 'vitest';
import { intsAttribute } from '../../onnx/attributes.js';
import { checkBetween, int, positive, type BetweenCase } from '../../testing/between-convs.js';
import { ints, op, weights } from '../../testing/graph-writing.js';

const CASES: readonly BetweenCase[] = [
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
      op('Transpose h -> t', [intsAttribute('perm', [0, 2, 3, 1])]),
      op('LayerNormalization t g -> n'),
      op('Transpose n -> z', [intsAttribute('perm', [0, 3, 1, 2])]),
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
    name: 'GroupNormalization with a scale per channel',
    body: [op('GroupNormalization h g s -> z', [int('num_groups', 2)])],
    stored: [weights('g', [8], 4), weights('s', [8], 5)],
    opset: 21,
    units: [2],
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
    name: 'TopK over channels',
    body: [op('TopK h k -> z i', [int('axis', 1)])],
    stored: [ints('k', [8])],
    units: [],
    why: /TopK works along/,
  },
];

describe('normalizations', () => {
  it.each(CASES.map((each) => [each.name, each] as const))('%s', (_, each) => checkBetween(each));
});
