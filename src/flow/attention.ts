/**
 * Attention found by its pattern, never by names: MatMul(Q, K^T) - scale - mask - Softmax - MatMul(., V), traced back to
 * the layers that make Q, K and V (one fused layer or several) and forward to the output projection.
 */
import type { Graph, Node, Value } from '../onnx/graph.js';
import type { WeightLayer } from '../onnx/layers.js';
import type { TracedValues } from '../runtime/trace.js';
import { channelTracer, sourceLayer, type ChannelMap } from './channel-trace.js';
import { tracedRows } from './sample-axis.js';

/** A layer that makes Q, K or V, with the output channels that each head reads. */
export interface HeadProjection {
  readonly layer: WeightLayer;
  /** [heads]: sorted channel indices. Heads share them in grouped-query attention. */
  readonly headChannels: readonly Int32Array[];
}

export interface AttentionBlock {
  readonly name: string;
  readonly softmax: Node;
  /** MatMul(Q, K^T). */
  readonly scores: Node;
  /** MatMul(softmax, V). */
  readonly context: Node;
  readonly q: HeadProjection;
  readonly k: HeadProjection;
  readonly v: HeadProjection;
  /** Output projection. */
  readonly out?: WeightLayer;
  readonly heads: number;
  readonly headDim: number;
  /**
   * Head of each [tokens, channels] matrix of one sample in the context output: more matrices than heads where
   * attention works on windows.
   */
  readonly headOfMatrix: readonly number[];
}

/** Attention that is there but whose heads cannot be told apart. */
export interface UntracedAttention {
  readonly node: Node;
  readonly reason: string;
}

export interface FoundAttention {
  readonly blocks: readonly AttentionBlock[];
  readonly untraced: readonly UntracedAttention[];
}

const FUSED = new Set([
  'Attention',
  'MultiHeadAttention',
  'GroupQueryAttention',
  'DecoderMaskedMultiHeadAttention',
  'PackedAttention',
  'PackedMultiHeadAttention',
  'QAttention',
]);

const MAX_HOPS = 12;

/** @param shapes dims of the graph's values, traced with one sample */
export function findAttention(graph: Graph, layers: readonly WeightLayer[], shapes: TracedValues): FoundAttention {
  const blocks: AttentionBlock[] = [];
  const untraced: UntracedAttention[] = [];
  const layerByOutput = new Map(layers.map((layer) => [layer.output, layer]));
  const layersByInput = new Map<Value, WeightLayer[]>();
  for (const layer of layers) layersByInput.set(layer.input, [...(layersByInput.get(layer.input) ?? []), layer]);
  const traces = new Map<WeightLayer, (value: Value) => ChannelMap | undefined>();
  for (const node of graph.nodes) {
    if (FUSED.has(node.opType)) {
      const reason = `the fused operator ${node.domain || 'ai.onnx'}.${node.opType} does not show its heads`;
      untraced.push({ node, reason });
    }
    if (!node.is('Softmax') || !isLastAxis(node, shapes)) continue;
    const scores = node.inputs[0] && findScores(graph, node.inputs[0]);
    const context = scores && findContext(graph, node);
    if (!scores || !context) continue;
    const operands = { q: scores.inputs[0]!, k: scores.inputs[1]!, v: context.inputs[1]! };
    const traced = (value: Value): TracedOperand | undefined => {
      const layer = sourceLayer(graph, value, layerByOutput);
      if (!layer) return undefined;
      const trace = traces.get(layer) ?? channelTracer(graph, shapes, layer);
      traces.set(layer, trace);
      const map = trace(value);
      return map && { layer, map };
    };
    const [q, k, v] = [traced(operands.q), traced(operands.k), traced(operands.v)];
    const heads = q && k && v && assignHeads(context, shapes, tracedRows(graph, shapes), { q, k, v });
    if (!heads) {
      const lost = !q ? 'queries' : !k ? 'keys' : !v ? 'values' : 'heads';
      untraced.push({ node, reason: `its ${lost} could not be traced to the channels of one weight layer` });
      continue;
    }
    const out = context.outputs[0] && findOutput(context.outputs[0], layersByInput);
    blocks.push({ name: node.label, softmax: node, scores, context, ...heads, ...(out ? { out } : {}) });
  }
  return { blocks, untraced };
}

function isLastAxis(node: Node, shapes: TracedValues): boolean {
  const rank = shapes.get(node.outputs[0]?.name ?? '')?.dims.length ?? 0;
  const axis = node.int('axis', -1);
  return rank >= 3 && (axis === -1 || axis === rank - 1);
}

/** The product of two activations that the softmax was computed from, behind scales and masks. */
function findScores(graph: Graph, from: Value): Node | undefined {
  const seen = new Set<Value>();
  const search = (value: Value, hops: number): Node | undefined => {
    const node = value.producer;
    if (!node || hops === 0 || seen.has(value) || node.domain !== '') return undefined;
    seen.add(value);
    if (node.opType === 'MatMul') return node.inputs.every((v) => v && !graph.constant(v)) ? node : undefined;
    for (const input of scoreInputs(node)) {
      const found = input && search(input, hops - 1);
      if (found) return found;
    }
    return undefined;
  };
  return search(from, MAX_HOPS);
}

