import { describe, expect, it } from 'vitest';
import { distance, info, op, opsOf, run, tensorFeed, tinyModel } from '../../testing/graph-writing.js';
import { rewrite } from '../graph.js';
import { dropRepeatedRelu } from './drop-repeated-relu.js';

const model = tinyModel({
  inputs: [info('x', ['N', 4])],
  outputs: [info('y', ['N', 4]), info('z', ['N', 4])],
  nodes: [op('Relu x -> a'), op('Relu a -> b'), op('Relu b -> c'), op('Neg c -> y'), op('Relu c -> z')],
});

describe('dropRepeatedRelu', () => {
  it('leaves one of a chain, and what the model gives', async () => {
    const after = rewrite(model, dropRepeatedRelu);
    expect(opsOf(after).sort()).toEqual(['Neg', 'Relu', 'Relu']);
    const feeds = { x: tensorFeed([3, 4]) };
    expect(distance(await run(model, feeds), await run(after, feeds))).toBe(0);
  });
});
