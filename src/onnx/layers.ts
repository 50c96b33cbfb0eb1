/** Weight layers of a graph: the nodes whose constant weights compression works on, seen as matrices. */
import { TensorProto_DataType as DataType, type TensorProto } from 'onnx-buf';
import type { Graph, Node, Value } from './graph.js';
import { readFloats } from './tensor.js';

export type LayerOp = 'Conv' | 'ConvTranspose' | 'Gemm' | 'MatMul' | 'Gather';

/**
 * A node with a constant float weight, as a matrix with one row per output unit: [rows, cols], cols being what one
 * output sums over. With `groups` > 1 the rows split evenly into groups that read disjoint inputs.
 */
export interface WeightLayer {
  readonly name: string;
  readonly op: LayerOp;
  readonly node: Node;
  /** Activation that the weight multiplies (the indices, for Gather). */
  readonly input: Value;
  readonly output: Value;
  readonly weight: Value;
  readonly weightIndex: number;
  /** Where a bias of `channels` elements is or could be added: a free or constant input of the node itself or of the Add behind a MatMul. */
  readonly biasSlot: { readonly node: Node; readonly index: number } | undefined;
  readonly dims: readonly number[];
  readonly rows: number;
  readonly cols: number;
  readonly groups: number;
  /** Output channels: the rows of one channel follow each other (kernel positions of a ConvTranspose). */
  readonly channels: number;
  /** Axis of the output channels in the weight tensor. */
  readonly channelAxis: number;
  /** True when each channel is convolved alone. */
  readonly depthwise: boolean;
  readonly params: number;
}

/** Every layer whose weight is a constant float tensor, in topological order. Names are unique. */
export function findLayers(graph: Graph): WeightLayer[] {
  const layers: WeightLayer[] = [];
  const names = new Set<string>();
  for (const node of graph.nodes) {
    const layer = describe(graph, node);
    if (!layer) continue;
    let name = layer.name;
    for (let i = 2; names.has(name); i++) name = `${layer.name}#${String(i)}`;
    names.add(name);
    layers.push({ ...layer, name });
  }
  return layers;
}

function describe(graph: Graph, node: Node): WeightLayer | undefined {
  if (node.domain !== '') return undefined;
  const output = node.outputs[0];
  if (!output) return undefined;
  const weightIndex = node.opType === 'Gather' ? 0 : 1;
  const weight = node.inputs[weightIndex];
  const input = node.inputs[1 - weightIndex];
  const tensor = graph.constant(weight);
  if (!weight || !input || !isFloat(tensor) || graph.constant(input)) return undefined;
  const dims = tensor.dims.map(Number);
  const params = dims.reduce((a, b) => a * b, 1);
  if (params === 0) return undefined;
  const shape = matrixShape(node, dims);
  if (!shape) return undefined;
  return {
    name: node.label,
    op: node.opType as LayerOp,
    node,
    input,
    output,
    weight,
    weightIndex,
    biasSlot: findBias(graph, node, output, shape.channels),
    dims,
    params,
    ...shape,
  };
}

function findBias(graph: Graph, node: Node, output: Value, channels: number): WeightLayer['biasSlot'] {
  if (node.opType === 'Gather') return undefined;
  if (node.opType !== 'MatMul') {
    const bias = graph.constant(node.inputs[2]);
    const usable = !node.inputs[2] || (isFloat(bias) && isPerChannel(bias, channels));
    return usable && node.float('beta', 1) === 1 ? { node, index: 2 } : undefined;
  }
  if (output.uses.size !== 1 || graph.isGraphOutput(output)) return undefined;
  const [use] = output.uses;
  if (!use || !use.node.is('Add')) return undefined;
  const index = 1 - use.index;
  const tensor = graph.constant(use.node.inputs[index]);
  return isFloat(tensor) && tensor.dims.length === 1 && Number(tensor.dims[0]) === channels
    ? { node: use.node, index }
    : undefined;
}

/** False for the bias of a Gemm that is a scalar, a column or a matrix. */
function isPerChannel(tensor: TensorProto, channels: number): boolean {
  const dims = tensor.dims.map(Number);
  return dims[dims.length - 1] === channels && dims.slice(0, -1).every((size) => size === 1);
}

