/**
 * Layers in a row that a projection can stand for (Identity* of IDAP++): pooling to the grid of the last one's result where grids differ,
 * and a 1x1 convolution (or Gemm) in its place. The projection bears the name of the last layer and gives its value, so that it is
 * cut, fitted and taught like the layer whose place it takes.
 */
import { DataType } from '../onnx/dtypes.js';
import { MAX_MAP_CHANNELS, type FlowStep, type PathTensor } from '../flow/change-plan.js';
import type { ChannelMap } from '../flow/channel-map.js';
import { findBlocks } from '../flow/blocks.js';
import { toGrid } from '../flow/path-tensor.js';
import { intAttribute } from '../onnx/attributes.js';
import type { Graph, Node, Value } from '../onnx/graph.js';
import { findLayers, type WeightLayer } from '../onnx/layers.js';
import { macCounter } from '../onnx/macs.js';
import { makeTensor } from '../onnx/tensor.js';
import type { TracedValues } from '../runtime/trace.js';

export interface Projection {
  readonly kind: 'projection';
  readonly name: string;
  /** Name of the layer whose place it takes. */
  readonly layer: string;
  /** Names of the layers that go with it, in topological order. */
  readonly layers: readonly string[];
  /** What it reads and what it gives, before anything is cut. */
  readonly step: FlowStep;
  /** What is computed no longer, the last layer included. */
  readonly nodes: ReadonlySet<Node>;
}

/** A layer whose place no projection can take. */
export interface KeptLayer {
  readonly layer: string;
  readonly reason: string;
}

/** What a projection may cost at most of what it stands for. */
const LARGEST_SHARE = 0.7;
/** Weight layers that one projection stands for at most: two pairs of a depthwise and a pointwise convolution. */
const MAX_LAYERS = 4;
/** Projections that end at one layer at most: each of them is measured. */
const MAX_PER_LAYER = 2;

/** @param layers names of all that it stands for, in topological order */
export function projectionName(layers: readonly string[]): string {
  return `${layers.join(' + ')}, replaced by a projection`;
}

/**
 * The projections that a graph has room for, in topological order of where they end, and the convolutions and Gemms at which none
 * can end. They do not overlap with residual blocks; they may with each other.
 * @param shapes dims of every value for `rows` samples
 */
export function findProjections(
  graph: Graph,
  shapes: TracedValues,
  rows: number,
): { projections: Projection[]; kept: KeptLayer[] } {
  const layers = findLayers(graph);
  const search = searchIn(graph, layers, shapes, rows);
  const projections: Projection[] = [];
  const kept: KeptLayer[] = [];
  for (const layer of layers) {
    if (layer.op !== 'Conv' && layer.op !== 'Gemm') continue;
    const found = endingAt(search, layer);
    if (Array.isArray(found)) projections.push(...found);
    else kept.push({ layer: layer.name, reason: found });
  }
  return { projections, kept };
}

interface Search {
  readonly graph: Graph;
  readonly shapes: TracedValues;
  readonly rows: number;
  readonly layerOf: ReadonlyMap<Node, WeightLayer>;
  /** Why a layer has to stay. */
  readonly held: ReadonlyMap<Node, string>;
  readonly macsOf: (node: Node) => number | undefined;
}

function searchIn(graph: Graph, layers: readonly WeightLayer[], shapes: TracedValues, rows: number): Search {
  const layerOf = new Map(layers.map((layer) => [layer.node, layer]));
  const held = new Map<Node, string>();
  for (const { layers: inside, shortcut } of findBlocks(graph, layers))
    for (const { node } of shortcut ? [...inside, shortcut] : inside) held.set(node, 'it is part of a residual block');
  const nodes = graph.nodes;
  const open = new Set<Value>(graph.outputs);
  for (const node of nodes.toReversed()) {
    if (!node.outputs.some((output) => output && open.has(output))) continue;
    if (layerOf.has(node)) held.set(node, 'it makes an output of the model');
    else for (const input of node.inputs) if (input) open.add(input);
  }
  const raw = new Set<Value>(graph.inputs.filter((value) => graph.isFed(value)));
  for (const node of nodes) {
    if (!node.inputs.some((input) => input && raw.has(input))) continue;
    if (layerOf.has(node)) held.set(node, 'it reads an input of the model');
    else for (const output of node.outputs) if (output) raw.add(output);
  }
  const counter = macCounter(graph, shapes, rows);
  return { graph, shapes, rows, layerOf, held, macsOf: (node) => counter.ofNode(node) };
}

