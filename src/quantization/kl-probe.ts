/**
 * Measured sensitivity: how far the model's outputs move when one layer alone is quantized. For classifiers
 * Omega_l(b) = mean_x KL(p_fp32 || p with only layer l at b bits); for other outputs the squared error relative to the
 * output's energy. Only the part of the network behind the layer is run again.
 */
import { TensorProto_DataType as DataType, type ModelProto } from 'onnx-buf';
import { throwIfAborted } from '../errors.js';
import type { Batch } from '../data/dataset.js';
import { Graph } from '../onnx/graph.js';
import type { WeightLayer } from '../onnx/layers.js';
import { macCounter } from '../onnx/macs.js';
import { withFields } from '../onnx/message.js';
import { readFloats } from '../onnx/tensor.js';
import { toBytes } from '../onnx/to-bytes.js';
import { tensorInfo } from '../onnx/value-info.js';
import type { Engine, Feeds, HostTensor } from '../runtime/engine.js';
import { runOnce } from '../runtime/run-once.js';
import { bytesPerSample, exposeValue, type TracedValues } from '../runtime/trace.js';
import { divergenceKind, outputDivergence, type DivergenceKind } from '../runtime/output-divergence.js';

/** Weights to try in one layer, in the layout of its initializer. */
export interface ProbeRequest {
  readonly layer: WeightLayer;
  readonly variants: readonly Float32Array[];
}

export interface KlProbe {
  /** What `measure` returns. */
  readonly kind: DivergenceKind;
  /** Layers that are best measured together, because the network is run from the same value on for all of them. */
  groups(layers: readonly WeightLayer[]): WeightLayer[][];
  /**
   * Divergence of the outputs when the weights of one layer at a time are replaced: per request, one result per variant.
   * @param requests layers of one group
   */
  measure(requests: readonly ProbeRequest[], signal?: AbortSignal): Promise<number[][]>;
}

/** Bytes of activations that a probe may keep. */
const KEPT_BYTES = 256e6;

/** Multiply-accumulates that all measurements may take together: some twenty seconds of two cores at full speed. */
export const PROBE_MACS = 1e12;

export interface ProbePlan {
  /** Samples asked for. */
  readonly wanted: number;
  /** Runs of the network, or of the part of it behind a layer, on these samples. */
  readonly runs: number;
  /** Rows of the batch that `shapes` was traced with. */
  readonly rows?: number;
}

/** How many of the wanted samples a probe of this model can hold in memory and run in reasonable time. */
export function probeSamplesFor(
  model: ModelProto,
  shapes: TracedValues,
  { wanted, runs, rows = 1 }: ProbePlan,
): number {
  const graph = new Graph(model);
  const kept = new Set(singleValueCuts(graph, shapes).values());
  const bytes = bytesPerSample(
    [...kept].flatMap((name) => shapes.get(name) ?? []),
    rows,
  );
  // On average half of the network is behind a layer. A count, not a time: the same samples on every machine.
  const macs = 0.5 * runs * (macCounter(graph, shapes, rows).total() ?? 0);
  const most = Math.min(KEPT_BYTES / Math.max(bytes, 1), PROBE_MACS / Math.max(macs, 1));
  return Math.max(1, Math.min(wanted, Math.floor(most)));
}

/**
 * @param batch the probe samples, held in memory (a few dozen)
 * @param scores name of the output with one score per class, if the model has one
 */
