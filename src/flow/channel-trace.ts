/**
 * Follows the output channels of a layer through the operators that move data (Reshape, Transpose, Split, Slice, ...):
 * for every element of a later value, the channel it came from.
 */
import { axisFromStart } from '../onnx/axis.js';
import type { Graph, Node, Value } from '../onnx/graph.js';
import type { WeightLayer } from '../onnx/layers.js';
import { readInts } from '../onnx/tensor.js';
import type { TracedValues } from '../runtime/trace.js';

/** Channel of each element of a value, -1 where it came from elsewhere. Row-major over `dims`. */
export interface ChannelMap {
  readonly dims: readonly number[];
  readonly channels: Int32Array;
}

/** Values beyond this are not followed: 64 MB each. */
const MAX_ELEMENTS = 1 << 24;
const MAX_DEPTH = 200;

const MOVES = new Set(['Reshape', 'Squeeze', 'Unsqueeze', 'Flatten', 'Cast', 'Identity', 'Dropout']);
const NORMALIZATIONS = new Set([
  'LayerNormalization',
  'RMSNormalization',
  'SimplifiedLayerNormalization',
  'LpNormalization',
]);
const POINTWISE = new Set(['Add', 'Sub', 'Mul', 'Div', 'Neg', 'Where', 'Clip']);
/** Parts of a root-mean-square norm written out: they lead back to the layer but do not move its channels. */
const REDUCING = new Set(['Pow', 'ReduceMean', 'ReduceSum', 'ReduceL2', 'Sqrt', 'Reciprocal', 'Max']);

/** Axis of the channels in a layer's output of `rank` axes. */
export function channelAxisOf(layer: WeightLayer, rank: number): number {
  return layer.op === 'Conv' || layer.op === 'ConvTranspose' ? 1 : rank - 1;
}

/** Inputs of a node through which a layer's output may have come. */
function dataInputs(graph: Graph, node: Node): Value[] {
  const { opType } = node;
  let inputs: readonly (Value | undefined)[] = [];
  if (node.domain === '' && (POINTWISE.has(opType) || REDUCING.has(opType) || opType === 'Concat'))
    inputs = node.inputs;
  else if (MOVES.has(opType) || NORMALIZATIONS.has(opType) || MOVERS.has(opType)) inputs = node.inputs.slice(0, 1);
  return inputs.filter((value): value is Value => value !== undefined && !graph.constant(value));
}

/** The one weight layer whose output a value was made from by moving, scaling and normalizing, or undefined. */
export function sourceLayer(
  graph: Graph,
  value: Value,
  layerByOutput: ReadonlyMap<Value, WeightLayer>,
): WeightLayer | undefined {
  const found = new Set<WeightLayer>();
  const seen = new Set<Value>([value]);
  const queue = [value];
  for (let at = 0; at < queue.length && at < MAX_DEPTH; at++) {
    const current = queue[at]!;
    const layer = layerByOutput.get(current);
    if (layer) {
      found.add(layer);
      continue;
    }
    for (const input of current.producer ? dataInputs(graph, current.producer) : []) {
      if (!seen.has(input)) queue.push(input);
      seen.add(input);
    }
  }
  const [only] = found;
  return found.size === 1 && only!.op !== 'Gather' ? only : undefined;
}

/** Traces `layer`'s channels to any value behind it; undefined where an operator on the way is not understood. */
export function channelTracer(
  graph: Graph,
  shapes: TracedValues,
  layer: WeightLayer,
): (value: Value) => ChannelMap | undefined {
  const known = new Map<Value, ChannelMap | undefined>();
  const trace = (value: Value, depth: number): ChannelMap | undefined => {
    if (known.has(value)) return known.get(value);
    const dims = shapes.get(value.name)?.dims;
    const size = dims?.reduce((a, b) => a * b, 1) ?? Infinity;
    let map: ChannelMap | undefined;
    if (dims && size <= MAX_ELEMENTS && depth < MAX_DEPTH) {
      if (value === layer.output) {
        map = { dims, channels: ownChannels(dims, channelAxisOf(layer, dims.length)) };
      } else if (value.producer) {
        const channels = moved(graph, value.producer, value, dims, (input) => trace(input, depth + 1));
        if (channels?.length === size) map = { dims, channels };
      }
    }
    known.set(value, map);
    return map;
  };
  return (value) => trace(value, 0);
}

