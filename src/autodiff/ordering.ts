/**
 * The order of computation, as part of the graph: engines run nodes when something needs them, which may be long before memory
 * would like it.
 */
import { intAttribute } from '../onnx/attributes.js';
import { DataType } from '../onnx/dtypes.js';
import type { Graph, Value } from '../onnx/graph.js';
import { constantOf, formula, reduce, slice } from '../onnx/ops.js';

/** Hands out values that are computed after others. */
export interface Ordering {
  /**
   * The same value, but not before the others: the sum of none of their elements is added to its shape, so no element is read or
   * copied. All have at least one axis.
   * @param dims of the value
   */
  after(value: Value, dims: readonly number[], others: readonly Value[]): Value;
  /** A float value that is not needed before all of these, unchanged. */
  close(value: Value): Value;
}

export function ordering(graph: Graph): Ordering {
  /**
   * Every value handed out has a second reader, the next one: ONNX Runtime 1.30 fails on a Reshape to a computed shape whose only
   * reader is another Reshape.
   */
  let last: Value | undefined;
  const cast = (value: Value, to: DataType): Value => graph.insertOp('Cast', [value], [intAttribute('to', to)]);
  const nothingOf = (values: readonly Value[]): Value => {
    const nothing = values.map((value) =>
      reduce(graph, 'ReduceSum', cast(slice(graph, value, [0], [0], [0], [1]), DataType.FLOAT)),
    );
    return nothing.length === 1 ? nothing[0]! : graph.insertOp('Sum', nothing);
  };
  return {
    after(value, dims, others) {
      const zero = cast(nothingOf(last ? [...others, last] : others), DataType.INT64);
      last = graph.insertOp('Reshape', [value, formula(graph)('Add', constantOf(graph, dims, 'int64'), zero)]);
      return last;
    },
    close: (value) => (last ? formula(graph)('Add', value, nothingOf([last])) : value),
  };
}
