/** Operators inserted from code, in the form that the model's opset asks for. Opset 13 or newer is assumed. */
import { TensorProto_DataType as DataType } from 'onnx-buf';
import { intAttribute, intsAttribute } from './attributes.js';
import type { Graph, Node, Value } from './graph.js';
import { makeTensor } from './tensor.js';

/** A small int64 or float32 tensor constant with the given values, under a fresh name. Shape [n], or [] for `scalar`. */
export function constantOf(
  graph: Graph,
  values: readonly number[],
  type: 'int64' | 'float32',
  options: { scalar?: boolean; name?: string } = {},
): Value {
  const name = graph.uniqueName(options.name ?? 'const');
  const dims = options.scalar ? [] : [values.length];
  return graph.addInitializer(
    type === 'int64'
      ? makeTensor(name, DataType.INT64, dims, BigInt64Array.from(values.map(BigInt)))
      : makeTensor(name, DataType.FLOAT, dims, Float32Array.from(values)),
  );
}

export type Reduction =
  'ReduceMin' | 'ReduceMax' | 'ReduceMean' | 'ReduceSum' | 'ReduceProd' | 'ReduceL1' | 'ReduceL2' | 'ReduceSumSquare';

/** Reduces over `axes` (all of them when absent), dropping the reduced axes. */
export function reduce(graph: Graph, op: Reduction, x: Value, axes?: readonly number[]): Value {
  return reduceAs(graph, op, x, axes, 0);
}

/** Reduces over `axes` (all of them when absent); the reduced axes stay with length 1. */
export function reduceKeeping(graph: Graph, op: Reduction, x: Value, axes?: readonly number[]): Value {
  return reduceAs(graph, op, x, axes, 1);
}

/** Axes became an input in opset 18 (13 for ReduceSum). */
function reduceAs(graph: Graph, op: Reduction, x: Value, axes: readonly number[] | undefined, keepDims: 0 | 1): Value {
  const asInput = graph.opset() >= 18 || op === 'ReduceSum';
  const keep = intAttribute('keepdims', keepDims);
  if (!axes) return graph.insertOp(op, [x], [keep]);
  return asInput
    ? graph.insertOp(op, [x, constantOf(graph, axes, 'int64')], [keep])
    : graph.insertOp(op, [x], [keep, intsAttribute('axes', axes)]);
}

export function reshape(graph: Graph, x: Value, shape: readonly number[]): Value {
  return graph.insertOp('Reshape', [x, constantOf(graph, shape, 'int64')]);
}

export function transpose(graph: Graph, x: Value, perm: readonly number[]): Value {
  return graph.insertOp('Transpose', [x], [intsAttribute('perm', perm)]);
}

export function concat(graph: Graph, values: Value[], axis: number): Value {
  return values.length === 1 ? values[0]! : graph.insertOp('Concat', values, [intAttribute('axis', axis)]);
}

export function unsqueeze(graph: Graph, x: Value, axes: readonly number[]): Value {
  return graph.insertOp('Unsqueeze', [x, constantOf(graph, axes, 'int64')]);
}

/** Ends of a slice before the first element and behind the last one. */
export const [BEFORE_START, BEHIND_END] = [Number.MIN_SAFE_INTEGER, Number.MAX_SAFE_INTEGER];

/** The elements along each of `axes` in reverse order. */
export function reversed(graph: Graph, x: Value, axes: readonly number[]): Value {
  if (axes.length === 0) return x;
  const all = (value: number): number[] => axes.map(() => value);
  return slice(graph, x, axes, all(-1), all(BEFORE_START), all(-1));
}

/** Elements start, start + step, ... below end along each of `axes`. */
export function slice(
  graph: Graph,
  x: Value,
  axes: readonly number[],
  starts: Value | readonly number[],
  ends: Value | readonly number[],
  steps: readonly number[],
): Value {
  const asValue = (v: Value | readonly number[]): Value =>
    Array.isArray(v) ? constantOf(graph, v as readonly number[], 'int64') : (v as Value);
  return graph.insertOp('Slice', [
    x,
    asValue(starts),
    asValue(ends),
    constantOf(graph, axes, 'int64'),
    constantOf(graph, steps, 'int64'),
  ]);
}

/** The first elements along `axis` and the axes behind it: as many as are wanted of those that are held. */
export function firstElements(
  graph: Graph,
  x: Value,
  axis: number,
  held: readonly number[],
  wanted: readonly number[],
): Value {
  const more = wanted.flatMap((size, i) => (held[i]! > size ? [i] : []));
  if (more.length === 0) return x;
  return slice(
    graph,
    x,
    more.map((i) => axis + i),
    more.map(() => 0),
    more.map((i) => wanted[i]!),
    more.map(() => 1),
  );
}

/**
 * Zeros before and after along every axis; negative numbers take elements away, by Slice, which is 2.5 times as fast as a
 * negative Pad. The value itself where nothing changes.
 */
export function padZeros(graph: Graph, x: Value, begins: readonly number[], ends: readonly number[]): Value {
  const cut = [...begins.keys()].filter((axis) => begins[axis]! < 0 || ends[axis]! < 0);
  const kept =
    cut.length === 0
      ? x
      : slice(
          graph,
          x,
          cut,
          cut.map((axis) => Math.max(0, -begins[axis]!)),
          cut.map((axis) => (ends[axis]! < 0 ? ends[axis]! : BEHIND_END)),
          cut.map(() => 1),
        );
  const added = [...begins, ...ends].map((count) => Math.max(0, count));
  return added.every((count) => count === 0) ? kept : graph.insertOp('Pad', [kept, constantOf(graph, added, 'int64')]);
}

/** Inserts an operator on values and plain numbers (float32 scalars), so that a formula reads like one. */
export type Formula = (opType: string, ...operands: readonly (Value | number)[]) => Value;

export function formula(graph: Graph): Formula {
  return (opType, ...operands) =>
    graph.insertOp(
      opType,
      operands.map((x) => (typeof x === 'number' ? constantOf(graph, [x], 'float32', { scalar: true }) : x)),
    );
}

export function toFloat(graph: Graph, x: Value): Value {
  return graph.insertOp('Cast', [x], [intAttribute('to', DataType.FLOAT)]);
}

/**
 * The sign of x from x and |x|: ONNX Runtime's Sign takes several times as long as a division. Numbers below 1e-30 are as
 * good as 0.
 */
export function signOf(graph: Graph, x: Value, magnitude: Value): Value {
  const op = formula(graph);
  return op('Div', x, op('Max', magnitude, 1e-30));
}

/** An output of a node; an optional one that the node did not give is added to it. */
export function outputOf(graph: Graph, node: Node, index: number): Value {
  return node.outputs[index] ?? graph.addOutput(node, index, `${node.label}_output_${String(index)}`);
}
