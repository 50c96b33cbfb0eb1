/**
 * Which operators ONNX Runtime's CPU kernels run on uint8 activations when DequantizeLinear stands before and
 * QuantizeLinear behind them. Read from optimised graphs of onnxruntime 1.30 (opsets 13 to 23 agree); the test beside
 * this file asks the installed engine again.
 */
import type { Graph, Node } from '../../onnx/graph.js';

export interface Fusion {
  /** Inputs that carry activations: the first, the first two, or all. The others must be constant. */
  readonly activations: 'first' | 'two' | 'all';
  /** True when input and output have one quantizer: else Dequantize and Quantize stay (Concat: a copy becomes a lookup). */
  readonly tied: boolean;
  /** True when a Relu or Clip that alone reads the result disappears into it. */
  readonly foldsClamp: boolean;
  /** `weighted`: multiplies by a constant weight. `compute`: other arithmetic. `move`: bytes are copied or reinterpreted. */
  readonly kind: 'weighted' | 'compute' | 'move';
  /** What else the node must satisfy. */
  readonly when?: (node: Node, graph: Graph) => boolean;
}

const weighted: Fusion = { activations: 'first', tied: false, foldsClamp: true, kind: 'weighted' };
const binary: Fusion = { activations: 'two', tied: false, foldsClamp: true, kind: 'compute' };
const average: Fusion = { activations: 'first', tied: false, foldsClamp: true, kind: 'compute' };
const lookup: Fusion = { activations: 'first', tied: false, foldsClamp: false, kind: 'compute' };
const move: Fusion = { activations: 'first', tied: true, foldsClamp: false, kind: 'move' };

const FUSIONS: Readonly<Record<string, Fusion>> = {
  Conv: weighted,
  Gemm: { ...weighted, when: (node) => node.float('alpha', 1) === 1 && node.float('beta', 1) === 1 },
  MatMul: weighted,
  Add: binary,
  Mul: binary,
  GlobalAveragePool: average,
  AveragePool: average,
  LeakyRelu: lookup,
  Sigmoid: lookup,
  MaxPool: { ...move, kind: 'compute', when: (node) => node.outputs[1] === undefined },
  ReduceMax: { ...move, kind: 'compute' },
  Concat: { ...move, activations: 'all' },
  Resize: { ...move, when: (node) => node.string('mode', 'nearest') === 'nearest' },
  Reshape: move,
  Flatten: move,
  Transpose: move,
  Squeeze: move,
  Unsqueeze: move,
  Slice: move,
  Split: move,
  Expand: move,
  Tile: move,
  Gather: move,
  DepthToSpace: move,
};

/** Operators of the table. */
export const FUSED_OPERATORS: readonly string[] = Object.keys(FUSIONS);

/** How a node would run in int8; undefined when it cannot. Whether its inputs allow it is for the caller to check. */
export function fusionOf(node: Node, graph: Graph): Fusion | undefined {
  if (node.domain !== '' || !Object.hasOwn(FUSIONS, node.opType)) return undefined;
  const fusion = FUSIONS[node.opType]!;
  return fusion.when?.(node, graph) === false ? undefined : fusion;
}
