/** A network of the same shape that knows nothing: weights drawn anew. */
import type { ModelProto } from 'onnx-buf';
import { randomStream, seedOf } from '../data/random.js';
import { DataType } from '../onnx/dtypes.js';
import { rewrite, type Graph } from '../onnx/graph.js';
import { findLayers } from '../onnx/layers.js';
import { makeTensor, readFloats } from '../onnx/tensor.js';
import { trainableParameters } from '../training/parameters.js';
import { rootMeanSquare } from './learned.js';

/**
 * Weights of layers are normal with variance 2 / fan-in (He et al. 2015), biases and shifts 0, scales of normalizations 1; other
 * tables, such as positions, are normal in the size that they had.
 */
export function renewed(model: ModelProto, seed: number): ModelProto {
  return rewrite(model, (graph: Graph) => {
    const fanIn = new Map(
      findLayers(graph).map(({ op, weight, cols }) => [weight.name, op === 'Gather' ? undefined : cols]),
    );
    for (const [i, { name, dims, size }] of trainableParameters(graph).entries()) {
      const value = graph.mustGet(name);
      const random = randomStream(seedOf(seed, i, 7001));
      const normal = (scale: number): Float32Array =>
        Float32Array.from({ length: size }, () => scale * random.normal());
      const uses = [...value.uses];
      const isNorm = uses.some(({ node }) => node.opType.endsWith('Normalization'));
      const inputs = fanIn.get(name);
      let data: Float32Array;
      if (inputs !== undefined) data = normal(Math.sqrt(2 / inputs));
      else if (isNorm) data = new Float32Array(size).fill(uses.some(({ index }) => index === 1) ? 1 : 0);
      else if (dims.filter((d) => d > 1).length <= 1) data = new Float32Array(size);
      else data = normal(rootMeanSquare(readFloats(value.initializer!)));
      graph.setInitializer(value, makeTensor(name, DataType.FLOAT, dims, data));
    }
  });
}
