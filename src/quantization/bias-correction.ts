/** Bias correction: the mean shift that rounded weights cause in a layer's output is taken out of its bias. */
import type { Gram } from '../flow/gram-probe.js';
import type { Graph } from '../onnx/graph.js';
import { weightMatrix, type WeightLayer } from '../onnx/layers.js';
import { biasOf } from './placement.js';
import { dequantize, type RoundedLayer } from './round-layer.js';

/**
 * b + E[(w - wq) x] per output channel, with E[x] from the calibration pass.
 * @returns undefined when the layer has no place for a bias or no statistics.
 */
export function correctedBias(
  graph: Graph,
  layer: WeightLayer,
  rounded: Pick<RoundedLayer, 'codes' | 'scales' | 'grid'>,
  gram: Gram | undefined,
): Float32Array | undefined {
  const bias = biasOf(graph, layer);
  if (!bias || !gram || layer.rows !== layer.channels) return undefined;
  const weights = weightMatrix(graph, layer);
  const levels = dequantize(layer, rounded);
  const { rows, cols, groups } = layer;
  return Float32Array.from(bias, (b, row) => {
    const group = Math.floor((row * groups) / rows);
    let shift = 0;
    for (let i = 0; i < cols; i++)
      shift += (weights[row * cols + i]! - levels[row * cols + i]!) * gram.mean[group * cols + i]!;
    return b + shift;
  });
}
