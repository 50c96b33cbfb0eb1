/** Convolutions and what is built of them, each between two convolutions. */
import { describe, it } from 'vitest';
import { floatAttribute } from '../../onnx/attributes.js';
import { checkBetween, int, type BetweenCase } from '../../testing/between-convs.js';
import { op, weights } from '../../testing/graph-writing.js';

const CASES: readonly BetweenCase[] = [
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

describe('convolution', () => {
  it.each(CASES.map((each) => [each.name, each] as const))('%s', (_, each) => checkBetween(each));
});