export async function openKlProbe(
  engine: Engine,
  model: ModelProto,
  batch: Batch,
  shapes: TracedValues,
  scores: string | undefined,
): Promise<KlProbe> {
  const graph = new Graph(model);
  const cuts = singleValueCuts(graph, shapes);
  const outputs = graph.outputs.map((v) => v.name);
  for (const name of new Set(cuts.values())) exposeValue(graph, graph.mustGet(name));
  const reference = await runOnce(engine, graph.toModel(), batch.feeds);
  const original = Object.fromEntries(outputs.map((name) => [name, reference[name]!]));
  const cutOf = (layer: WeightLayer): string | undefined => cuts.get(layer.output.name);
  return {
    kind: divergenceKind(original, scores),
    groups(layers) {
      const groups: WeightLayer[][] = [];
      const open = new Map<string | undefined, WeightLayer[]>();
      for (const layer of layers) {
        let group = open.get(cutOf(layer));
        if (!group || group.length >= GROUP_SIZE) {
          group = [];
          groups.push(group);
          open.set(cutOf(layer), group);
        }
        group.push(layer);
      }
      return groups;
    },
    async measure(requests, signal) {
      const [first] = requests;
      if (!first) return [];
      const layers = requests.map((request) => request.layer);
      const opened = await engine.createSession(toBytes(suffixModel(model, layers, cutOf(first.layer), shapes)));
      try {
        const feeds: Feeds = {};
        for (const { name } of opened.inputs) {
          const tensor = batch.feeds[name] ?? reference[name];
          if (tensor) feeds[name] = tensor;
        }
        const originals = layers.map((layer) => weightTensor(layer, readFloats(graph.constant(layer.weight)!)));
        const results: number[][] = [];
        for (const { layer, variants } of requests) {
          const divergences: number[] = [];
          for (const weights of variants) {
            throwIfAborted(signal);
            originals.forEach((tensor, i) => (feeds[weightInput(i)] = tensor));
            feeds[weightInput(layers.indexOf(layer))] = weightTensor(layer, weights);
            divergences.push(outputDivergence(original, await opened.run(feeds), scores));
          }
          results.push(divergences);
        }
        return results;
      } finally {
        await opened.release();
      }
    },
  };
}

/** Layers per session: each has its weight as an input, which costs its kernel speed. */
const GROUP_SIZE = 3;

function weightInput(index: number): string {
  return `probe weight ${String(index)}`;
}

function weightTensor(layer: WeightLayer, data: Float32Array): HostTensor {
  return { type: 'float32', dims: layer.dims, data };
}

/** The model from the cut value on, with the layers' weights as inputs. */
function suffixModel(
  model: ModelProto,
  layers: readonly WeightLayer[],
  cut: string | undefined,
  shapes: TracedValues,
): ModelProto {
  const graph = new Graph(model);
  const nodes = layers.map((layer) => graph.mustGet(layer.output.name).producer!);
  if (cut !== undefined) {
    graph.feed(graph.mustGet(cut), tensorInfo(cut, DataType.FLOAT, ['N', ...shapes.get(cut)!.dims.slice(1)]));
  }
  layers.forEach((layer, i) => {
    const name = weightInput(i);
    const weight = graph.addInitializer(withFields(graph.constant(layer.weight)!, { name }));
    graph.setInput(nodes[i]!, layer.weightIndex, weight);
    graph.feed(weight, tensorInfo(name, DataType.FLOAT, layer.dims));
  });
  graph.removeDead();
  graph.dropUnreadInputs();
  return graph.toModel();
}

/**
 * For every node (by first output), the last float value before it that alone carries everything computed so far: from
 * there the rest of the network can be run. Nodes without such a value are absent.
 */
function singleValueCuts(graph: Graph, shapes: TracedValues): Map<string, string> {
  const order = graph.nodes;
  const lastUse = new Map<string, number>();
  order.forEach((node, position) => {
    for (const value of [...node.inputs, ...node.captures.map((c) => c.value)]) {
      if (value && !value.isInitializer) lastUse.set(value.name, position);
    }
  });
  for (const value of graph.outputs) lastUse.set(value.name, order.length);
  const live = new Set<string>(graph.inputs.filter((v) => !v.isInitializer && lastUse.has(v.name)).map((v) => v.name));
  const cuts = new Map<string, string>();
  let cut: string | undefined;
  order.forEach((node, position) => {
    const key = node.outputs.find((v) => v)?.name;
    if (key !== undefined && cut !== undefined) cuts.set(key, cut);
    for (const output of node.outputs) if (output && lastUse.has(output.name)) live.add(output.name);
    for (const value of [...node.inputs, ...node.captures.map((c) => c.value)]) {
      if (value && (lastUse.get(value.name) ?? -1) <= position) live.delete(value.name);
    }
    if (live.size === 1) {
      const [only] = live;
      const traced = shapes.get(only!);
      if (traced?.type === 'float32' && traced.dims.length > 0 && graph.value(only!)?.producer) cut = only;
    }
  });
  return cuts;
}
