import { describe, expect, it } from 'vitest';
import { Graph } from '../onnx/graph.js';
import { readFloats } from '../onnx/tensor.js';
import { traceDims } from '../runtime/trace.js';
import { Builder } from '../testing/flow-models.js';
import { engine, tensorFeed } from '../testing/graph-writing.js';
import { convNet } from '../testing/tiny-net.js';
import { dependencyGroups } from './groups.js';
import { keptScales, normScales } from './norm-scales.js';

describe('scales of normalizations', () => {
  it('are those of the units, wherever a layer makes them', async () => {
    const model = convNet();
    const dependencies = dependencyGroups(model, await traceDims(engine, model, { image: tensorFeed([2, 3, 8, 8]) }));
    const scales = normScales(new Graph(model), dependencies);
    const gamma = Float64Array.from(readFloats(new Graph(model).mustGet('gamma').initializer!), Math.abs);
    expect(gamma.some((v, i) => v !== readFloats(new Graph(model).mustGet('gamma').initializer!)[i])).toBe(true);
    // The depthwise and the second convolution make the channels that the sum ties to the first.
    for (const layer of ['first', 'depthwise', 'point']) expect(scales.get(layer)).toEqual(gamma);
    expect([...scales.get('head')!].every(Number.isNaN)).toBe(true);
  });

  it('are means over several normalizations, in front of readers too; scales that are all alike say nothing', async () => {
    const b = new Builder(17, 7);
    const norm = (x: Parameters<Builder['op']>[1][number], scale: readonly number[]) =>
      b.op('BatchNormalization', [
        x,
        b.constant([3], Float32Array.from(scale)),
        b.weight([3]),
        b.weight([3]),
        b.constant([3], Float32Array.of(1, 2, 3)),
      ]);
    const stem = b.conv(b.input('x', [2, 6, 6]), [3, 2, 3, 3]);
    const before = norm(stem, [1, -2, 3]);
    const again = norm(b.op('Relu', [before]), [5, 0, -1]);
    const inner = norm(b.conv(again, [3, 3, 3, 3]), [1, 1, 1]);
    const out = b.conv(b.op('Relu', [inner]), [2, 3, 1, 1]);
    const model = b.done(out);
    const dependencies = dependencyGroups(model, await traceDims(engine, model, { x: tensorFeed([2, 2, 6, 6]) }));
    const [first, second] = [...normScales(new Graph(model), dependencies).values()];
    expect([...first!]).toEqual([3, 1, 2]);
    expect([...second!].every(Number.isNaN)).toBe(true);
  });

  it('follow the channels that are left', () => {
    const scales = new Map([
      ['a', Float64Array.of(1, 2, 3, 4)],
      ['b', Float64Array.of(5, 6)],
    ]);
    const left = keptScales(scales, new Map([['a', [0, 3]]]));
    expect([...left.get('a')!]).toEqual([1, 4]);
    expect([...left.get('b')!]).toEqual([5, 6]);
  });
});
