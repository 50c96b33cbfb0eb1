import { describe, expect, it } from 'vitest';
import { nodeEngine } from '../node/onnxruntime.js';
import { runProbes } from '../runtime/probe.js';
import { traceShapes, traceValues } from '../runtime/trace.js';
import { normalBatches, tinyResNet } from '../testing/tiny-models.js';
import { histogramProbe, rangeProbe } from './activation-probe.js';

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
});
