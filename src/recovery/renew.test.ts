import { describe, expect, it } from 'vitest';
import { Graph } from '../onnx/graph.js';
import { findLayers, weightMatrix } from '../onnx/layers.js';
import { readFloats } from '../onnx/tensor.js';
import { toBytes } from '../onnx/to-bytes.js';
import { info, op, tinyModel, weights } from '../testing/graph-writing.js';
import { tinyResNet } from '../testing/tiny-models.js';
import { rootMeanSquare } from './learned.js';
import { renewed } from './renew.js';

describe('renewed', () => {
  const model = tinyResNet(17, 32);
  const graph = new Graph(renewed(model, 5));

  it('keeps the network and draws its layers uniformly within 1 / sqrt(fan in), biases 0', () => {
    const before = new Graph(model);
    expect(graph.nodes.map(({ opType }) => opType)).toEqual(before.nodes.map(({ opType }) => opType));
    for (const [i, layer] of findLayers(graph).entries()) {
      const weights = weightMatrix(graph, layer);
      const bound = 1 / Math.sqrt(layer.cols);
      expect(Math.max(...weights.map(Math.abs)) / bound, layer.name).toBeLessThanOrEqual(1);
      expect(rootMeanSquare(weights) / bound / Math.sqrt(1 / 3), layer.name).toBeGreaterThan(0.8);
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

  it('leaves normalizations as if nothing had run through them, factors at 1 and slopes of PRelu at 0.25', () => {
    const net = tinyModel({
      inputs: [info('x', ['N', 3, 4, 4])],
      outputs: [info('y', ['N', 5, 4, 4])],
      nodes: [
        op('Conv x w -> c'),
        op('BatchNormalization c scale shift mean variance -> n'),
        op('PRelu n slope -> p'),
        op('Mul p factor -> m'),
        op('Add m table -> y'),
      ],
      initializers: [
        weights('w', [5, 3, 1, 1], 1),
        ...['scale', 'shift', 'mean', 'variance'].map((name, i) => weights(name, [5], 2 + i)),
        weights('slope', [5, 1, 1], 6),
        weights('factor', [5, 1, 1], 7),
        weights('table', [5, 4, 4], 8),
      ],
    });
    const fresh = new Graph(renewed(net, 3));
    const valuesOf = (name: string): number[] => [...readFloats(fresh.mustGet(name).initializer!)];
    const alike = { scale: 1, shift: 0, mean: 0, variance: 1, slope: 0.25, factor: 1 };
    for (const [name, value] of Object.entries(alike)) expect(valuesOf(name), name).toEqual(Array(5).fill(value));
    expect(rootMeanSquare(Float32Array.from(valuesOf('table'))) / 0.02).toBeGreaterThan(0.8);
    expect(rootMeanSquare(Float32Array.from(valuesOf('table'))) / 0.02).toBeLessThan(1.2);
  });
});
