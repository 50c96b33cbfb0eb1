/** Rank and element type of a value, as far as the declarations of the file and the operators before it tell them. */
import { readInts } from '../tensor.js';
import type { DataType } from '../dtypes.js';
import type { Graph, Node, Value } from '../graph.js';

/** How many producers are followed back before giving up. */
const MAX_STEPS = 64;

/** Operators whose first output has the element type of their first input. */
const KEEPS_TYPE = new Set(
  `Abs Add AveragePool BatchNormalization Ceil Clip Concat Conv ConvTranspose DepthToSpace Div Dropout Elu Erf Exp Expand
  Flatten Floor Gather Gemm GlobalAveragePool GlobalMaxPool HardSigmoid Identity InstanceNormalization LRN LeakyRelu Log
  LogSoftmax MatMul Max MaxPool Mean Min Mul Neg PRelu Pad Pow Reciprocal ReduceMax ReduceMean ReduceMin ReduceSum Relu
  Reshape Resize Selu Sigmoid Slice Softmax Softplus Softsign SpaceToDepth Split Sqrt Squeeze Sub Sum Tanh Tile Transpose
  Unsqueeze Upsample`.split(/\s+/),
);

/** Operators whose outputs have the rank of their first input. */
const KEEPS_RANK = new Set(
  `Abs AveragePool BatchNormalization Cast Ceil Clip Concat Conv ConvTranspose DepthToSpace Dropout Elu Erf Exp Floor
  GlobalAveragePool GlobalMaxPool HardSigmoid Identity InstanceNormalization LRN LeakyRelu Log LogSoftmax MaxPool Neg Not
  PRelu Pad Reciprocal Relu Resize Selu Sigmoid Slice Softmax Softplus Softsign SpaceToDepth Split Sqrt Tanh Tile
  Transpose Upsample`.split(/\s+/),
);

/** Operators whose output has the greatest rank among their inputs. */
const BROADCASTS = new Set('Add Sub Mul Div Pow Max Min Sum Mean Where And Or Xor Equal Less Greater'.split(' '));

/** Number of dimensions, or undefined when it is not evident. */
export function rankOf(graph: Graph, value: Value | undefined, steps = MAX_STEPS): number | undefined {
  if (!value || steps === 0) return undefined;
  if (value.initializer) return value.initializer.dims.length;
  const type = value.info?.type?.value;
  if (type?.case === 'tensorType' && type.value.shape) return type.value.shape.dim.length;
  const node = value.producer;
  return node?.domain === '' ? outputRank(graph, node, steps - 1) : undefined;
}

function outputRank(graph: Graph, node: Node, steps: number): number | undefined {
  const { opType } = node;
  if (KEEPS_RANK.has(opType)) return rankOf(graph, node.inputs[0], steps);
  if (opType === 'Gemm' || opType === 'Flatten') return 2;
  if (opType === 'Reshape') {
    const shape = graph.constant(node.inputs[1]);
    return shape && readInts(shape).length;
  }
  if (BROADCASTS.has(opType)) {
    // Each input halves the budget, so that shared subexpressions do not make the search exponential.
    const ranks = node.inputs.map((input) => rankOf(graph, input, steps >> 1));
    return ranks.every((rank) => rank !== undefined) ? Math.max(...ranks) : undefined;
  }
  return undefined;
}

/** TensorProto.DataType of the elements, or undefined when it is not evident. */
export function elementTypeOf(value: Value | undefined): DataType | undefined {
  for (let steps = MAX_STEPS; value && steps > 0; steps--) {
    if (value.initializer) return value.initializer.dataType;
    const type = value.info?.type?.value;
    if (type?.case === 'tensorType') return type.value.elemType;
    const node: Node | undefined = value.producer;
    if (!node || node.domain !== '') return undefined;
    if (node.opType === 'Cast') return node.int('to');
    if (node.opType === 'Constant') return node.tensor('value')?.dataType;
    if (!KEEPS_TYPE.has(node.opType)) return undefined;
    value = node.inputs[0];
  }
  return undefined;
}
