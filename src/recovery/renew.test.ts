import { describe, expect, it } from 'vitest';
import { Graph } from '../onnx/graph.js';
import { findLayers, weightMatrix } from '../onnx/layers.js';
import { readFloats } from '../onnx/tensor.js';
import { toBytes } from '../onnx/to-bytes.js';
import { tinyResNet } from '../testing/tiny-models.js';
import { rootMeanSquare } from './learned.js';
import { renewed } from './renew.js';

describe('renewed', () => {
  const model = tinyResNet(17, 32);
  const graph = new Graph(renewed(model, 5));

  it('keeps the network and draws its weights as He et al. do, biases 0', () => {
    const before = new Graph(model);
    expect(graph.nodes.map(({ opType }) => opType)).toEqual(before.nodes.map(({ opType }) => opType));
    for (const [i, layer] of findLayers(graph).entries()) {
      const weights = weightMatrix(graph, layer);
      expect(rootMeanSquare(weights) / Math.sqrt(2 / layer.cols), layer.name).toBeGreaterThan(0.8);
      expect(rootMeanSquare(weights) / Math.sqrt(2 / layer.cols), layer.name).toBeLessThan(1.2);
      const old = weightMatrix(before, findLayers(before)[i]!);
      const alike = weights.reduce((sum, w, i) => sum + w * old[i]!, 0);
      const scale = weights.length * rootMeanSquare(weights) * rootMeanSquare(old);
      expect(Math.abs(alike / scale), layer.name).toBeLessThan(0.3);
      const bias = layer.biasSlot?.node.inputs[layer.biasSlot.index];
      expect([...new Set(readFloats(bias!.initializer!))]).toEqual([0]);
    }
  });

  it('hangs on the seed alone', () => {
    expect(toBytes(renewed(model, 5))).toEqual(toBytes(graph.toModel()));
    expect(toBytes(renewed(model, 6))).not.toEqual(toBytes(graph.toModel()));
  });
});
