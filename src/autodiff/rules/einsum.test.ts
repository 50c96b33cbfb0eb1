import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { stringAttribute } from '../../onnx/attributes.js';
import { randomArray } from '../../testing/check-gradients.js';
import { checkRule } from '../../testing/check-in-engine.js';
import { checkReference } from '../../testing/check-reference.js';
import { checkVaryingSizes, gradientModel } from '../../testing/gradient-model.js';
import { info, op, opsOf, tinyModel } from '../../testing/graph-writing.js';

type Dims = readonly (number | string)[];

function modelOf(equation: string, dims: readonly Dims[]) {
  const names = dims.map((_, i) => `x${String(i)}`);
  return tinyModel({
    inputs: names.map((name, i) => info(name, dims[i]!)),
    outputs: [info('y')],
    nodes: [op(`Einsum ${names.join(' ')} -> y`, [stringAttribute('equation', equation)])],
  });
}

const given = (dims: readonly (readonly number[])[]) =>
  Object.fromEntries(dims.map((d, i) => [`x${String(i)}`, randomArray(d, i + 1)]));

const check = (equation: string, dims: readonly (readonly number[])[]) =>
  checkRule(modelOf(equation, dims), given(dims));

describe('Einsum', () => {
  it.each<[string, number[][]]>([
    ['ij->ji', [[2, 3]]],
    ['ij->ij', [[2, 3]]],
    ['ij->', [[2, 3]]],
    ['ij->j', [[2, 3]]],
    ['ji', [[2, 3]]],
    [
      'ab,bc',
      [
        [2, 3],
        [3, 4],
      ],
    ],
    [
      ' i j , j k -> i k ',
      [
        [2, 3],
        [3, 4],
      ],
    ],
    [
      'bhqd,bhkd->bhqk',
      [
        [2, 2, 3, 2],
        [2, 2, 4, 2],
      ],
    ],
    ['i,j->ij', [[2], [3]]],
    ['i,i->', [[3], [3]]],
    ['ij,k->i', [[2, 3], [4]]],
    [
      'ij,ij->ij',
      [
        [2, 3],
        [2, 3],
      ],
    ],
    [
      'ij,jk,kl->il',
      [
        [2, 3],
        [3, 2],
        [2, 4],
      ],
    ],
    ['i,i,i,i->i', [[2], [2], [2], [2]]],
    [
      'Ab,bA->A',
      [
        [2, 3],
        [3, 2],
      ],
    ],
    [',ij->ij', [[], [2, 3]]],
  ])('%s', async (equation, dims) => {
    await check(equation, dims);
  });

  it.each<[string, number[][]]>([
    [
      '...ij,...jk->...ik',
      [
        [2, 2, 3],
        [2, 3, 4],
      ],
    ],
    [
      '...ij,jk->...ik',
      [
        [2, 2, 2, 3],
        [3, 4],
      ],
    ],
    [
      '...ij,...jk',
      [
        [2, 2, 3],
        [2, 3, 2],
      ],
    ],
    [
      '...ij,...jk->...ik',
      [
        [2, 1, 2, 3],
        [1, 3, 3, 2],
      ],
    ],
    ['i...->...i', [[2, 3, 4]]],
    ['i...j,j->i...', [[2, 4, 3], [3]]],
    [
      '...,...->...',
      [
        [2, 3],
        [2, 3],
      ],
    ],
    ['...i->...', [[3]]],
  ])('%s with axes behind the dots', async (equation, dims) => {
    await check(equation, dims);
  });

  it.each<[string, number[][]]>([
    ['ii->i', [[3, 3]]],
    ['ii', [[3, 3]]],
    [
      'bij,ii->bj',
      [
        [2, 3, 2],
        [3, 3],
      ],
    ],
    ['iji->j', [[2, 3, 2]]],
  ])('%s reads a diagonal', async (equation, dims) => {
    await check(equation, dims);
  });

  it.each<[string, number[][]]>([
    [
      'ij,ij->ij',
      [
        [2, 3],
        [1, 3],
      ],
    ],
    [
      'ij,jk->ik',
      [
        [2, 1],
        [3, 2],
      ],
    ],
    [
      'ij,ij->',
      [
        [1, 3],
        [2, 1],
      ],
    ],
    ['ij,j->i', [[2, 3], [1]]],
  ])('%s broadcasts sizes of 1', async (equation, dims) => {
    await check(equation, dims);
  });

  it('goes back through any equation of two operands', async () => {
    const letters = ['a', 'b', 'c', 'd'];
    const term = fc.shuffledSubarray(letters, { minLength: 0, maxLength: 3 });
    const equation = fc
      .record({ left: term, right: term, sizes: fc.tuple(...letters.map(() => fc.integer({ min: 1, max: 3 }))) })
      .chain(({ left, right, sizes }) =>
        fc
          .shuffledSubarray([...new Set([...left, ...right])])
          .map((output) => ({ left, right, sizes, output: output.join('') })),
      );
    await fc.assert(
      fc.asyncProperty(equation, async ({ left, right, sizes, output }) => {
        const dimsOf = (labels: readonly string[]) => labels.map((letter) => sizes[letters.indexOf(letter)]!);
        await check(`${left.join('')},${right.join('')}->${output}`, [dimsOf(left), dimsOf(right)]);
      }),
      { numRuns: 50 },
    );
  });

  it('keeps a varying batch', async () => {
    const cases: [string, Dims[], number[][][]][] = [
      [
        'bij,bjk->bik',
        [
          ['N', 2, 3],
          ['N', 3, 2],
        ],
        [2, 3].map((n) => [
          [n, 2, 3],
          [n, 3, 2],
        ]),
      ],
      ['bij->ij', [['N', 2, 3]], [2, 3].map((n) => [[n, 2, 3]])],
      [
        'bij,jk->k',
        [
          ['N', 2, 3],
          [3, 2],
        ],
        [2, 3].map((n) => [
          [n, 2, 3],
          [3, 2],
        ]),
      ],
    ];
    for (const [equation, declared, sizes] of cases) {
      const samples = sizes.map(given);
      const gradients = checkVaryingSizes(modelOf(equation, declared), samples);
      for (const sample of samples) await checkReference(gradients, sample);
    }
  });

  it('makes one Einsum per operand, none where nothing is to be done', () => {
    const attention = gradientModel(
      modelOf('bqd,bkd->bqk', [
        [2, 2, 2],
        [2, 3, 2],
      ]),
      [
        given([
          [2, 2, 2],
          [2, 3, 2],
        ]),
      ],
    );
    expect(opsOf(attention.model).filter((name) => name === 'Einsum').length).toBe(3);
    const same = gradientModel(modelOf('ij->ij', [[2, 3]]), [given([[2, 3]])]);
    expect(opsOf(same.model).filter((name) => name === 'Einsum').length).toBe(1);
  });

  it('refuses a diagonal of varying size', () => {
    const samples = [2, 3].map((n) => given([[n, n]]));
    expect(() => gradientModel(modelOf('ii->i', [['N', 'N']]), samples)).toThrow(/diagonal of varying size/);
  });
});