function ownChannels(dims: readonly number[], axis: number): Int32Array {
  const inner = dims.slice(axis + 1).reduce((a, b) => a * b, 1);
  const size = dims.reduce((a, b) => a * b, 1);
  const channels = new Int32Array(size);
  for (let i = 0; i < size; i++) channels[i] = Math.floor(i / inner) % dims[axis]!;
  return channels;
}

type Trace = (value: Value) => ChannelMap | undefined;

function moved(graph: Graph, node: Node, value: Value, dims: readonly number[], trace: Trace): Int32Array | undefined {
  if (node.domain === '' && POINTWISE.has(node.opType)) {
    for (const input of dataInputs(graph, node)) {
      const map = trace(input);
      if (map && sameDims(map.dims, dims)) return map.channels;
    }
    return undefined;
  }
  if (node.is('Concat')) return concatenated(node, dims, trace);
  const source = node.inputs[0];
  const map = source && !graph.constant(source) ? trace(source) : undefined;
  if (!map) return undefined;
  if (MOVES.has(node.opType) || NORMALIZATIONS.has(node.opType)) return map.channels;
  return node.domain === '' ? MOVERS.get(node.opType)?.({ graph, node, value, dims, map }) : undefined;
}

interface Move {
  graph: Graph;
  node: Node;
  value: Value;
  dims: readonly number[];
  map: ChannelMap;
}

/** Operators that permute, select or repeat elements, by the source position of each output position. */
const MOVERS: ReadonlyMap<string, (move: Move) => Int32Array | undefined> = new Map(
  Object.entries<(move: Move) => Int32Array | undefined>({
    Transpose: ({ node, dims, map }) => {
      const perm = node.ints('perm') ?? map.dims.map((_, i) => map.dims.length - 1 - i);
      const steps = stridesOf(map.dims);
      return gathered(map, dims, (axis) => ({ start: 0, stride: steps[perm[axis]!]! }));
    },
    Split: ({ graph, node, value, dims, map }) => {
      const axis = axisFromStart(node.int('axis', 0), dims.length);
      const given = graph.constant(node.inputs[1]);
      if (node.inputs[1] && !given) return undefined;
      const sizes = given ? readInts(given) : node.outputs.map(() => dims[axis]!);
      const start = sizes.slice(0, value.outputIndex).reduce((a, b) => a + b, 0);
      return window(map, dims, axis, start, 1);
    },
    Slice: ({ graph, node, dims, map }) => {
      const [starts, , axes, steps] = node.inputs.slice(1).map((v) => {
        const tensor = graph.constant(v);
        return tensor && readInts(tensor);
      });
      if (!starts || (node.inputs[3] && !axes) || (node.inputs[4] && !steps)) return undefined;
      let current = map;
      for (let i = 0; i < starts.length; i++) {
        const axis = axisFromStart(axes?.[i] ?? i, dims.length);
        const step = steps?.[i] ?? 1;
        if (step < 1) return undefined;
        const size = current.dims[axis]!;
        const start = Math.min(size, Math.max(0, starts[i]! < 0 ? starts[i]! + size : starts[i]!));
        const next = current.dims.map((d, a) => (a === axis ? dims[axis]! : d));
        const channels = window(current, next, axis, start, step);
        if (!channels) return undefined;
        current = { dims: next, channels };
      }
      return current.channels;
    },
    Gather: ({ graph, node, map }) => {
      const tensor = graph.constant(node.inputs[1]);
      if (!tensor) return undefined;
      const axis = axisFromStart(node.int('axis', 0), map.dims.length);
      const size = map.dims[axis]!;
      const indices = readInts(tensor).map((i) => (i < 0 ? i + size : i));
      if (indices.some((i) => i < 0 || i >= size)) return undefined;
      const inner = map.dims.slice(axis + 1).reduce((a, b) => a * b, 1);
      const outer = map.channels.length / (inner * size);
      const out = new Int32Array(outer * indices.length * inner);
      let at = 0;
      for (let o = 0; o < outer; o++) {
        for (const index of indices) {
          const from = (o * size + index) * inner;
          out.set(map.channels.subarray(from, from + inner), at);
          at += inner;
        }
      }
      return out;
    },
    Expand: ({ dims, map }) => {
      const source = [...new Array<number>(dims.length - map.dims.length).fill(1), ...map.dims];
      const steps = stridesOf(source);
      return gathered(map, dims, (axis) => ({ start: 0, stride: source[axis] === 1 ? 0 : steps[axis]! }));
    },
  }),
);