/** The projections that end at a layer, the one that stands for the fewest layers first; or why there are none. */
function endingAt(search: Search, last: WeightLayer): Projection[] | string {
  const reason = search.held.get(last.node);
  if (reason !== undefined) return reason;
  const to = tensorOf(search, last.output, last.op);
  if (to?.channels !== last.channels) return 'its result is not one tensor of channels per sample';
  const found: Projection[] = [];
  const nodes = new Set<Node>([last.node]);
  const chain = [last];
  let least = Infinity;
  let why = 'the layer before it cannot go with it';
  while (chain.length <= MAX_LAYERS && found.length < MAX_PER_LAYER) {
    const from = tensorOf(search, chain[0]!.input, last.op);
    if (!from || !isPooled(from, to)) {
      if (chain.length === 1) why = 'what it reads cannot be pooled to the size of its result';
      break;
    }
    const share = shareOf(search, from, to, chain);
    if (Math.max(from.channels, to.channels) > MAX_MAP_CHANNELS)
      why = `a projection would be of more than ${String(MAX_MAP_CHANNELS)} channels`;
    else if (share === undefined) why = 'its multiply-accumulates cannot be counted';
    else if (share <= LARGEST_SHARE) found.push(projectionOf(from, to, chain, nodes));
    else {
      least = Math.min(least, share);
      why = `a projection would cost ${(100 * least).toFixed(0)} % of it`;
    }
    const before = upstream(search, chain[0]!.input);
    if (!before) break;
    chain.unshift(before.layer);
    for (const node of before.nodes) nodes.add(node);
  }
  return found.length > 0 ? found : why;
}

function projectionOf(
  from: PathTensor,
  to: PathTensor,
  chain: readonly WeightLayer[],
  nodes: ReadonlySet<Node>,
): Projection {
  const names = chain.map(({ name }) => name);
  const layer = names.at(-1)!;
  return {
    ...{ kind: 'projection', name: projectionName(names), layer, layers: names.slice(0, -1) },
    step: { layer, from, to, kind: 'mapped' },
    nodes: new Set(nodes),
  };
}

/** The layer that alone makes a value, through operators of one operand; with everything that serves nothing else. */
function upstream({ graph, layerOf, held }: Search, end: Value): { layer: WeightLayer; nodes: Node[] } | undefined {
  const nodes: Node[] = [];
  for (let value = end; ;) {
    const node = value.producer;
    if (!node || value.uses.size !== 1 || graph.isGraphOutput(value)) return undefined;
    const outputs = node.outputs.filter((output) => output);
    if (node.domain !== '' || node.captures.length > 0 || outputs.length !== 1) return undefined;
    nodes.push(node);
    const layer = layerOf.get(node);
    if (layer) return held.has(node) || layer.op === 'Gather' ? undefined : { layer, nodes };
    const computed = node.inputs.filter((input) => input && !graph.constant(input));
    if (computed.length !== 1) return undefined;
    value = computed[0]!;
  }
}

/** A value as [N, channels, ...grid]. */
function tensorOf({ shapes, rows }: Search, value: Value, op: WeightLayer['op']): PathTensor | undefined {
  const traced = shapes.get(value.name);
  if (traced?.type !== 'float32' || traced.dims[0] !== rows) return undefined;
  const rank = traced.dims.length;
  if (op === 'Gemm' ? rank !== 2 : rank < 3 || rank > 5) return undefined;
  return { name: value.name, axis: 1, channels: traced.dims[1]!, grid: traced.dims.slice(2) };
}

function isPooled(from: PathTensor, to: PathTensor): boolean {
  return from.grid.length === to.grid.length && from.grid.every((size, i) => size >= to.grid[i]! && to.grid[i]! > 0);
}

/** What the projection costs of the layers, in multiply-accumulates or parameters, whichever is more. */
function shareOf(
  { macsOf }: Search,
  from: PathTensor,
  to: PathTensor,
  chain: readonly WeightLayer[],
): number | undefined {
  const all = chain.map(({ node }) => macsOf(node));
  if (all.some((macs) => macs === undefined)) return undefined;
  const sum = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0);
  const weights = from.channels * to.channels;
  return Math.max(
    (weights * product(to.grid)) / sum(all as number[]),
    weights / sum(chain.map(({ params }) => params)),
  );
}

/** What a projection has: parameters with the bias, and multiply-accumulates of a sample. */
export function projectionCost(inputs: number, outputs: number, { to }: FlowStep): { params: number; macs: number } {
  return { params: inputs * outputs + outputs, macs: inputs * outputs * product(to.grid) };
}

const product = (values: readonly number[]): number => values.reduce((a, b) => a * b, 1);

/**
 * Puts a fitted projection in the place of its layer. What only served the layers that go is left for `removeDead`.
 * @param graph the one that it was found in, or one that was cut since; the map has the channels that are left there
 */
export function putProjection(graph: Graph, { step }: Projection, { matrix, bias }: ChannelMap): void {
  const { from, to } = step;
  const output = graph.mustGet(to.name);
  const old = output.producer!;
  const pooled = toGrid(graph, graph.mustGet(from.name), from.grid, to.grid);
  const outputs = bias.length;
  const isGemm = old.is('Gemm');
  const store = (part: string, dims: number[], data: Float32Array): Value =>
    graph.addInitializer(makeTensor(graph.uniqueName(`${to.name}.projection.${part}`), DataType.FLOAT, dims, data));
  const inputs = matrix.length / outputs;
  const ones = isGemm ? [] : to.grid.map(() => 1);
  const weight = store('weight', [outputs, inputs, ...ones], matrix);
  const shift = store('bias', [outputs], bias);
  graph.detach(output);
  graph.insert({
    ...{ opType: isGemm ? 'Gemm' : 'Conv', name: old.name, inputs: [pooled, weight, shift], outputs: [output] },
    attributes: isGemm ? [intAttribute('transB', 1)] : [],
  });
}
