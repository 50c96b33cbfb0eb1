/** How many learned numbers a model holds, counted alike in float models and in every quantized form of them. */
import {
  TensorProto_DataType as DataType,
  type FunctionProto,
  type GraphProto,
  type ModelProto,
  type NodeProto,
  type TensorProto,
} from 'onnx-buf';
import { dataTypeInfo } from './dtypes.js';
import { Graph, type Node, type Value } from './graph.js';
import { decodedDims, isStoredFloat, loadTimeValues, storedLeaves } from './load-time.js';
import { elementCount } from './tensor.js';
import { subgraphsOf } from './walk.js';

/** Float inputs that are settings or statistics, not learned values, by operator. */
const NOT_LEARNED: Readonly<Record<string, readonly number[]>> = {
  BatchNormalization: [3, 4],
  Clip: [1, 2],
  Resize: [1, 2],
  Upsample: [1],
  QuantizeLinear: [1],
  DequantizeLinear: [1],
  Pow: [1],
  Dropout: [1, 2],
  OneHot: [2],
  Pad: [2],
  NonMaxSuppression: [3, 4],
};

/** Operators with integer weights: which inputs are the weights and the bias. */
const INTEGER_WEIGHTS: Readonly<Record<string, readonly number[]>> = {
  QLinearConv: [3, 8],
  QLinearMatMul: [3],
  ConvInteger: [1],
  MatMulInteger: [1],
  'com.microsoft:QGemm': [3, 6],
  'com.microsoft:DynamicQuantizeMatMul': [1, 4],
  'com.microsoft:MatMulIntegerToFloat': [1, 6],
};

/** Operators where a tensor of one element is a learned value; elsewhere it is a constant of the formula. */
const LEARNED_SCALARS = new Set([
  'Conv',
  'ConvTranspose',
  'Gemm',
  'MatMul',
  'Gather',
  'PRelu',
  'BatchNormalization',
  'InstanceNormalization',
  'LayerNormalization',
  'GroupNormalization',
  'LSTM',
  'GRU',
  'RNN',
]);

/**
 * Elements of every float tensor that looks trained: weights, biases, scales and shifts of normalizations, embeddings.
 * Running statistics, bounds, quantization parameters and scalars of formulas do not count. A quantized or packed weight
 * counts as the weights it decodes to; a tensor that several nodes share counts once.
 */
export function parameterCount(model: ModelProto): number {
  const graph = new Graph(model);
  const known = loadTimeValues(graph);
  const counted = new Set<Value>();
  let total = 0;
  for (const node of graph.nodes) {
    if (node.outputs.some((output) => output && known.has(output))) continue;
    if (node.is('MatMulNBits', 'com.microsoft')) {
      total += node.int('K', 0) * node.int('N', 0);
      continue;
    }
    for (const value of parametersOf(graph, node, known)) {
      if (counted.has(value)) continue;
      counted.add(value);
      total += weightCount(graph, value);
    }
    for (const body of subgraphsOf(node.proto)) total += countBody(body);
  }
  for (const fn of graph.functions) total += countBody(fn);
  return total;
}

/** The load-time values that a node reads as learned parameters. */
export function parametersOf(graph: Graph, node: Node, known: ReadonlySet<Value>): Value[] {
  const key = node.domain === '' ? node.opType : `${node.domain}:${node.opType}`;
  const integers = INTEGER_WEIGHTS[key];
  if (integers)
    return integers.flatMap((index) => (node.inputs[index] && known.has(node.inputs[index]) ? node.inputs[index] : []));
  const skipped = node.domain === '' ? (NOT_LEARNED[node.opType] ?? []) : [];
  const least = LEARNED_SCALARS.has(node.opType) ? 1 : 2;
  const values = [
    ...node.inputs.filter((_, index) => !skipped.includes(index)),
    ...node.captures.map((capture) => capture.value),
  ];
  return values.filter(
    (value): value is Value =>
      value !== undefined && known.has(value) && isStoredFloat(graph, value) && weightCount(graph, value) >= least,
  );
}

/** Elements of a load-time value after decoding. */
export function weightCount(graph: Graph, value: Value): number {
  const dims = decodedDims(graph, value);
  if (dims) {
    const count = elementCount(dims, value.name);
    return count > 1 && isGenerated(graph, value) ? 0 : count;
  }
  let total = 0;
  for (const leaf of storedLeaves(value)) {
    if (isStoredFloat(graph, leaf)) total += elementCount(decodedDims(graph, leaf) ?? [0], leaf.name);
  }
  return total;
}

/** True for constants made from shapes and scalars alone (an identity kernel, zeros): nothing in them was learned. */
function isGenerated(graph: Graph, value: Value): boolean {
  if (!value.producer || value.producer.is('Constant')) return false;
  return storedTensors(graph, value).every(
    (tensor) => tensor.dataType === Number(DataType.INT64) || elementCount(tensor.dims, tensor.name) <= 1,
  );
}

/** The tensors in the file that a load-time value is decoded from. */
export function storedTensors(graph: Graph, value: Value): TensorProto[] {
  return [...storedLeaves(value)].flatMap((leaf) => graph.constant(leaf) ?? []);
}

/** Float tensors of more than one element inside the body of a loop, branch or function. */
function countBody(body: GraphProto | FunctionProto): number {
  let total = 0;
  const pending: { nodes: readonly NodeProto[]; tensors: readonly TensorProto[] }[] = [
    { nodes: body.node, tensors: 'initializer' in body ? body.initializer : [] },
  ];
  const count = (tensor: TensorProto | undefined): number => {
    if (!tensor || dataTypeInfo(tensor.dataType).kind !== 'float') return 0;
    const elements = elementCount(tensor.dims, tensor.name);
    return elements > 1 ? elements : 0;
  };
  for (let part = pending.pop(); part; part = pending.pop()) {
    for (const tensor of part.tensors) total += count(tensor);
    for (const node of part.nodes) {
      for (const attribute of node.attribute) total += count(attribute.t);
      for (const graph of subgraphsOf(node)) pending.push({ nodes: graph.node, tensors: graph.initializer });
    }
  }
  return total;
}