function scoreInputs(node: Node): readonly (Value | undefined)[] {
  switch (node.opType) {
    case 'Add':
    case 'Sub':
    case 'Mul':
    case 'Div':
    case 'Max':
    case 'Min':
      return node.inputs;
    case 'Where':
      return node.inputs.slice(1);
    case 'Cast':
    case 'Identity':
    case 'Dropout':
    case 'Reshape':
    case 'Squeeze':
    case 'Unsqueeze':
    case 'Clip':
    case 'Tanh':
      return node.inputs.slice(0, 1);
    default:
      return [];
  }
}

const PROBABILITY_OPS = new Set(['Cast', 'Identity', 'Dropout', 'Reshape', 'Squeeze', 'Unsqueeze', 'Where', 'Mul']);

/** The product of the softmax (behind casts, dropout and guards against empty rows) with an activation. */
function findContext(graph: Graph, softmax: Node): Node | undefined {
  const queue: Value[] = [softmax.outputs[0]!];
  const seen = new Set<Value>(queue);
  for (let at = 0; at < queue.length && at < MAX_HOPS; at++) {
    for (const { node, index } of queue[at]!.uses) {
      if (node.is('MatMul') && index === 0 && !graph.constant(node.inputs[1])) return node;
      const output = node.outputs[0];
      const passes = node.domain === '' && PROBABILITY_OPS.has(node.opType) && (index === 0 || node.opType === 'Where');
      if (passes && output && !seen.has(output)) {
        seen.add(output);
        queue.push(output);
      }
    }
  }
  return undefined;
}

const OUTPUT_OPS = new Set(['Transpose', 'Reshape', 'Squeeze', 'Unsqueeze', 'Flatten', 'Cast', 'Identity', 'Dropout']);

/** The first weight layer behind the context, through operators that only rearrange it. */
function findOutput(from: Value, layersByInput: ReadonlyMap<Value, readonly WeightLayer[]>): WeightLayer | undefined {
  let value: Value | undefined = from;
  for (let hop = 0; value && hop < MAX_HOPS; hop++) {
    const [layer] = layersByInput.get(value) ?? [];
    if (layer) return layer;
    const next: Node | undefined = [...value.uses].find(
      (use) => use.index === 0 && use.node.domain === '' && OUTPUT_OPS.has(use.node.opType),
    )?.node;
    value = next?.outputs[0];
  }
  return undefined;
}

interface TracedOperand {
  readonly layer: WeightLayer;
  readonly map: ChannelMap;
}

type Heads = Pick<AttentionBlock, 'q' | 'k' | 'v' | 'heads' | 'headDim' | 'headOfMatrix'>;

/** A head is a distinct set of query channels. Undefined when an operand does not split into whole heads. */
function assignHeads(
  context: Node,
  shapes: TracedValues,
  rows: number,
  operands: Record<'q' | 'k' | 'v', TracedOperand>,
): Heads | undefined {
  const dims = shapes.get(context.outputs[0]!.name)?.dims;
  if (!dims || dims.length < 3) return undefined;
  const lead = dims.slice(0, -2);
  const matrices = lead.reduce((a, b) => a * b, 1) / rows;
  if (!Number.isInteger(matrices)) return undefined;
  const channelsOf = (operand: TracedOperand): Int32Array[] | undefined => {
    const sets = matrixChannels(operand.map);
    const own = operand.map.dims.slice(0, -2);
    const picked = Array.from({ length: matrices }, (_, i) => sets[broadcastIndex(i, lead, own)]);
    return picked.every((set): set is Int32Array => set !== undefined && set.length > 0) ? picked : undefined;
  };
  const [q, k, v] = [channelsOf(operands.q), channelsOf(operands.k), channelsOf(operands.v)];
  if (!q || !k || !v) return undefined;
  const numbers = new Map<string, number>();
  const headOfMatrix = q.map((set) => {
    const key = set.join();
    const number = numbers.get(key) ?? numbers.size;
    numbers.set(key, number);
    return number;
  });
  const firsts = Array.from({ length: numbers.size }, (_, head) => headOfMatrix.indexOf(head));
  const project = (operand: TracedOperand, sets: readonly Int32Array[]): HeadProjection => ({
    layer: operand.layer,
    headChannels: firsts.map((i) => sets[i]!),
  });
  return {
    q: project(operands.q, q),
    k: project(operands.k, k),
    v: project(operands.v, v),
    heads: numbers.size,
    headDim: operands.q.map.dims[operands.q.map.dims.length - 1]!,
    headOfMatrix,
  };
}

/** The channels that each matrix (last two axes) of a value holds, sorted. */
function matrixChannels({ dims, channels }: ChannelMap): Int32Array[] {
  const size = dims.slice(-2).reduce((a, b) => a * b, 1);
  const sets: Int32Array[] = [];
  for (let from = 0; size > 0 && from < channels.length; from += size) {
    const set = new Set(channels.subarray(from, from + size));
    set.delete(-1);
    sets.push(Int32Array.from(set).sort());
  }
  return sets;
}

/** Flat index into leading axes `own` of an operand, for the flat index `i` over the axes `lead` of the result. */
function broadcastIndex(i: number, lead: readonly number[], own: readonly number[]): number {
  let rest = i;
  let index = 0;
  let stride = 1;
  for (let back = 1; back <= lead.length; back++) {
    const size = lead[lead.length - back]!;
    const at = rest % size;
    rest = Math.floor(rest / size);
    const ownSize = own[own.length - back] ?? 1;
    if (ownSize !== 1) index += at * stride;
    stride *= ownSize;
  }
  return index;
}
