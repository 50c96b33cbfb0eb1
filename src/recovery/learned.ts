/**
 * Tensors of a graph that learn, counted in units of their own size: of a row's weights, of a layer's biases. Adam moves all
 * parameters by about the learning rate, whatever their gradients, so the rate is a relative one that means the same in every
 * layer.
 */
import { DataType } from '../onnx/dtypes.js';
import type { Graph, Value } from '../onnx/graph.js';
import { fromMatrix, toMatrix, type WeightLayer } from '../onnx/layers.js';
import { formula } from '../onnx/ops.js';
import { makeTensor } from '../onnx/tensor.js';
import type { Parameter } from '../training/parameters.js';

/** A unit where all values are zero. */
export const NO_SCALE = 1e-12;

/** A parameter with the units that its values count in: one number per element. */
export interface LearnedTensor {
  readonly name: string;
  readonly units: Float32Array;
}

export interface Learner {
  /** In their order. */
  readonly parameters: readonly Parameter[];
  /** A parameter of these first values, and its value in units. */
  learn(
    name: string,
    dims: readonly number[],
    values: Float32Array,
    units: Float32Array,
  ): readonly [LearnedTensor, Value];
  /** What a value in a tensor's units stands for. */
  inUnits(value: Value, tensor: LearnedTensor, dims: readonly number[]): Value;
  /** A bias under a name of its own, once: layers may share it. @param weights of the layer, for the size of biases of 0 */
  learnBias(name: string, bias: Float32Array, weights: Float32Array): readonly [LearnedTensor, Value];
}

export function learnerOn(graph: Graph): Learner {
  const parameters: Parameter[] = [];
  const biases = new Map<string, readonly [LearnedTensor, Value]>();
  const calc = formula(graph);
  const learn: Learner['learn'] = (name, dims, values, units) => {
    const info = makeTensor(
      graph.uniqueName(name),
      DataType.FLOAT,
      dims,
      values.map((v, i) => v / units[i]!),
    );
    parameters.push({ name: info.name, dims, size: values.length, decays: false });
    return [{ name: info.name, units }, graph.addInitializer(info)];
  };
  const inUnits: Learner['inUnits'] = (value, { units }, dims) =>
    calc('Mul', value, graph.addInitializer(makeTensor(graph.uniqueName('units'), DataType.FLOAT, dims, units)));
  return {
    parameters,
    learn,
    inUnits,
    learnBias(name, bias, weights) {
      const known = biases.get(name);
      if (known) return known;
      const unit = Math.max(rootMeanSquare(bias), rootMeanSquare(weights), NO_SCALE);
      const [tensor, value] = learn(name, [bias.length], bias, new Float32Array(bias.length).fill(unit));
      const learned = [tensor, inUnits(value, tensor, [bias.length])] as const;
      biases.set(name, learned);
      return learned;
    },
  };
}

/** The size of an element's channel, for every element of a weight tensor. */
export function channelUnits(layer: WeightLayer, weights: Float32Array): Float32Array {
  const matrix = toMatrix(layer, weights);
  const perChannel = matrix.length / layer.channels;
  const sizes = Array.from({ length: layer.channels }, (_, c) =>
    Math.max(rootMeanSquare(matrix.subarray(c * perChannel, (c + 1) * perChannel)), NO_SCALE),
  );
  return fromMatrix(
    layer,
    matrix.map((_, i) => sizes[Math.floor(i / perChannel)]!),
  );
}

/** Values of the parameters by name. @param flat all of them, end to end */
export function valuesOf(parameters: readonly Parameter[], flat: Float32Array): Map<string, Float32Array> {
  const values = new Map<string, Float32Array>();
  let at = 0;
  for (const { name, size } of parameters) values.set(name, flat.subarray(at, (at += size)));
  return values;
}

export function rootMeanSquare(values: Float32Array): number {
  return Math.sqrt(values.reduce((sum, v) => sum + v * v, 0) / Math.max(values.length, 1));
}
