import { describe, expect, it } from 'vitest';
import { nodeEngine } from '../node/onnxruntime.js';
import { Graph, rewrite } from '../onnx/graph.js';
import { findLayers } from '../onnx/layers.js';
import { makeTensor, readFloats } from '../onnx/tensor.js';
import { toBytes } from '../onnx/to-bytes.js';
import { traceShapes } from '../runtime/trace.js';
import { normalBatches, normals, tinyResNet } from '../testing/tiny-models.js';
import { openKlProbe, probeSamplesFor } from './kl-probe.js';
import { meanKl } from '../runtime/output-divergence.js';

const engine = nodeEngine({ threads: 1 });

describe('openKlProbe', () => {
  it('gives what the whole model with the changed layer gives, for every layer', async () => {
    const model = tinyResNet();
    const batch = (await normalBatches('x', [3, 8, 8], 6, 6).next()).value!;
    const shapes = await traceShapes(engine, model, (await normalBatches('x', [3, 8, 8], 1, 1).next()).value!.feeds);
    const graph = new Graph(model);
    const probe = await openKlProbe(engine, model, batch, shapes, model.graph!.output[0]!.name);
    expect(probe.kind).toBe('kl');
    const run = async (bytes: Uint8Array): Promise<{ dims: readonly number[]; data: unknown }> => {
      const session = await engine.createSession(bytes);
      const { logits } = await session.run(batch.feeds);
      await session.release();
      return logits!;
    };
    const reference = await run(toBytes(model));
    const layers = findLayers(graph);
    const groups = probe.groups(layers);
    expect(
      groups
        .flat()
        .map((l) => l.name)
        .sort(),
    ).toEqual(layers.map((l) => l.name).sort());
    // The two convolutions of the block share their starting point.
    expect(groups.map((g) => g.map((l) => l.name))).toContainEqual(['block.a', 'block.b']);
    const layerIn = (name: string): typeof layers => groups.find((g) => g.some((l) => l.name === name))!;
    for (const [i, layer] of layers.entries()) {
      const noise = normals(layer.params, 50 + i, 0.05);
      const changed = readFloats(graph.constant(layer.weight)!).map((w, k) => w + noise[k]!);
      const whole = rewrite(model, (g) => {
        const value = g.mustGet(layer.weight.name);
        g.setInitializer(value, makeTensor(value.name, 1, [...layer.dims], changed));
      });
      const expected = meanKl(reference as never, (await run(toBytes(whole))) as never);
      const original = readFloats(graph.constant(layer.weight)!);
      const requests = layerIn(layer.name).map((l) => ({ layer: l, variants: l === layer ? [changed, original] : [] }));
      const results = await probe.measure(requests);
      const [measured, none] = results[requests.findIndex((r) => r.layer === layer)]!;
      expect(expected).toBeGreaterThan(0);
      expect(measured).toBeCloseTo(expected, 5);
      expect(none).toBeCloseTo(0, 6);
    }
  });
});

describe('probeSamplesFor', () => {
  it('takes fewer samples where the runs on them would take long', async () => {
    const model = tinyResNet();
    const batch = (await normalBatches('x', [3, 8, 8], 1, 1).next()).value!;
    const shapes = await traceShapes(engine, model, batch.feeds);
    const few = probeSamplesFor(model, shapes, { wanted: 16, runs: 1e8 });
    expect(probeSamplesFor(model, shapes, { wanted: 16, runs: 10 })).toBe(16);
    expect(few).toBeGreaterThanOrEqual(1);
    expect(few).toBeLessThan(16);
    expect(probeSamplesFor(model, shapes, { wanted: 16, runs: 1e12 })).toBe(1);
  });
});
