/** The layers of a model that hold weights, in whatever form they are stored, and the nodes that quantization leaves alone. */
import { dataTypeInfo, dataTypeName } from './dtypes.js';
import type { Graph, Node, Value } from './graph.js';
import { findLayers } from './layers.js';
import { decodedDims, isFunctionCall, loadTimeValues, storedLeaves } from './load-time.js';
import { parametersOf, storedTensors, weightCount } from './parameters.js';
import { tensorByteLength } from './tensor.js';
import { subgraphsOf } from './walk.js';

/** A node with stored weights. */
export interface LayerRow {
  readonly node: Node;
  readonly output: Value;
  readonly name: string;
  readonly op: string;
  /** Dims of the weight as the node sees it, after decoding. */
  readonly weightDims?: number[];
  /** Elements of weight and bias. */
  readonly params: number;
  /** Bytes in the file of weight and bias, with their codes, scales and zero points. */
  readonly bytes: number;
  readonly note?: string;
}

/** Position of the weight among the inputs, by operator. */
const WEIGHT_INPUT: Readonly<Record<string, number>> = {
  Conv: 1,
  ConvTranspose: 1,
  Gemm: 1,
  MatMul: 1,
  Gather: 0,
  LSTM: 1,
  GRU: 1,
  RNN: 1,
  QLinearConv: 3,
  QLinearMatMul: 3,
  ConvInteger: 1,
  MatMulInteger: 1,
  'com.microsoft:MatMulNBits': 1,
  'com.microsoft:QGemm': 3,
  'com.microsoft:DynamicQuantizeMatMul': 1,
  'com.microsoft:MatMulIntegerToFloat': 1,
  'com.microsoft:FusedConv': 1,
  'com.microsoft:FusedMatMul': 1,
};

const keyOf = (node: Node): string => (node.domain === '' ? node.opType : `${node.domain}:${node.opType}`);

/** How the weights of a layer are stored, where that is not plain float32. */
interface Storage {
  readonly kind: 'packed' | 'qdq' | 'integer';
  readonly text: string;
}

/** Every layer with a weight of rank 2 or more, in topological order. */
export function describeLayers(graph: Graph): LayerRow[] {
  const known = loadTimeValues(graph);
  const owners = new Map<Value, string>();
  const quantizable = new Set(findLayers(graph).map((layer) => layer.node));
  const rows: LayerRow[] = [];
  for (const node of graph.nodes) {
    const layer = weightsOf(graph, node, known);
    if (!layer) continue;
    const { output, weight, values } = layer;
    const dims = decodedDims(graph, weight);
    const tensors = new Set(values.flatMap((value) => storedTensors(graph, value)));
    const notes = [];
    const owner = owners.get(weight);
    if (owner === undefined) owners.set(weight, node.label);
    else notes.push(`shares its weights with ${owner}`);
    if (isDepthwise(node, dims)) notes.push('depthwise: runs in float');
    const storage = storageOf(graph, node, weight);
    if (storage) notes.push(storage.text);
    else if (!quantizable.has(node)) notes.push(reasonAgainst(graph, node, weight));
    rows.push({
      node,
      output,
      name: node.label,
      op: node.opType,
      ...(dims && { weightDims: dims }),
      params: paramsOf(graph, node, values),
      bytes: [...tensors].reduce((sum, tensor) => sum + tensorByteLength(tensor), 0),
      ...(notes.length > 0 && { note: notes.join('; ') }),
    });
  }
  return rows;
}

interface Weights {
  readonly output: Value;
  readonly weight: Value;
  /** Weight, bias and, for integer operators, their scales and zero points. */
  readonly values: Value[];
}

function weightsOf(graph: Graph, node: Node, known: ReadonlySet<Value>): Weights | undefined {
  const at = WEIGHT_INPUT[keyOf(node)];
  const weight = at === undefined ? undefined : node.inputs[at];
  const output = node.outputs[0];
  if (!output || !weight || known.has(output) || !known.has(weight)) return undefined;
  if ((decodedDims(graph, weight)?.length ?? 2) < 2) return undefined;
  const stored = node.inputs.filter((value): value is Value => value !== undefined && known.has(value));
  const bias = node.is('MatMul') ? addedBias(graph, output, known) : undefined;
  return { output, weight, values: bias ? [...stored, bias] : stored };
}

/** The bias in the Add that alone reads the output of a MatMul. */
function addedBias(graph: Graph, output: Value, known: ReadonlySet<Value>): Value | undefined {
  const [use] = output.uses;
  if (output.uses.size !== 1 || graph.isGraphOutput(output) || !use?.node.is('Add')) return undefined;
  const bias = use.node.inputs[1 - use.index];
  return bias && known.has(bias) && decodedDims(graph, bias)?.length === 1 ? bias : undefined;
}

function paramsOf(graph: Graph, node: Node, values: readonly Value[]): number {
  if (node.is('MatMulNBits', 'com.microsoft')) return node.int('K', 0) * node.int('N', 0);
  const own = new Set(parametersOf(graph, node, new Set(values)));
  // The bias that stands in an Add of its own is no input of this node.
  for (const value of values) if (!node.inputs.includes(value)) own.add(value);
  return [...own].reduce((sum, value) => sum + weightCount(graph, value), 0);
}

function isDepthwise(node: Node, dims: readonly number[] | undefined): boolean {
  const group = node.int('group', 1);
  if (group < 2 || !dims) return false;
  return node.is('ConvTranspose') ? dims[0] === group : dims[1] === 1;
}

