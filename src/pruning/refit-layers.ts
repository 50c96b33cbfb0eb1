/** After a cut: every layer that reads fewer channels than before is re-fitted to what it computed from all of them. */
import type { ModelProto } from 'onnx-buf';
import type { Gram } from '../flow/gram-probe.js';
import { Graph } from '../onnx/graph.js';
import { findLayers, weightMatrix } from '../onnx/layers.js';
import { readFloats } from '../onnx/tensor.js';
import type { LayerUnits } from './layer-units.js';
import { refit } from './refit.js';
import { setLayer } from './set-layer.js';

/**
 * @param original the model that `layers` and `grams` are of
 * @param cut the same without the classes that are marked with 1 in `removed`
 * @param grams by layer name; layers without one keep their weights
 */
export function refitLayers(
  original: ModelProto,
  cut: ModelProto,
  layers: readonly LayerUnits[],
  removed: Uint8Array,
  grams: ReadonlyMap<string, Gram>,
): ModelProto {
  const before = new Graph(original);
  const graph = new Graph(cut);
  const left = new Map(findLayers(graph).map((layer) => [layer.name, layer]));
  for (const { layer, made, read, taps } of layers) {
    const gram = grams.get(layer.name);
    const target = left.get(layer.name);
    const goes = (unit: number): boolean => unit >= 0 && removed[unit] === 1;
    // A transposed convolution has several rows per channel, but one bias.
    if (!gram || !target?.biasSlot || layer.op === 'ConvTranspose' || !read?.some(goes)) continue;
    // Weights that other layers read too would be pulled two ways.
    if (target.weight.uses.size > 1) continue;
    const rows = [...made.keys()].filter((row) => !goes(made[row]!));
    const kept = [...read.keys()]
      .filter((channel) => !goes(read[channel]!))
      .flatMap((channel) => Array.from({ length: taps }, (_, tap) => channel * taps + tap));
    const whole = weightMatrix(before, layer);
    const weights = new Float32Array(rows.length * layer.cols);
    rows.forEach((row, i) => weights.set(whole.subarray(row * layer.cols, (row + 1) * layer.cols), i * layer.cols));
    const found = refit(weights, gram, kept);
    const { node, index } = target.biasSlot;
    const bias = node.inputs[index]?.initializer && readFloats(node.inputs[index].initializer);
    setLayer(graph, target, {
      weights: Float32Array.from(found.weights),
      bias: Float32Array.from(found.shift, (by, i) => by + (bias?.[i] ?? 0)),
    });
  }
  return graph.toModel();
}
