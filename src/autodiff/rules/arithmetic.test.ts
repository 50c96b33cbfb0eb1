import { describe, it } from 'vitest';
import { checkGradients, randomArray } from '../../testing/check-gradients.js';
import { info, op, tinyModel } from '../../testing/graph-writing.js';

describe('arithmetic', () => {
  it.each(['Add', 'Sub', 'Mul', 'Div'])('%s broadcasts both ways', (name) => {
    for (const [a, b] of [
      [
        [2, 3],
        [2, 3],
      ],
      [[2, 3], [3]],
      [
        [1, 3],
        [2, 1],
      ],
      [[], [2, 2]],
      [
        [4, 1, 3],
        [2, 1],
      ],
    ]) {
      const model = tinyModel({
        inputs: [info('a', a), info('b', b)],
        outputs: [info('y')],
        nodes: [op(`${name} a b -> y`)],
      });
      const right = randomArray(b!, 2);
      checkGradients(model, { a: randomArray(a!, 1), b: { ...right, data: right.data.map((v) => v + Math.sign(v)) } });
    }
  });

  it('Sum adds any number of operands, the same one twice too', () => {
    const model = tinyModel({
      inputs: [info('a', [2, 3]), info('b', [3])],
      outputs: [info('y')],
      nodes: [op('Sum a b a -> y')],
    });
    checkGradients(model, { a: randomArray([2, 3], 1), b: randomArray([3], 2) });
  });
});
