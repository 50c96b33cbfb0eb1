/**
 * Which tensors flowChange compares. The tensors of the main path are the outputs of the weight layers behind their
 * activation, the outputs of residual blocks and concatenations. The predecessor of a layer is the nearest of them upstream of its
 * input; where that one has another layout (feature map before a classifier, image before tokens), the layer's own input
 * takes its place.
 */
import type { Graph, Value } from '../onnx/graph.js';
import type { WeightLayer } from '../onnx/layers.js';
import type { TracedValues } from '../runtime/trace.js';
import type { ResidualBlock } from './blocks.js';
import { channelAxisOf } from './channel-trace.js';
import { postActivation } from './post-activation.js';
import { layoutOf, tracedRows } from './sample-axis.js';

/** A tensor of the path as [N, channels, ...grid] for one sample. */
export interface PathTensor {
  readonly name: string;
  readonly channels: number;
  readonly grid: readonly number[];
  /** Axis of the channels, the sample axis (0) counted. */
  readonly axis: number;
}

export interface FlowStep {
  readonly layer: string;
  readonly from: PathTensor;
  readonly to: PathTensor;
  /** `same`: compared as they are. `mapped`: `from` is brought to the grid of `to`, then through a fitted channel map. */
  readonly kind: 'same' | 'mapped';
}

export interface ChangePlan {
  readonly steps: readonly FlowStep[];
  /** Layers without a flowChange, and why. */
  readonly absent: ReadonlyMap<string, string>;
}

/** Channels up to which a map is fitted: its cost grows with their square, the solve with their cube. */
export const MAX_MAP_CHANNELS = 2048;
const MAX_WALK = 256;

/** @param shapes dims of the graph's values, traced with one sample */
export function planChange(
  graph: Graph,
  layers: readonly WeightLayer[],
  blocks: readonly ResidualBlock[],
  shapes: TracedValues,
): ChangePlan {
  const rows = tracedRows(graph, shapes);
  const tensorOf = (value: string, layer: WeightLayer): PathTensor | undefined =>
    pathTensor(value, layer, shapes, rows);
  const path = new Map<string, PathTensor | undefined>();
  const outputs = new Map<WeightLayer, PathTensor[]>();
  const linear = new Set<WeightLayer>();
  for (const layer of layers) {
    const activation = postActivation(graph, layer.output);
    const { output } = activation;
    const tensors = [output, activation.linear].flatMap((name) => withChannels(tensorOf(name, layer), layer) ?? []);
    if (activation.path.length === 0 && isPositionwise(layer)) linear.add(layer);
    outputs.set(layer, tensors);
    for (const name of [layer.output.name, activation.linear, output]) path.set(name, tensors[0]);
  }
  for (const block of blocks) {
    const layer = block.layers[block.layers.length - 1]!;
    const { output } = postActivation(graph, block.output);
    const tensor = tensorOf(output, layer);
    for (const name of [block.output.name, output]) path.set(name, tensor);
  }
  const steps: FlowStep[] = [];
  const absent = new Map<string, string>();
  for (const layer of layers) {
    const ends = outputs.get(layer)!;
    const before = nearestUpstream(graph, layer.input, path, shapes);
    if (before === undefined) {
      absent.set(layer.name, 'no layer lies before it');
      continue;
    }
    if (ends.length === 0) {
      absent.set(layer.name, 'its output is not one tensor of channels per sample');
      continue;
    }
    const starts = [path.has(before) ? path.get(before) : tensorOf(before, layer), tensorOf(layer.input.name, layer)];
    const pairs = ends.flatMap((to) => starts.map((from) => ({ from, to })));
    const pair = pairs.find(({ from, to }) => from && isMappable(from, to));
    if (!pair?.from) {
      absent.set(layer.name, 'the tensor before it cannot be brought to its grid');
      continue;
    }
    const { from, to } = pair;
    if (isSame(from, to)) {
      steps.push({ layer: layer.name, from, to, kind: 'same' });
    } else if (from.name === layer.input.name && linear.has(layer)) {
      // The best channel map would be the layer itself, and the change 0 whatever the layer does.
      absent.set(layer.name, 'it is itself a linear map of the tensor before it');
    } else if (Math.max(from.channels, to.channels) > MAX_MAP_CHANNELS) {
      absent.set(layer.name, `more than ${String(MAX_MAP_CHANNELS)} channels to map`);
    } else {
      steps.push({ layer: layer.name, from, to, kind: 'mapped' });
    }
  }
  return { steps, absent };
}

function pathTensor(name: string, layer: WeightLayer, shapes: TracedValues, rows: number): PathTensor | undefined {
  const traced = shapes.get(name);
  if (traced?.type !== 'float32' || traced.dims.length < 2 || layoutOf(traced.dims, rows).kind !== 'first')
    return undefined;
  const axis = channelAxisOf(layer, traced.dims.length);
  return { name, axis, channels: traced.dims[axis]!, grid: traced.dims.filter((_, i) => i !== 0 && i !== axis) };
}

/** Gemm, MatMul and 1x1 convolutions of stride one: each output position depends on one input position, linearly. */
function isPositionwise(layer: WeightLayer): boolean {
  if (layer.op === 'Gemm' || layer.op === 'MatMul') return true;
  const ones = [...layer.dims.slice(2), ...(layer.node.ints('strides') ?? [])];
  return layer.op === 'Conv' && ones.every((n) => n === 1);
}

/** Embeddings have as many `channels` as rows in their table; what they put out is as wide as a row. */
function withChannels(tensor: PathTensor | undefined, layer: WeightLayer): PathTensor | undefined {
  return tensor?.channels === (layer.op === 'Gather' ? layer.cols : layer.channels) ? tensor : undefined;
}

function isSame(a: PathTensor, b: PathTensor): boolean {
  return a.channels === b.channels && a.axis === b.axis && a.grid.every((n, i) => n === b.grid[i]);
}

/** Whether the grid of `from` can be pooled, or repeated a whole number of times, to that of `to`. */
function isMappable(from: PathTensor, to: PathTensor): boolean {
  if (from.grid.length !== to.grid.length || (from.axis === 1) !== (to.axis === 1)) return false;
  if (from.grid.length > 3) return from.grid.every((n, i) => n === to.grid[i]);
  return (
    from.grid.every((n, i) => n >= to.grid[i]! && to.grid[i]! > 0) ||
    from.grid.every((n, i) => n > 0 && to.grid[i]! % n === 0)
  );
}

function isConcatenation(graph: Graph, value: Value): boolean {
  return (
    value.producer?.is('Concat') === true && value.producer.inputs.filter((v) => v && !graph.constant(v)).length > 1
  );
}

/** Name of the nearest value of the path at or upstream of `from`, by breadth-first search through float tensors. */
function nearestUpstream(
  graph: Graph,
  from: Value,
  path: ReadonlyMap<string, unknown>,
  shapes: TracedValues,
): string | undefined {
  const seen = new Set<Value>([from]);
  const queue = [from];
  for (let at = 0; at < queue.length && at < MAX_WALK; at++) {
    const value = queue[at]!;
    if (path.has(value.name) || isConcatenation(graph, value)) return value.name;
    for (const input of value.producer?.inputs ?? []) {
      if (!input || seen.has(input) || graph.constant(input) || shapes.get(input.name)?.type !== 'float32') continue;
      seen.add(input);
      queue.push(input);
    }
  }
  return undefined;
}
