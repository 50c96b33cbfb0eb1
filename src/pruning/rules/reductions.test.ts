/** Reductions and pooling, each between two convolutions. */
import { describe, it } from 'vitest';
import { intsAttribute } from '../../onnx/attributes.js';
import { checkBetween, int, type BetweenCase } from '../../testing/between-convs.js';
import { ints, op } from '../../testing/graph-writing.js';

const CASES: readonly BetweenCase[] = [
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
    name: 'pooling',
    body: [op('MaxPool h -> p', [intsAttribute('kernel_shape', [2, 2])]), op('GlobalAveragePool p -> z')],
    units: [8],
  },
  {
    name: 'indices of pooling that are read',
    body: [
      op('MaxPool h -> p i', [intsAttribute('kernel_shape', [2, 2])]),
      op('Cast i -> f', [int('to', 1)]),
      op('Add p f -> z'),
    ],
    units: [],
    why: /indices are read/,
  },
];

describe('reductions', () => {
  it.each(CASES.map((each) => [each.name, each] as const))('%s', (_, each) => checkBetween(each));
});
