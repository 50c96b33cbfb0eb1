/** Other shapes of the same elements, and shapes that are read, each between two convolutions. */
import { describe, it } from 'vitest';
import { stringAttribute } from '../../onnx/attributes.js';
import { checkBetween, int, type BetweenCase } from '../../testing/between-convs.js';
import { ints, op } from '../../testing/graph-writing.js';

const CASES: readonly BetweenCase[] = [
  {
    name: 'a copied size of an axis that stays while its place in the result shrinks',
    body: [op('Reshape h there -> r'), op('Softmax r -> s', [int('axis', 1)]), op('Reshape s back -> z')],
    stored: [ints('there', [0, 2, 0, 16]), ints('back', [0, 8, 4, 4])],
    units: [4],
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
    name: 'Squeeze without axes',
    body: [op('GlobalAveragePool h -> p'), op('Squeeze p -> q'), op('Unsqueeze q end -> z')],
    stored: [ints('end', [2, 3])],
    units: [],
    why: /drops whatever/,
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
];

describe('reshaping', () => {
  it.each(CASES.map((each) => [each.name, each] as const))('%s', (_, each) => checkBetween(each));
});
