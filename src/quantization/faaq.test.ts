import { describe, expect, it } from 'vitest';
import { magnitudeProbes } from '../flow/magnitude.js';
import { nodeEngine } from '../node/onnxruntime.js';
import { Graph } from '../onnx/graph.js';
import { findLayers } from '../onnx/layers.js';
import { traceShapes } from '../runtime/trace.js';
import { normalBatches, tinyResNet } from '../testing/tiny-models.js';
import { averageBits } from '../commands/quantize/bit-budget.js';
import { faaq } from './faaq.js';
import { formatOf, storedBytes } from './format.js';
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
      ...{
        gradientBits: 4,
        sensitivityMode: 'corrected',
        gradientTerm: 'g',
        probeSamples: 8,
        seed: 0,
        formats: ['uniform'],
        ...settings,
      },
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

  it.each([4, 5])(
    'takes codebooks where they do less damage for their bytes, and none where they are not allowed (%i bits)',
    async (width) => {
      const context = await contextOf({ formats: ['uniform', 'codebook'] });
      const params = context.layers.reduce((sum, layer) => sum + layer.params, 0);
      const budget = { codeBytes: Math.floor((params * width) / 8) };
      const outcome = await (await faaq.prepare(context)).quantize(budget);
      const formats = [...outcome.weights.values()].map(({ grid }) => formatOf(grid));
      expect(formats.map(({ kind }) => kind)).toContain('codebook');
      const stored = context.layers.reduce((sum, layer, i) => sum + storedBytes(layer.params, formats[i]!), 0);
      expect(stored).toBeLessThanOrEqual(budget.codeBytes);
      for (const { grid, codes } of outcome.weights.values())
        if (grid.levels) expect(codes.every((code) => grid.levels!.includes(code))).toBe(true);
      const even = await (await faaq.prepare(await contextOf())).quantize(budget);
      expect([...even.weights.values()].every(({ grid }) => formatOf(grid).kind === 'uniform')).toBe(true);
      // As many bits as came out have room for the same again, and for nothing else.
      expect(Math.floor((params * averageBits(outcome)) / 8 + 1e-6)).toBe(stored);
    },
  );

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
