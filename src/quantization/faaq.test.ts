import { describe, expect, it } from 'vitest';
import { magnitudeProbes } from '../flow/magnitude.js';
import { nodeEngine } from '../node/onnxruntime.js';
import { Graph } from '../onnx/graph.js';
import { findLayers } from '../onnx/layers.js';
import { traceShapes } from '../runtime/trace.js';
import { normalBatches, tinyResNet } from '../testing/tiny-models.js';
import { faaq } from './faaq.js';
import type { QuantizationContext, QuantizationSettings } from './method.js';

const engine = nodeEngine({ threads: 1 });
const DIMS = [3, 8, 8];

async function contextOf(settings: Partial<QuantizationSettings> = {}): Promise<QuantizationContext> {
  const model = tinyResNet();
  const graph = new Graph(model);
  const layers = findLayers(graph);
  const one = (await normalBatches('x', DIMS, 1, 1).next()).value!;
  const shapes = await traceShapes(engine, model, one.feeds);
  const { probes, result } = magnitudeProbes(graph, layers, []);
  return {
    ...{ engine, model, layers, shapes, quantizable: new Set(), attentionLayers: new Set() },
    calibration: () => normalBatches('x', DIMS, 16, 8),
    calibrationSamples: 16,
    scores: 'logits',
    fixedBatch: undefined,
    probeBatch: async () => (await normalBatches('x', DIMS, 8, 8).next()).value!,
    flow: () => ({
      probes,
      result: () =>
        new Map(
          layers.map(({ name, params }) => {
            const { flow } = result().layers.get(name)!;
            return [name, { flow, weightMean: 0, weightStd: 1, weightNorm: 1, params }];
          }),
        ),
    }),
    settings: {
      ...{ minBits: 2, maxBits: 8, edgeBits: 8, attentionBits: 4, sensitivity: 'measured', rounding: 'compensated' },
      ...{ gradientBits: 4, sensitivityMode: 'corrected', gradientTerm: 'g', probeSamples: 8, seed: 0, ...settings },
    },
    control: {},
    warn: () => undefined,
  };
}

describe('faaq', () => {
  it('corrects the biases of layers of up to 6 bits, and of no others', async () => {
    const context = await contextOf();
    const params = context.layers.reduce((sum, layer) => sum + layer.params, 0);
    const prepared = await faaq.prepare(context);
    const { weights, findings } = await prepared.quantize({ codeBytes: (params * 5) / 8 });
    const narrow = findings.filter(({ bits }) => bits <= 6).map(({ name }) => name);
    const corrected = [...weights].filter(([, { bias }]) => bias !== undefined).map(([name]) => name);
    expect(narrow).toEqual(['block.a', 'block.b']);
    expect(corrected).toEqual(narrow);
  });

  it.each([6, 7])('draws the line between 6 and 7 bits (%i)', async (width) => {
    const prepared = await faaq.prepare(await contextOf({ minBits: width, maxBits: width, edgeBits: width }));
    const { weights } = await prepared.quantize({ codeBytes: 1e6 });
    for (const { bias } of weights.values()) expect(bias !== undefined).toBe(width === 6);
  });

  it('corrects none where weights are rounded to nearest', async () => {
    const prepared = await faaq.prepare(await contextOf({ rounding: 'nearest' }));
    const { weights } = await prepared.quantize({ codeBytes: 1e6, minBits: 2 });
    for (const { bias } of weights.values()) expect(bias).toBeUndefined();
  });
});
