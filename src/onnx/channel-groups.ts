/**
 * Which layers share their output channels: a residual connection, a gate or a depthwise convolution ties the channels of
 * several layers together, so that a channel can only be removed from all of them at once.
 */
import { axisFromStart } from './axis.js';
import type { Graph, Node, Value } from './graph.js';
import { decodedDims, loadTimeValues } from './load-time.js';
import type { Shapes } from './macs.js';

export interface ChannelGroup {
  /** Names of the layers whose output channels these are, in topological order. */
  readonly layers: string[];
  readonly channels: number;
}

/** The channels that one layer makes, or several once they are tied. */
interface Space {
  readonly channels: number;
  layers: string[];
  /** Something needs all of these channels: an output of the model, or an operator that is not followed. */
  frozen: boolean;
  parent?: Space;
}

/** A run of `size` entries along an axis: the channels of a space, each `size / channels` times in a row. */
interface Part {
  readonly space: Space | undefined;
  readonly size: number;
}

/** The axis of a value that holds channels, and whose they are, in order. */
interface Channels {
  readonly axis: number;
  readonly parts: readonly Part[];
}

const ELEMENTWISE = new Set(['Add', 'Sub', 'Mul', 'Div', 'Max', 'Min', 'Pow', 'PRelu', 'Sum', 'Mean', 'Where']);
const UNARY = new Set([
  ...[
    'Relu',
    'LeakyRelu',
    'Elu',
    'Selu',
    'Celu',
    'ThresholdedRelu',
    'Sigmoid',
    'HardSigmoid',
    'HardSwish',
    'Mish',
    'Gelu',
  ],
  ...['Tanh', 'Softplus', 'Softsign', 'Erf', 'Exp', 'Log', 'Sqrt', 'Abs', 'Neg', 'Reciprocal', 'Clip', 'Cast', 'Swish'],
  ...['Identity', 'Dropout', 'QuantizeLinear', 'DequantizeLinear', 'Floor', 'Ceil', 'Round', 'Sign'],
]);
/** Operators that keep the channel axis where it is as long as its length stays. */
const LENGTH_KEEPING = new Set([
  ...['BatchNormalization', 'InstanceNormalization', 'LayerNormalization', 'RMSNormalization'],
  ...['MaxPool', 'AveragePool', 'LpPool', 'GlobalAveragePool', 'GlobalMaxPool', 'Resize', 'Upsample', 'Pad', 'Slice'],
  ...['ReduceMean', 'ReduceMax', 'ReduceSum', 'ReduceMin', 'ReduceL2', 'ReduceSumSquare'],
]);

/**
 * Follows the output channels of every Conv, ConvTranspose, Gemm and MatMul with stored weights through the graph. Groups
 * that reach an output of the model, or an operator through which channels cannot be followed, are left out.
 * @param shapes dims of every computed value, from one traced run
 */
export function channelGroups(graph: Graph, shapes: Shapes): ChannelGroup[] {
  const known = loadTimeValues(graph);
  const spaces: Space[] = [];
  const channels = new Map<Value, Channels>();
  const dimsOf = (value: Value | undefined): readonly number[] | undefined =>
    value && (shapes.get(value.name)?.dims ?? (known.has(value) ? decodedDims(graph, value) : undefined));
  const newSpace = (layer: string, count: number): Space => {
    const space: Space = { channels: count, layers: [layer], frozen: false };
    spaces.push(space);
    return space;
  };
  for (const node of graph.nodes) {
    const output = node.outputs[0];
    if (!output || known.has(output)) continue;
    const result = follow(node, { known, channels, dimsOf, newSpace });
    for (const { value } of node.captures) freeze(channels.get(value));
    if (result === 'lost') for (const input of node.inputs) freeze(input && channels.get(input));
    else if (result) channels.set(output, result);
  }
  for (const output of graph.outputs) freeze(channels.get(output));
  return spaces
    .filter((space) => !space.parent && !space.frozen)
    .map(({ layers, channels: count }) => ({ layers, channels: count }));
}

interface Tracker {
  readonly known: ReadonlySet<Value>;
  readonly channels: ReadonlyMap<Value, Channels>;
  readonly dimsOf: (value: Value | undefined) => readonly number[] | undefined;
  readonly newSpace: (layer: string, count: number) => Space;
}

/** Channels of the node's first output; undefined when it has none that matter, `lost` when they cannot be followed. */
function follow(node: Node, tracker: Tracker): Channels | 'lost' | undefined {
  const { channels, dimsOf } = tracker;
  const tracked = node.inputs.some((input) => input && channels.has(input));
  const layer = followLayer(node, tracker);
  if (layer) return layer;
  if (!tracked) return undefined;
  const data = node.inputs[0];
  const own = data && channels.get(data);
  const from = dimsOf(data);
  const to = dimsOf(node.outputs[0]);
  if (!from || !to || node.domain !== '') return 'lost';
  if (ELEMENTWISE.has(node.opType)) return followElementwise(node, to, tracker);
  if (node.is('Concat')) return followConcat(node, to, tracker);
  if (!own || node.inputs.slice(1).some((input) => input && channels.has(input))) return 'lost';
  if (UNARY.has(node.opType)) return own;
  if (node.is('Transpose')) {
    const order = node.ints('perm') ?? from.map((_, axis) => from.length - 1 - axis);
    return { ...own, axis: order.indexOf(own.axis) };
  }
  if (LENGTH_KEEPING.has(node.opType)) return to[own.axis] === from[own.axis] && to.length > own.axis ? own : 'lost';
  if (['Softmax', 'LogSoftmax'].includes(node.opType)) {
    return axisFromStart(node.int('axis', -1), from.length) === own.axis ? 'lost' : own;
  }
  return ['Reshape', 'Flatten', 'Squeeze', 'Unsqueeze'].includes(node.opType) ? followReshape(own, from, to) : 'lost';
}

