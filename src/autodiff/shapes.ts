/** Shapes and constants as gradient rules need them: known, or known but for the batch. */
import { FlowCompressError } from '../errors.js';
import type { Value } from '../onnx/graph.js';
import { constantOf, reshape } from '../onnx/ops.js';
import { readTensor } from '../onnx/tensor.js';
import type { GradientContext, Shape } from './rule.js';

/** Every size, or undefined where one varies. */
export function knownShape(shape: Shape): number[] | undefined {
  return shape.every((size) => size !== undefined) ? [...shape] : undefined;
}

/** Number of elements; undefined where a size varies. */
export function elementsOf(shape: Shape): number | undefined {
  return knownShape(shape)?.reduce((a, b) => a * b, 1);
}

/** The shape as Reshape takes it, with -1 for the one size that varies; undefined where there are more, or empty ones. */
export function reshapeTarget(shape: Shape): number[] | undefined {
  const varying = shape.filter((size) => size === undefined).length;
  return varying > 1 || shape.includes(0) ? undefined : shape.map((size) => size ?? -1);
}

/** The same elements in the shape of another value. */
export function reshapeLike({ graph, shapeOf }: GradientContext, x: Value, like: Value): Value {
  const target = reshapeTarget(shapeOf(like));
  return target ? reshape(graph, x, target) : graph.insertOp('Reshape', [x, graph.insertOp('Shape', [like])]);
}

/** Zeros in the shape of a value; a constant of the session where that shape is known. */
export function zerosLike({ graph, shapeOf }: GradientContext, like: Value): Value {
  const known = knownShape(shapeOf(like));
  const dims = known ? constantOf(graph, known, 'int64') : graph.insertOp('Shape', [like]);
  return graph.insertOp('ConstantOfShape', [dims]);
}

/**
 * The integers of a constant input; undefined where the input is left out. Bounds beyond the safe integers are rounded.
 * @param what names the input in the message
 * @throws FlowCompressError `unsupported` for an input computed at run time
 */
export function constantInts({ graph, node }: GradientContext, input: number, what: string): number[] | undefined {
  const value = node.inputs[input];
  if (!value) return undefined;
  const constant = graph.constant(value);
  if (!constant)
    throw new FlowCompressError('unsupported', `The ${what} of this ${node.opType} are computed at run time.`, {
      node: node.label,
      hint: `Export the model with constant ${what}.`,
    });
  return Array.from<number | bigint, number>(readTensor(constant), Number);
}