function storageOf(graph: Graph, node: Node, weight: Value): Storage | undefined {
  const key = keyOf(node);
  if (node.is('MatMulNBits', 'com.microsoft')) {
    const bits = node.int('bits', 4);
    return { kind: 'integer', text: `already quantized: ${bits}-bit weights in blocks` };
  }
  const stored = graph.constant(weight);
  if (stored) {
    const integer = dataTypeInfo(stored.dataType).kind !== 'float';
    return integer && (key.includes('Integer') || key.includes('Q') || key.includes('Quant'))
      ? { kind: 'integer', text: `already quantized: ${dataTypeName(stored.dataType)} weights (${node.opType})` }
      : undefined;
  }
  const decoder = weight.producer;
  if (!decoder) return undefined;
  if (isFunctionCall(graph, decoder)) {
    const packed = graph.constant(decoder.inputs[0]);
    const bits = packed && packed.dims.length === 2 ? `${packed.dims[0]}-bit ` : '';
    return { kind: 'packed', text: `already quantized: ${bits}packed weights` };
  }
  const codes = [...storedLeaves(weight)].flatMap((leaf) => graph.constant(leaf) ?? []);
  const types = codes.map((tensor) => dataTypeInfo(tensor.dataType));
  // Wider integers are shapes and indices of a decoding that is written out.
  const code = types.find(({ kind, bits }) => (kind === 'int' || kind === 'uint') && bits <= 16);
  if (!code && decoder.opType !== 'DequantizeLinear') return undefined;
  return { kind: 'qdq', text: `already quantized: ${code?.name ?? 'integer'} weights (${decoder.opType})` };
}

/** Why quantization does not take up a layer whose weights it can see. */
function reasonAgainst(graph: Graph, node: Node, weight: Value): string {
  const tensor = graph.constant(weight);
  if (!tensor) return 'its weights are computed from stored ones';
  if (dataTypeName(tensor.dataType) !== 'float32')
    return `its weights are ${dataTypeName(tensor.dataType)}, not float32`;
  if (['LSTM', 'GRU', 'RNN'].includes(node.opType)) return 'recurrent layers are not quantized';
  if (node.domain !== '') return `${node.opType} of ${node.domain} is not quantized`;
  if (node.is('Gemm') && node.int('transA', 0) !== 0) return 'Gemm with a transposed input is not quantized';
  if (node.is('Gather')) return 'only tables of rank 2, gathered along axis 0, are quantized';
  if (node.is('MatMul')) return 'batched weights (rank above 2) are not quantized';
  return 'its weights have a form that is not quantized';
}

export interface UnsupportedNode {
  readonly node: string;
  readonly op: string;
  readonly reason: string;
}

const ACTIVATION_PRODUCTS = new Set(['MatMul', 'Gemm', 'Conv', 'ConvTranspose', 'Einsum']);

/** Nodes with work or weights that quantization leaves as they are, and why. */
export function listUnsupported(graph: Graph): UnsupportedNode[] {
  const known = loadTimeValues(graph);
  const quantizable = new Set(findLayers(graph).map((layer) => layer.node));
  const found: UnsupportedNode[] = [];
  for (const node of graph.nodes) {
    if (quantizable.has(node) || node.outputs.some((output) => output && known.has(output))) continue;
    const reason = whyUnsupported(graph, node, known);
    if (reason !== undefined) found.push({ node: node.label, op: node.opType, reason });
  }
  return found;
}

function whyUnsupported(graph: Graph, node: Node, known: ReadonlySet<Value>): string | undefined {
  const bodies = subgraphsOf(node.proto);
  if (bodies.length > 0) {
    const weights = bodies.reduce((sum, body) => sum + body.initializer.length, 0);
    return weights > 0
      ? 'control flow: the weights in its body stay as they are'
      : 'control flow: the layers in its body are not looked into';
  }
  const layer = weightsOf(graph, node, known);
  if (layer) {
    return storageOf(graph, node, layer.weight)?.text ?? reasonAgainst(graph, node, layer.weight);
  }
  if (isFunctionCall(graph, node)) {
    const fn = graph.functions.find((one) => one.name === node.opType && one.domain === node.domain);
    const heavy = fn?.node.some((inner) => ACTIVATION_PRODUCTS.has(inner.opType));
    return heavy ? 'a function of the model: the layers inside are not looked into' : undefined;
  }
  if (node.domain === '' && ACTIVATION_PRODUCTS.has(node.opType)) {
    const second = node.inputs[1];
    return second && known.has(second)
      ? `${node.opType} in this form is not quantized`
      : 'multiplies two activations: there are no weights to store in fewer bits';
  }
  const learned = parametersOf(graph, node, known).reduce((sum, value) => sum + weightCount(graph, value), 0);
  if (node.domain !== '' && learned > 0)
    return `${node.opType} of ${node.domain} is not known; its weights stay as they are`;
  return undefined;
}

/** One sentence about a model that is quantized already; undefined for one that is not. */
export function quantizationSummary(graph: Graph): string | undefined {
  const known = loadTimeValues(graph);
  const kinds = { packed: 0, qdq: 0, integer: 0 };
  let layers = 0;
  for (const node of graph.nodes) {
    const layer = weightsOf(graph, node, known);
    if (!layer) continue;
    layers++;
    const storage = storageOf(graph, node, layer.weight);
    if (storage) kinds[storage.kind]++;
  }
  const parts = [
    kinds.packed > 0 ? `${kinds.packed} with packed weights that are decoded when the model is loaded` : '',
    kinds.qdq > 0 ? `${kinds.qdq} with integer weights behind DequantizeLinear` : '',
    kinds.integer > 0 ? `${kinds.integer} with integer operators` : '',
  ].filter((part) => part !== '');
  if (parts.length === 0) return undefined;
  return `The model is already quantized: of ${layers} layers, ${parts.join(', ')}. Compress the original float model instead.`;
}
