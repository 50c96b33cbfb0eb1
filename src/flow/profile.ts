/** The flow profile of a model: flowMagnitude and flowChange of every layer, block and attention head over a set of samples. */
import type { ModelProto } from 'onnx-buf';
import type { Batch } from '../data/dataset.js';
import { throwIfAborted } from '../errors.js';
import { Graph } from '../onnx/graph.js';
import { findLayers, weightMatrix, type LayerOp, type WeightLayer } from '../onnx/layers.js';
import type { RunControl } from '../progress.js';
import type { Engine } from '../runtime/engine.js';
import { runProbes, type Probe } from '../runtime/probe.js';
import type { TracedValues } from '../runtime/trace.js';
import { findAttention, type FoundAttention } from './attention.js';
import { findBlocks, type ResidualBlock } from './blocks.js';
import { planChange, type FlowStep } from './change-plan.js';
import { blockChangeProbe, mappedProbe, sameShapeProbe, type ChangeProbe } from './change.js';
import { isDetermined, solveChannelMap, type ChannelMap } from './channel-map.js';
import { channelSumsProbe, withSampleMask } from './channel-sums-probe.js';
import { magnitudeProbes, type MagnitudeOptions, type MagnitudeResult } from './magnitude.js';

export interface LayerFlow {
  readonly name: string;
  readonly op: LayerOp;
  /** Position in the network: 0 first layer, 1 last, in topological order. */
  readonly depth: number;
  /** flowMagnitude: mean over samples, damped by its variation. */
  readonly flow: number;
  readonly flowRaw: number;
  /** Standard deviation of the flow over samples, relative to its mean. */
  readonly cv: number;
  /** Relative change from the tensor before the layer to its output. */
  readonly flowChange?: number;
  /** Why there is no `flowChange`. */
  readonly flowChangeNote?: string;
  /** Frobenius norm, mean and standard deviation of the weights. */
  readonly weightNorm: number;
  readonly weightMean: number;
  readonly weightStd: number;
  /** Index of the attention block whose queries, keys, values or output projection the layer makes. */
  readonly attention?: number;
}

export interface BlockFlow {
  readonly name: string;
  readonly flowChange?: number;
  /** False where a projection, pooling or padding sits on the shortcut. */
  readonly identity: boolean;
  /** Weight layers on the branch. */
  readonly layers: readonly string[];
}

export interface AttentionFlow {
  readonly name: string;
  readonly heads: number;
  /** Per head: mean flow over samples. */
  readonly flow: readonly number[];
}

export interface FlowProfile {
  readonly layers: readonly LayerFlow[];
  readonly blocks: readonly BlockFlow[];
  readonly attention: readonly AttentionFlow[];
  /** Attention that was found but whose heads could not be told apart; its layers count as fully connected ones. */
  readonly untraced: readonly { readonly node: string; readonly reason: string }[];
  /** Samples behind the means. */
  readonly samples: number;
}

/** Structure of a prepared model that the flow measurements rest on. Nothing is run. */
export interface FlowStructure {
  readonly graph: Graph;
  readonly layers: readonly WeightLayer[];
  readonly attention: FoundAttention;
  readonly blocks: readonly ResidualBlock[];
}

/** @param shapes dims of the model's values, traced with one sample (or one full batch where its size is fixed) */
export function flowStructure(model: ModelProto, shapes: TracedValues): FlowStructure {
  const graph = new Graph(model);
  const layers = findLayers(graph);
  return { graph, layers, attention: findAttention(graph, layers, shapes), blocks: findBlocks(graph, layers) };
}

/** Doubles that the sums of one fitting pass may take; larger models are fitted in several passes. */
const FIT_BUDGET = 1 << 25;

/**
 * Measures the flow in two streamed passes (more for very wide models): one for everything that needs no fitted map, one
 * for the layers whose shape differs from that of the tensor before them. Memory does not grow with the samples.
 * @param model prepared: opset >= 13, constants inlined, batch normalization folded, samples on the first axis
 * @param shapes see {@link flowStructure}
 * @param batchesFactory gives the same samples anew for each pass
 * @param total samples that it gives, for progress events
 * @throws FlowCompressError `bad-input` when activations are not finite, `unsupported` when they cannot be divided among
 *   the samples, `aborted` when the signal fires.
 */
