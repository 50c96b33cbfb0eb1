import { describe, expect, it } from 'vitest';
import { Graph } from '../onnx/graph.js';
import { info, op, tinyModel } from '../testing/graph-writing.js';
import { guessFeeds } from './made-up-feeds.js';

describe('guessFeeds', () => {
  it('makes up floats that differ and are above 0, and masks of ones', () => {
    const model = tinyModel({
      inputs: [info('x', ['N', 4, 6]), info('mask', ['N', 3])],
      outputs: [info('y')],
      nodes: [op('ReduceSum x -> s'), op('Mul s mask -> y')],
    });
    const { feeds } = guessFeeds(new Graph(model), 2);
    const numbers = [...(feeds['x']!.data as Float32Array)];
    expect(feeds['x']!.dims).toEqual([2, 4, 6]);
    expect(new Set(numbers).size).toBe(48);
    expect(Math.min(...numbers)).toBeGreaterThan(0);
    expect(Math.max(...numbers)).toBeLessThanOrEqual(1);
    expect([...(feeds['mask']!.data as Float32Array)]).toEqual([1, 1, 1, 1, 1, 1]);
  });
});