function isFloat(tensor: TensorProto | undefined): tensor is TensorProto {
  return tensor !== undefined && tensor.dataType === Number(DataType.FLOAT);
}

type MatrixShape = Pick<WeightLayer, 'rows' | 'cols' | 'groups' | 'channels' | 'channelAxis' | 'depthwise'>;

function matrixShape(node: Node, dims: readonly number[]): MatrixShape | undefined {
  const product = (from: number): number => dims.slice(from).reduce((a, b) => a * b, 1);
  switch (node.opType) {
    case 'Conv': {
      if (dims.length < 3) return undefined;
      const groups = node.int('group', 1);
      const depthwise = groups > 1 && dims[1] === 1;
      return { rows: dims[0]!, cols: product(1), groups, channels: dims[0]!, channelAxis: 0, depthwise };
    }
    case 'ConvTranspose': {
      if (dims.length < 3) return undefined;
      const groups = node.int('group', 1);
      const channels = dims[1]! * groups;
      const depthwise = groups > 1 && groups === dims[0];
      return { rows: channels * product(2), cols: dims[0]! / groups, groups, channels, channelAxis: 1, depthwise };
    }
    case 'Gemm': {
      if (dims.length !== 2 || node.int('transA', 0) !== 0) return undefined;
      const axis = node.int('transB', 0) ? 0 : 1;
      return {
        rows: dims[axis]!,
        cols: dims[1 - axis]!,
        groups: 1,
        channels: dims[axis]!,
        channelAxis: axis,
        depthwise: false,
      };
    }
    case 'MatMul':
      if (dims.length !== 2) return undefined;
      return { rows: dims[1]!, cols: dims[0]!, groups: 1, channels: dims[1]!, channelAxis: 1, depthwise: false };
    case 'Gather':
      if (dims.length !== 2 || node.int('axis', 0) !== 0) return undefined;
      return { rows: dims[0]!, cols: dims[1]!, groups: 1, channels: dims[0]!, channelAxis: 0, depthwise: false };
    default:
      return undefined;
  }
}

/** Index into the weight tensor for every element of the row-major matrix [rows, cols]; undefined when they coincide. */
function permutation(layer: WeightLayer): Int32Array | undefined {
  const { rows, cols, dims } = layer;
  if (layer.op === 'ConvTranspose') {
    const perGroupOut = dims[1]!;
    const taps = layer.rows / layer.channels;
    const index = new Int32Array(rows * cols);
    for (let row = 0; row < rows; row++) {
      const channel = Math.floor(row / taps);
      const group = Math.floor(channel / perGroupOut);
      for (let col = 0; col < cols; col++) {
        index[row * cols + col] = ((group * cols + col) * perGroupOut + (channel % perGroupOut)) * taps + (row % taps);
      }
    }
    return index;
  }
  if (layer.channelAxis === 0) return undefined;
  const index = new Int32Array(rows * cols);
  for (let row = 0; row < rows; row++) for (let col = 0; col < cols; col++) index[row * cols + col] = col * rows + row;
  return index;
}

/** Elements of a tensor laid out as the layer's weight, as a row-major [rows, cols] matrix. */
export function toMatrix<T extends Float32Array | Int8Array>(layer: WeightLayer, values: T): T {
  const index = permutation(layer);
  if (!index) return values;
  const out = values.slice() as T;
  for (let i = 0; i < index.length; i++) out[i] = values[index[i]!]!;
  return out;
}

/** Inverse of `toMatrix`. */
export function fromMatrix<T extends Float32Array | Int8Array>(layer: WeightLayer, matrix: T): T {
  const index = permutation(layer);
  if (!index) return matrix;
  const out = matrix.slice() as T;
  for (let i = 0; i < index.length; i++) out[index[i]!] = matrix[i]!;
  return out;
}

/** The layer's weights as a [rows, cols] matrix. */
export function weightMatrix(graph: Graph, layer: WeightLayer): Float32Array {
  return toMatrix(layer, readFloats(graph.constant(layer.weight)!));
}
