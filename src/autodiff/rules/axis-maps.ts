/** Linear maps along single axes: what resampling and averaging windows are, and their ways back. */
import { DataType } from '../../onnx/dtypes.js';
import type { Graph, Value } from '../../onnx/graph.js';
import { reshape } from '../../onnx/ops.js';
import { makeTensor } from '../../onnx/tensor.js';

/** By row the elements of the result, by column those of the operand. */
export type Matrix = readonly (readonly number[])[];

/** A map of the elements along one axis; never along the first, which is the batch. */
export interface AxisMap {
  readonly axis: number;
  readonly matrix: Matrix;
}

export function transposedMatrix(matrix: Matrix): Matrix {
  return matrix[0]!.map((_, column) => matrix.map((row) => row[column]!));
}

/**
 * One MatMul with a constant per map, those that shrink first.
 * @param dims of the value after the batch
 */
export function mapAxes(graph: Graph, value: Value, dims: readonly number[], maps: readonly AxisMap[]): Value {
  const sizes = [...dims];
  const growth = ({ matrix }: AxisMap): number => matrix.length / matrix[0]!.length;
  let result = value;
  for (const map of [...maps].sort((a, b) => growth(a) - growth(b))) result = mapAxis(graph, result, sizes, map);
  return result;
}

/** `sizes` follows: the size of the axis becomes that of the result. */
function mapAxis(graph: Graph, value: Value, sizes: number[], { axis, matrix }: AxisMap): Value {
  const at = axis - 1;
  const fromEnd = sizes.length - at;
  if (fromEnd === 1) {
    sizes[at] = matrix.length;
    return graph.insertOp('MatMul', [value, matrixOf(graph, transposedMatrix(matrix))]);
  }
  const left = matrixOf(graph, matrix);
  if (fromEnd === 2) {
    sizes[at] = matrix.length;
    return graph.insertOp('MatMul', [left, value]);
  }
  const outer = sizes.slice(0, at);
  const rows = reshape(graph, value, [0, ...outer, sizes[at]!, -1]);
  sizes[at] = matrix.length;
  return reshape(graph, graph.insertOp('MatMul', [left, rows]), [0, ...sizes]);
}

function matrixOf(graph: Graph, matrix: Matrix): Value {
  const name = graph.uniqueName('axis map');
  return graph.addInitializer(
    makeTensor(name, DataType.FLOAT, [matrix.length, matrix[0]!.length], Float32Array.from(matrix.flat())),
  );
}
