import type { ModelProto } from 'onnx-buf';
import { describe, expect, it } from 'vitest';
import { traceDims } from '../../runtime/trace.js';
import { distance, engine, info, ints, op, opsOf, run, tensorFeed, tinyModel } from '../../testing/graph-writing.js';
import { intsAttribute } from '../attributes.js';
import { rewrite } from '../graph.js';
import { shuffleToGather } from './shuffle-to-gather.js';

const feeds = { x: tensorFeed([2, 12, 3, 5]) };

/** x [N, 12, 3, 5], reshaped, transposed and reshaped to `last`. */
function shuffled(split: readonly number[], perm: readonly number[], last = [0, 12, 3, 5], more = false): ModelProto {
  return tinyModel({
    inputs: [info('x', ['N', 12, 3, 5])],
    outputs: [info('y', ['a', 'b', 'c', 'd']), ...(more ? [info('t')] : [])],
    nodes: [
      op('Reshape x split -> r'),
      op('Transpose r -> t', [intsAttribute('perm', perm)]),
      op('Reshape t last -> y'),
    ],
    initializers: [ints('split', split), ints('last', last)],
  });
}

async function rewritten(model: ModelProto): Promise<string[]> {
  const shapes = await traceDims(engine, model, feeds);
  const result = rewrite(model, (graph) => {
    shuffleToGather(graph, shapes);
  });
  expect(distance(await run(model, feeds), await run(result, feeds))).toBe(0);
  return opsOf(result);
}

describe('shuffleToGather', () => {
  it.each([
    { split: [0, 3, 4, 3, 5], perm: [0, 2, 1, 3, 4] },
    { split: [0, 3, 4, 15], perm: [0, 2, 1, 3], left: true },
    { split: [0, 2, 3, 2, 3, 5], perm: [0, 3, 1, 2, 4, 5] },
    { split: [0, 2, 1, 6, 1, 3, 5], perm: [0, 3, 2, 1, 4, 5, 6] },
    { split: [0, 12, 3, 1, 5], perm: [0, 1, 3, 2, 4] },
  ])('$split $perm', async ({ split, perm, left }) => {
    const plain = ['Reshape', 'Transpose', 'Reshape'];
    const moves = perm.filter((axis) => split[axis] !== 1).some((axis, at, all) => at > 0 && axis < all[at - 1]!);
    // Other axes that are merged on the way are not followed.
    expect(await rewritten(shuffled(split, perm))).toEqual(moves && !left ? ['Gather'] : plain);
  });

  it('leaves what exchanges elements of two axes, changes the shape, or is read on the way', async () => {
    expect(await rewritten(shuffled([0, 3, 4, 3, 5], [0, 3, 2, 1, 4]))).toHaveLength(3);
    expect(await rewritten(shuffled([0, 3, 4, 3, 5], [0, 2, 1, 3, 4], [0, 4, 3, 15]))).toHaveLength(3);
    expect(await rewritten(shuffled([0, 3, 4, 3, 5], [0, 2, 1, 3, 4], undefined, true))).toHaveLength(3);
  });
});