/** Elements start, start + step, ... along one axis. */
function window(
  map: ChannelMap,
  dims: readonly number[],
  axis: number,
  start: number,
  step: number,
): Int32Array | undefined {
  if (start + (dims[axis]! - 1) * step >= map.dims[axis]!) return undefined;
  const steps = stridesOf(map.dims);
  return gathered(map, dims, (a) =>
    a === axis ? { start: start * steps[a]!, stride: step * steps[a]! } : { start: 0, stride: steps[a]! },
  );
}

function gathered(
  map: ChannelMap,
  dims: readonly number[],
  along: (axis: number) => { start: number; stride: number },
): Int32Array {
  const axes = dims.map((_, axis) => along(axis));
  const out = new Int32Array(dims.reduce((a, b) => a * b, 1));
  const index = dims.map(() => 0);
  let from = axes.reduce((sum, a) => sum + a.start, 0);
  for (let i = 0; i < out.length; i++) {
    out[i] = map.channels[from]!;
    for (let axis = dims.length - 1; axis >= 0; axis--) {
      from += axes[axis]!.stride;
      if (++index[axis]! < dims[axis]!) break;
      from -= axes[axis]!.stride * dims[axis]!;
      index[axis] = 0;
    }
  }
  return out;
}

function concatenated(node: Node, dims: readonly number[], trace: Trace): Int32Array | undefined {
  const axis = axisFromStart(node.int('axis', 0), dims.length);
  const maps = node.inputs.map((input) => (input ? trace(input) : undefined));
  const known = maps.reduce((sum, map) => sum + (map?.dims[axis] ?? 0), 0);
  const unknown = maps.filter((map) => !map).length;
  if (unknown > 1 || unknown === maps.length) return undefined;
  const inner = dims.slice(axis + 1).reduce((a, b) => a * b, 1);
  const outer = dims.slice(0, axis).reduce((a, b) => a * b, 1);
  const out = new Int32Array(outer * dims[axis]! * inner).fill(-1);
  let offset = 0;
  for (const map of maps) {
    const length = map ? map.dims[axis]! : dims[axis]! - known;
    for (let o = 0; map && o < outer; o++) {
      const from = o * length * inner;
      out.set(map.channels.subarray(from, from + length * inner), (o * dims[axis]! + offset) * inner);
    }
    offset += length;
  }
  return out;
}

function stridesOf(dims: readonly number[]): number[] {
  const strides = dims.map(() => 1);
  for (let axis = dims.length - 2; axis >= 0; axis--) strides[axis] = strides[axis + 1]! * dims[axis + 1]!;
  return strides;
}

function sameDims(a: readonly number[], b: readonly number[]): boolean {
  return a.length === b.length && a.every((d, i) => d === b[i]);
}
