/** What an operator of the reference is. */
import type { Node } from '../../onnx/graph.js';
import type { NdArray } from './array.js';

/** Inputs by position, undefined where an optional one is left out. One array per output. */
export type ReferenceOperator = (
  inputs: readonly (NdArray | undefined)[],
  node: Node,
  opset: number,
) => readonly NdArray[];
