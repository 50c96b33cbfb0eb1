/** Matrix products: what they make is 0 for a removed unit only where their bias is as well. */
import { describe, expect, it } from 'vitest';
import { intAttribute } from '../../onnx/attributes.js';
import { info, ints, op, tensorFeed, tinyModel, weights } from '../../testing/graph-writing.js';
import { cutAndCheck } from '../../testing/random-cuts.js';

describe('Gemm', () => {
  it.each([
    { name: 'a bias per neuron', bias: [6], units: [6] },
    { name: 'a bias for all neurons, which is left where one is removed', bias: [1], units: [] },
  ])('$name, and a sum over the neurons', async ({ bias, units }) => {
    const model = tinyModel({
      inputs: [info('x', ['N', 3])],
      outputs: [info('y', ['N', 4])],
      nodes: [
        op('Gemm x w b -> h', [], 'first'),
        op('ReduceSum h one -> s'),
        op('Mul h s -> z'),
        op('Gemm z v -> y', [intAttribute('transB', 1)]),
      ],
      initializers: [weights('w', [3, 6]), weights('b', bias, 2), weights('v', [4, 6], 3), ints('one', [1])],
    });
    const { dependencies } = await cutAndCheck(model, { x: tensorFeed([2, 3]) });
    expect(dependencies.groups.map((group) => group.units.length)).toEqual(units);
  });
});