export async function flowProfile(
  engine: Engine,
  model: ModelProto,
  shapes: TracedValues,
  batchesFactory: () => AsyncIterable<Batch>,
  total: number,
  options: MagnitudeOptions = {},
  control: RunControl = {},
): Promise<FlowProfile> {
  const structure = flowStructure(model, shapes);
  const { graph, layers, attention, blocks } = structure;
  const plan = planChange(graph, layers, blocks, shapes);
  const magnitude = magnitudeProbes(graph, layers, attention.blocks, options);
  const blockProbes = blocks.map(blockChangeProbe);
  const changes = new Map<string, ChangeProbe>();
  for (const step of plan.steps) if (step.kind === 'same') changes.set(step.layer, sameShapeProbe(step));

  const maskName = graph.uniqueName('sample_mask');
  const pass = async (stage: string, probes: readonly Probe[]): Promise<void> => {
    const batches = withSampleMask(batchesFactory(), maskName);
    await runProbes({ engine, model, shapes, batches, probes, total, stage }, control);
  };
  const absent = new Map(plan.absent);
  const maps = new Map<FlowStep, ChannelMap>();
  const groups = fitGroups(plan.steps.filter((step) => step.kind === 'mapped'));
  for (const [i, group] of [...(groups.length > 0 ? groups : [[]])].entries()) {
    const fits = group.map((step) => ({ step, probe: channelSumsProbe(step, maskName) }));
    const first = i === 0 ? [...magnitude.probes, ...blockProbes, ...changes.values()] : [];
    await pass('flow', [...first, ...fits.map(({ probe }) => probe)]);
    for (const { step, probe } of fits) {
      throwIfAborted(control.signal);
      const sums = probe.result();
      if (isDetermined(sums)) maps.set(step, solveChannelMap(sums));
      else absent.set(step.layer, `too few samples to map ${String(sums.inputs)} channels`);
    }
  }
  if (maps.size > 0) {
    const probes = [...maps].map(([step, map]) => [step.layer, mappedProbe(step, map)] as const);
    await pass(
      'flow change',
      probes.map(([, probe]) => probe),
    );
    for (const [layer, probe] of probes) changes.set(layer, probe);
  }
  return {
    ...describeLayers(structure, magnitude.result(), changes, absent),
    blocks: blocks.map((block, i) => ({
      name: block.name,
      ...optional('flowChange', blockProbes[i]!.result()),
      identity: block.identity,
      layers: block.layers.map((layer) => layer.name),
    })),
    untraced: attention.untraced.map(({ node, reason }) => ({ node: node.label, reason })),
  };
}

function describeLayers(
  { graph, layers, attention }: FlowStructure,
  magnitude: MagnitudeResult,
  changes: ReadonlyMap<string, ChangeProbe>,
  absent: ReadonlyMap<string, string>,
): Pick<FlowProfile, 'layers' | 'attention' | 'samples'> {
  const blockOf = new Map<WeightLayer, number>();
  attention.blocks.forEach((block, i) => {
    for (const layer of [block.q.layer, block.k.layer, block.v.layer, block.out]) if (layer) blockOf.set(layer, i);
  });
  let samples = 0;
  const described = layers.map((layer, i): LayerFlow => {
    const { flow, flowRaw, cv, ...seen } = magnitude.layers.get(layer.name)!;
    samples = Math.max(samples, seen.samples);
    const change = changes.get(layer.name)?.result();
    const note = absent.get(layer.name) ?? (change === undefined ? 'no sample gave finite activations' : undefined);
    return {
      name: layer.name,
      op: layer.op,
      depth: layers.length > 1 ? i / (layers.length - 1) : 0,
      flow,
      flowRaw,
      cv,
      ...optional('flowChange', change),
      ...optional('flowChangeNote', note),
      ...weightStatistics(weightMatrix(graph, layer)),
      ...optional('attention', blockOf.get(layer)),
    };
  });
  return {
    layers: described,
    attention: attention.blocks.map(({ name, heads }, i) => ({ name, heads, flow: magnitude.heads[i]! })),
    samples,
  };
}

function optional<K extends string, T>(key: K, value: T | undefined): { [key in K]?: T } {
  const entry: { [key in K]?: T } = {};
  if (value !== undefined) entry[key] = value;
  return entry;
}

function weightStatistics(weights: Float32Array): Pick<LayerFlow, 'weightNorm' | 'weightMean' | 'weightStd'> {
  let sum = 0;
  let squares = 0;
  for (let i = 0; i < weights.length; i++) {
    sum += weights[i]!;
    squares += weights[i]! * weights[i]!;
  }
  const mean = sum / weights.length;
  let variance = 0;
  for (let i = 0; i < weights.length; i++) variance += (weights[i]! - mean) ** 2;
  return { weightNorm: Math.sqrt(squares), weightMean: mean, weightStd: Math.sqrt(variance / weights.length) };
}

/** Splits the steps so that the sums of each group fit in the budget. */
function fitGroups(steps: readonly FlowStep[]): FlowStep[][] {
  const groups: FlowStep[][] = [];
  let room = 0;
  for (const step of steps) {
    const size = step.from.channels * (step.from.channels + step.to.channels);
    if (groups.length === 0 || size > room) {
      groups.push([]);
      room = FIT_BUDGET;
    }
    groups[groups.length - 1]!.push(step);
    room -= size;
  }
  return groups;
}