function followLayer(node: Node, { known, channels, dimsOf, newSpace }: Tracker): Channels | 'lost' | undefined {
  const [input, weight] = node.inputs;
  const output = dimsOf(node.outputs[0]);
  const isLayer = ['Conv', 'ConvTranspose', 'Gemm', 'MatMul'].includes(node.opType) && node.domain === '';
  if (!isLayer || !input || !weight || !known.has(weight) || !output) return undefined;
  const own = channels.get(input);
  const isConv = node.opType.startsWith('Conv');
  const axis = isConv ? 1 : output.length - 1;
  const rank = dimsOf(input)?.length;
  const reads = isConv ? 1 : (rank ?? 0) - 1;
  if (own && (own.axis !== reads || node.int('transA', 0) !== 0)) return 'lost';
  const group = isConv ? node.int('group', 1) : 1;
  if (group === 1) {
    const space = newSpace(node.label, output[axis]);
    // A dense product over several rows: a Gemm with a third input that is computed cannot be followed.
    if (node.inputs[2] && !known.has(node.inputs[2])) return 'lost';
    return { axis, parts: [{ space, size: output[axis] }] };
  }
  // Depthwise: every channel stays with itself.
  if (!own || output[1] !== group || dimsOf(input)?.[1] !== group) return 'lost';
  for (const { space } of own.parts) if (space) root(space).layers.push(node.label);
  return own;
}

function followElementwise(node: Node, to: readonly number[], { known, channels, dimsOf }: Tracker): Channels | 'lost' {
  let result: Channels | undefined;
  for (const input of node.inputs) {
    const own = input && channels.get(input);
    const dims = dimsOf(input);
    if (!input || !own || !dims) continue;
    const aligned: Channels = { ...own, axis: own.axis + to.length - dims.length };
    // One channel that is repeated over many.
    if (dims[own.axis] !== to[aligned.axis]) return 'lost';
    if (result && !tie(result, aligned)) return 'lost';
    result ??= aligned;
  }
  if (!result) return 'lost';
  const { axis } = result;
  for (const input of node.inputs) {
    if (!input || known.has(input) || channels.has(input)) continue;
    const dims = dimsOf(input);
    // What is not made by a layer, such as an input of the model, cannot lose channels.
    if (!dims || (dims[axis - to.length + dims.length] ?? 1) !== 1) return 'lost';
  }
  return result;
}

function followConcat(node: Node, to: readonly number[], { channels, dimsOf }: Tracker): Channels | 'lost' {
  const attribute = node.int('axis', 0);
  const axis = attribute < 0 ? attribute + to.length : attribute;
  const operands = node.inputs.map((input) => ({ own: input && channels.get(input), dims: dimsOf(input) }));
  if (operands.every(({ own }) => own === undefined || own.axis === axis)) {
    if (operands.some(({ dims }) => !dims)) return 'lost';
    return {
      axis,
      parts: operands.flatMap(({ own, dims }) => own?.parts ?? [{ space: undefined, size: dims![axis] }]),
    };
  }
  const [first, ...rest] = operands;
  if (!first.own || first.own.axis === axis) return 'lost';
  for (const { own } of rest) if (!own || !tie(first.own, own)) return 'lost';
  return first.own;
}

/** Channels followed by positions that become one axis, or the other way round. */
function followReshape(own: Channels, from: readonly number[], to: readonly number[]): Channels | 'lost' {
  const product = (dims: readonly number[]): number => dims.reduce((a, b) => a * b, 1);
  const before = product(from.slice(0, own.axis));
  const length = from[own.axis];
  const after = product(from.slice(own.axis + 1));
  for (let axis = 0; axis < to.length; axis++) {
    if (product(to.slice(0, axis)) !== before) continue;
    if (to[axis] === length) return { ...own, axis };
    if (to[axis] === length * after) {
      return { axis, parts: own.parts.map(({ space, size }) => ({ space, size: size * after })) };
    }
  }
  return 'lost';
}

/** Makes the channels of both one; false when their runs have different lengths. */
function tie(a: Channels, b: Channels): boolean {
  if (a.axis !== b.axis || a.parts.length !== b.parts.length) return false;
  if (!a.parts.every(({ size }, i) => size === b.parts[i].size)) return false;
  return a.parts.every(({ space }, i) => {
    const other = b.parts[i].space;
    if (space && other) return join(space, other);
    for (const one of [space, other]) if (one) root(one).frozen = true;
    return true;
  });
}

function join(a: Space, b: Space): boolean {
  const [first, second] = [root(a), root(b)];
  if (first === second) return true;
  if (first.channels !== second.channels) return false;
  second.parent = first;
  first.layers = [...first.layers, ...second.layers];
  first.frozen ||= second.frozen;
  return true;
}

function root(space: Space): Space {
  let at = space;
  while (at.parent) at = at.parent;
  return at;
}

function freeze(channels: Channels | undefined): void {
  for (const { space } of channels?.parts ?? []) if (space) root(space).frozen = true;
}
