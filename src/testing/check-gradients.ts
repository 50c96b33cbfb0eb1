/** Gradients of a model against central differences, both in the float64 of the reference evaluator. */
import type { ModelProto } from 'onnx-buf';
import type { Graph, Value } from '../onnx/graph.js';
import { reduce } from '../onnx/ops.js';
import { makeTensor } from '../onnx/tensor.js';
import { gradientModel } from './gradient-model.js';
import { array, sizeOf, type NdArray } from './reference/array.js';
import { evaluate } from './reference/evaluate.js';
import { normals } from './tiny-models.js';

export interface GradientCheck {
  /** Graph inputs and initializers whose gradients are compared; all float graph inputs by default. */
  readonly wanted?: readonly string[];
  /** Largest difference relative to the larger of 1 and the largest gradient of that value. */
  readonly tolerance?: number;
  /** Outputs that enter the loss; all of them by default. */
  readonly outputs?: readonly string[];
}

const STEP = 1e-5;

/**
 * The loss is the sum of all outputs, each element times a fixed random number.
 * @param given values of the graph inputs
 * @returns the gradients, when they agree
 * @throws Error naming the value and element that differ
 */
export function checkGradients(
  model: ModelProto,
  given: Readonly<Record<string, NdArray>>,
  check: GradientCheck = {},
): Map<string, NdArray> {
  const { tolerance = 1e-6 } = check;
  const wanted = check.wanted ?? Object.keys(given);
  const forward = evaluate(model, given);
  const gradients = gradientModel(model, [given], {
    wanted,
    outputs: check.outputs,
    loss: (graph, outputs) => weightedSum(graph, outputs, forward),
  });
  const found = evaluate(gradients.model, given);
  const lossAt = (name: string, changed: NdArray): number =>
    evaluate(gradients.lossModel, { ...given, [name]: changed }).get(gradients.loss)!.data[0]!;
  const result = new Map<string, NdArray>();
  for (const name of wanted) {
    const value = forward.get(name)!;
    const gradient = gradients.names.get(name);
    const analytic = gradient === undefined ? array(value.dims) : found.get(gradient)!;
    if (analytic.dims.join() !== value.dims.join())
      throw new Error(`the gradient of ${name} is [${analytic.dims.join()}], not [${value.dims.join()}]`);
    const numeric = value.data.map((x, i) => {
      const moved = (by: number): NdArray => ({ dims: value.dims, data: value.data.with(i, x + by) });
      return (lossAt(name, moved(STEP)) - lossAt(name, moved(-STEP))) / (2 * STEP);
    });
    const scale = Math.max(1, ...numeric.map(Math.abs));
    numeric.forEach((expected, i) => {
      const actual = analytic.data[i]!;
      if (!(Math.abs(actual - expected) <= tolerance * scale))
        throw new Error(`gradient of ${name}[${String(i)}]: ${String(actual)}, by differences ${String(expected)}`);
    });
    result.set(name, analytic);
  }
  return result;
}

/** Adds the loss: every element of the outputs times a fixed random weight, summed. */
function weightedSum(graph: Graph, outputs: readonly Value[], values: ReadonlyMap<string, NdArray>): Value {
  const parts = outputs.map((output, k) => {
    const { dims } = values.get(output.name)!;
    const weights = makeTensor(graph.uniqueName('loss weights'), 1, dims, normals(sizeOf(dims), 900 + k));
    return reduce(graph, 'ReduceSum', graph.insertOp('Mul', [output, graph.addInitializer(weights)]));
  });
  return parts.length === 1 ? parts[0]! : graph.insertOp('Sum', parts);
}

/** Random normal numbers, in float64. */
export function randomArray(dims: readonly number[], seed: number, scale = 1): NdArray {
  return array(dims, normals(sizeOf(dims), seed, scale));
}
