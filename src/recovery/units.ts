/** Sizes of what learns: parameters are counted in units of them, so that one learning rate means the same everywhere. */
import { fromMatrix, toMatrix, type WeightLayer } from '../onnx/layers.js';

/** The unit of what is all zero. */
export const NO_SIZE = 1e-12;

export function rootMeanSquare(values: Float32Array): number {
  return Math.sqrt(values.reduce((sum, v) => sum + v * v, 0) / Math.max(values.length, 1));
}

/** The size of an element's channel, for every element of a weight tensor. */
export function channelSizes(layer: WeightLayer, weights: Float32Array): Float32Array {
  const matrix = toMatrix(layer, weights);
  const perChannel = matrix.length / layer.channels;
  const sizes = Array.from({ length: layer.channels }, (_, c) =>
    Math.max(rootMeanSquare(matrix.subarray(c * perChannel, (c + 1) * perChannel)), NO_SIZE),
  );
  return fromMatrix(
    layer,
    matrix.map((_, i) => sizes[Math.floor(i / perChannel)]!),
  );
}
