import { describe, expect, it } from 'vitest';
import { gramProbe } from '../flow/gram-probe.js';
import { nodeEngine } from '../node/onnxruntime.js';
import { Graph } from '../onnx/graph.js';
import { findLayers, weightMatrix } from '../onnx/layers.js';
import { runProbes } from '../runtime/probe.js';
import { traceShapes } from '../runtime/trace.js';
import { normalBatches, tinyResNet } from '../testing/tiny-models.js';
import { correctedBias } from './bias-correction.js';
import { biasOf } from './placement.js';
import { dequantize, roundLayerNearest } from './round-layer.js';

const engine = nodeEngine({ threads: 1 });
const DIMS = [3, 8, 8];

describe('correctedBias', () => {
  it('restores the mean output of every channel over the calibration samples', async () => {
    const model = tinyResNet();
    const graph = new Graph(model);
    const layer = findLayers(graph).find((l) => l.name === 'block.a')!;
    const shapes = await traceShapes(engine, model, (await normalBatches('x', DIMS, 1, 1).next()).value!.feeds);
    const probe = gramProbe(layer, 1e6);
    const batches = normalBatches('x', DIMS, 16, 8);
    await runProbes({ engine, model, shapes, batches, probes: [probe], total: 16, stage: 'test' });
    const gram = probe.result();
    const weights = weightMatrix(graph, layer);
    const rounded = roundLayerNearest(layer, weights, 2, true);
    const corrected = correctedBias(graph, layer, rounded, gram)!;
    const bias = biasOf(graph, layer)!;
    const levels = dequantize(layer, rounded);
    const meanOutput = (matrix: Float32Array, own: Float32Array, row: number): number =>
      gram.mean.reduce((sum, m, i) => sum + m * matrix[row * layer.cols + i]!, own[row]!);
    let moved = 0;
    for (let row = 0; row < layer.rows; row++) {
      expect(meanOutput(levels, corrected, row)).toBeCloseTo(meanOutput(weights, bias, row), 4);
      moved += Math.abs(corrected[row]! - bias[row]!);
    }
    expect(moved).toBeGreaterThan(0.01);
  });

  it('leaves layers alone that have no statistics', () => {
    const graph = new Graph(tinyResNet());
    const layer = findLayers(graph)[0]!;
    const rounded = roundLayerNearest(layer, weightMatrix(graph, layer), 3, true);
    expect(correctedBias(graph, layer, rounded, undefined)).toBeUndefined();
  });
});
