import { describe, expect, it } from 'vitest';
import { nodeEngine } from '../node/onnxruntime.js';
import { runProbes } from '../runtime/probe.js';
import { Graph } from '../onnx/graph.js';
import { traceShapes, traceValues } from '../runtime/trace.js';
import { info, ints, op, tinyModel } from '../testing/graph-writing.js';
import { normalBatches, tinyResNet } from '../testing/tiny-models.js';
import { histogramProbe, rangeProbe, sameElements } from './activation-probe.js';

const engine = nodeEngine({ threads: 1 });
const DIMS = [3, 8, 8];

describe('range and histogram probes', () => {
  it('see the smallest and largest value of every tensor over all batches, 0 included', async () => {
    const model = tinyResNet();
    const all = (await normalBatches('x', DIMS, 12, 12).next()).value!;
    const shapes = await traceShapes(engine, model, (await normalBatches('x', DIMS, 1, 1).next()).value!.feeds);
    const values = await traceValues(engine, model, all.feeds);
    const names = ['x', 'stem.y', 'stem.relu', 'block.sum', 'flat', 'logits'];
    const ranges = names.map((name) => rangeProbe(name));
    const histogram = histogramProbe('block.sum', 1e6);
    const batches = normalBatches('x', DIMS, 12, 5);
    await runProbes({ engine, model, shapes, batches, probes: [...ranges, histogram], total: 12, stage: 'test' });
    names.forEach((name, i) => {
      const data = values.get(name)!.data as Float32Array;
      const { min, max } = ranges[i]!.result();
      expect(min).toBeCloseTo(Math.min(0, ...data), 4);
      expect(max).toBeCloseTo(Math.max(0, ...data), 4);
    });
    expect(histogram.result().total).toBe(values.get('block.sum')!.data.length);
  });

  it('share what holds the same elements, and nothing else', () => {
    const graph = new Graph(
      tinyModel({
        inputs: [info('x', [1, 4, 6])],
        outputs: [info('y')],
        initializers: [ints('shape', [6, 4])],
        nodes: [op('Relu x -> a'), op('Transpose a -> b'), op('Reshape b shape -> c'), op('Slice c shape shape -> y')],
      }),
    );
    const sources = ['x', 'a', 'b', 'c', 'y'].map((name) => sameElements(graph.mustGet(name)).name);
    expect(sources).toEqual(['x', 'a', 'a', 'a', 'y']);
  });
});
