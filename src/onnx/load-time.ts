/** What a session knows before its first run: stored tensors and everything that is computed from them alone. */
import type { Graph, Node, Value } from './graph.js';
import { dataTypeInfo } from './dtypes.js';
import { elementCount, readInts } from './tensor.js';

/** Operators whose result differs from run to run although all their inputs are constants. */
const RANDOM = new Set([
  'RandomNormal',
  'RandomUniform',
  'RandomNormalLike',
  'RandomUniformLike',
  'Multinomial',
  'Bernoulli',
]);

/** Initializers, constants and the outputs of nodes that read nothing else; engines compute these while loading. */
export function loadTimeValues(graph: Graph): Set<Value> {
  const known = new Set<Value>();
  for (const value of graph.values()) if (value.isInitializer) known.add(value);
  for (const node of graph.nodes) {
    if (RANDOM.has(node.opType)) continue;
    const read = [...node.inputs, ...node.captures.map((capture) => capture.value)].filter((value) => value);
    if (read.length === 0 && !node.is('Constant')) continue;
    if (!read.every((value) => value && known.has(value))) continue;
    for (const output of node.outputs) if (output) known.add(output);
  }
  return known;
}

/** True for a call of a function that the model defines itself. */
export function isFunctionCall(graph: Graph, node: Node): boolean {
  return graph.functions.some((fn) => fn.name === node.opType && fn.domain === node.domain);
}

/** Operators whose result has the shape of their first input. */
const SHAPE_PRESERVING = new Set([
  'Cast',
  'DequantizeLinear',
  'QuantizeLinear',
  'Identity',
  'Clip',
  'Neg',
  'Abs',
  'Sign',
  'Round',
  'Floor',
  'Relu',
]);
const BROADCASTING = new Set(['Add', 'Sub', 'Mul', 'Div', 'Max', 'Min']);

/**
 * Dims of a load-time value as the nodes see it: of a stored tensor, or of what a decoding sub-graph or function makes of
 * stored codes. Undefined where that takes an operator this function does not follow.
 */
export function decodedDims(graph: Graph, value: Value): number[] | undefined {
  const tensor = graph.constant(value);
  if (tensor) return tensor.dims.map(Number);
  if (value.sparseInitializer) return value.sparseInitializer.dims.map(Number);
  const node = value.producer;
  if (!node) return undefined;
  const first = node.inputs[0];
  if (isFunctionCall(graph, node)) {
    // Decoding functions state the shape of the decoded tensor in the attribute `s`.
    const shape = node.ints('s');
    if (shape && shape.length > 0) return shape;
    return first && decodedDims(graph, first);
  }
  if (node.domain !== '') return undefined;
  if (node.opType === 'Constant') return constantDims(node);
  if (!first) return undefined;
  if (SHAPE_PRESERVING.has(node.opType)) return decodedDims(graph, first);
  if (BROADCASTING.has(node.opType)) {
    const shapes = node.inputs.map((input) => input && decodedDims(graph, input));
    return shapes.every((dims) => dims !== undefined) ? broadcast(shapes) : undefined;
  }
  if (node.opType === 'Transpose') {
    const dims = decodedDims(graph, first);
    const order = node.ints('perm');
    return dims && (order ? order.map((axis) => dims[axis]) : dims.toReversed());
  }
  return node.opType === 'Reshape' ? reshapedDims(graph, node, first) : undefined;
}

function constantDims(node: Node): number[] | undefined {
  const attributes = node.attributes;
  if (attributes.has('value_float') || attributes.has('value_int')) return [];
  const list = attributes.get('value_floats')?.floats ?? attributes.get('value_ints')?.ints;
  return list ? [list.length] : undefined;
}

function broadcast(shapes: readonly number[][]): number[] {
  const rank = Math.max(...shapes.map((dims) => dims.length));
  return Array.from({ length: rank }, (_, axis) =>
    Math.max(...shapes.map((dims) => dims[axis - rank + dims.length] ?? 1)),
  );
}

function reshapedDims(graph: Graph, node: Node, source: Value): number[] | undefined {
  const target = graph.constant(node.inputs[1]);
  const from = decodedDims(graph, source);
  if (!target) return undefined;
  const wanted = readInts(target).map((dim, axis) => (dim === 0 ? (from?.[axis] ?? -1) : dim));
  const open = wanted.indexOf(-1);
  if (open < 0) return wanted;
  if (!from) return undefined;
  const others = wanted.reduce((product, dim, axis) => (axis === open ? product : product * dim), 1);
  return others > 0 ? wanted.with(open, elementCount(from) / others) : undefined;
}

/** Operators that make integers, booleans or values which no one stored. */
const NOT_STORED_FLOATS = new Set([
  'Shape',
  'Size',
  'ConstantOfShape',
  'EyeLike',
  'Range',
  'QuantizeLinear',
  'NonZero',
]);

/** True when a load-time value holds stored floating-point numbers, or codes that were decoded to such. */
export function isStoredFloat(graph: Graph, value: Value): boolean {
  const tensor = graph.constant(value) ?? value.sparseInitializer?.values;
  if (tensor) return dataTypeInfo(tensor.dataType).kind === 'float';
  const node = value.producer;
  if (!node) return false;
  if (node.is('Constant')) return node.attributes.has('value_float') || node.attributes.has('value_floats');
  if (isFunctionCall(graph, node) || node.opType === 'DequantizeLinear') return true;
  if (NOT_STORED_FLOATS.has(node.opType)) return false;
  if (node.is('Cast')) return dataTypeInfo(node.int('to', 1)).kind === 'float';
  const first = node.inputs[0];
  return first !== undefined && isStoredFloat(graph, first);
}

/** The initializers (and Constant nodes' outputs) that a load-time value is computed from, each once. */
export function storedLeaves(value: Value): Set<Value> {
  const leaves = new Set<Value>();
  const seen = new Set<Value>();
  const pending = [value];
  for (let at = pending.pop(); at; at = pending.pop()) {
    if (seen.has(at)) continue;
    seen.add(at);
    if (!at.producer || at.producer.is('Constant')) {
      leaves.add(at);
      continue;
    }
    for (const input of at.producer.inputs) if (input) pending.push(input);
  }
  return leaves;
}
