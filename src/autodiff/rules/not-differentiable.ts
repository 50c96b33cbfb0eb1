/** Operators that are constant almost everywhere: nothing flows back through them. */
import { DataType } from '../../onnx/dtypes.js';
import type { Node } from '../../onnx/graph.js';

const OPERATORS = new Set([
  ...['Shape', 'Size', 'ArgMax', 'ArgMin', 'NonZero', 'OneHot', 'Range', 'ConstantOfShape', 'EyeLike'],
  ...['Equal', 'Greater', 'GreaterOrEqual', 'Less', 'LessOrEqual', 'And', 'Or', 'Xor', 'Not', 'IsNaN', 'IsInf'],
  ...['Sign', 'Floor', 'Ceil', 'Round'],
]);
const FLOATS = new Set<number>([DataType.FLOAT, DataType.DOUBLE, DataType.FLOAT16, DataType.BFLOAT16]);

/** True where what a node computes does not vary with its inputs, or is no real number. */
export function stopsGradients(node: Node): boolean {
  if (node.domain !== '') return false;
  return OPERATORS.has(node.opType) || (node.opType === 'Cast' && !FLOATS.has(node.int('to', DataType.FLOAT)));
}
