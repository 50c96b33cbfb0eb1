import fc from 'fast-check';
import { describe, it } from 'vitest';
import { floatAttribute, intAttribute } from '../../onnx/attributes.js';
import { checkGradients, randomArray } from '../../testing/check-gradients.js';
import { info, op, tinyModel } from '../../testing/graph-writing.js';

describe('MatMul', () => {
  it.each([
    [
      [2, 3],
      [3, 4],
    ],
    [
      [5, 2, 3],
      [3, 4],
    ],
    [
      [2, 3],
      [5, 3, 4],
    ],
    [
      [2, 1, 2, 3],
      [4, 3, 2],
    ],
    [[3], [3]],
    [[3], [3, 2]],
    [[2, 3], [3]],
    [[3], [2, 3, 2]],
    [[2, 2, 3], [3]],
  ])('goes back through [%s] x [%s]', (a, b) => {
    const model = tinyModel({
      inputs: [info('a', a), info('b', b)],
      outputs: [info('y')],
      nodes: [op('MatMul a b -> y')],
    });
    checkGradients(model, { a: randomArray(a, 1), b: randomArray(b, 2) });
  });
});

describe('Gemm', () => {
  it('goes back through every transposition, factor and bias', () => {
    fc.assert(
      fc.property(
        fc.record({
          transA: fc.integer({ min: 0, max: 1 }),
          transB: fc.integer({ min: 0, max: 1 }),
          alpha: fc.constantFrom(1, 0.5),
          beta: fc.constantFrom(1, 2),
          bias: fc.constantFrom<number[] | undefined>(undefined, [], [1], [4], [2, 1], [1, 4], [2, 4]),
          seed: fc.integer({ min: 1, max: 99 }),
        }),
        ({ transA, transB, alpha, beta, bias, seed }) => {
          const [a, b] = [transA ? [3, 2] : [2, 3], transB ? [4, 3] : [3, 4]];
          const attributes = [
            ...[intAttribute('transA', transA), intAttribute('transB', transB)],
            ...[floatAttribute('alpha', alpha), floatAttribute('beta', beta)],
          ];
          const model = tinyModel({
            inputs: [info('a', a), info('b', b), ...(bias ? [info('c', bias)] : [])],
            outputs: [info('y')],
            nodes: [op(`Gemm a b ${bias ? 'c ' : ''}-> y`, attributes)],
          });
          const given = { a: randomArray(a, seed), b: randomArray(b, seed + 1) };
          checkGradients(model, bias ? { ...given, c: randomArray(bias, seed + 2) } : given);
        },
      ),
      { numRuns: 60 },
    );
  });
});
