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
import { withFields } from '../onnx/message.js';
import { toBytes } from '../onnx/to-bytes.js';
import { tensorInfo } from '../onnx/value-info.js';
import type { Engine, Feeds, HostTensor } from '../runtime/engine.js';
import { exposeValue, type TracedValues } from '../runtime/trace.js';

export interface KlProbe {
  /** What `measure` returns: Kullback-Leibler divergence of class probabilities, or relative squared error. */
  readonly kind: 'kl' | 'relative-error';
  /**
   * Divergence of the outputs when the layer's weights are replaced.
   * @param variants weights in the layout of the initializer; one result each
   */
  measure(layer: WeightLayer, variants: readonly Float32Array[], signal?: AbortSignal): Promise<number[]>;
}

/** @param batch the probe samples, held in memory (a few dozen) */
export async function openKlProbe(
  engine: Engine,
  model: ModelProto,
  batch: Batch,
  shapes: TracedValues,
): Promise<KlProbe> {
  const graph = new Graph(model);
  const cuts = singleValueCuts(graph, shapes);
  const outputs = graph.outputs.map((v) => v.name);
  for (const name of new Set(cuts.values())) exposeValue(graph, graph.mustGet(name));
  const session = await engine.createSession(toBytes(graph.toModel()));
  let reference: Record<string, HostTensor>;
  try {
    reference = await session.run(batch.feeds);
  } finally {
    await session.release();
  }
  const kind = outputs.length === 1 && reference[outputs[0]!]?.dims.length === 2 ? 'kl' : 'relative-error';
  const fromProbabilities = kind === 'kl' && new Graph(model).outputs[0]?.producer?.is('Softmax') === true;
  return {
    kind,
    async measure(layer, variants, signal) {
      const suffix = suffixModel(model, layer, cuts.get(layer.output.name), shapes);
      const opened = await engine.createSession(toBytes(suffix));
      try {
        const feeds: Feeds = {};
        for (const { name } of opened.inputs) {
          const tensor = batch.feeds[name] ?? reference[name];
          if (tensor) feeds[name] = tensor;
        }
        const results: number[] = [];
        for (const weights of variants) {
          throwIfAborted(signal);
          feeds[WEIGHT_INPUT] = { type: 'float32', dims: layer.dims, data: weights };
          const changed = await opened.run(feeds);
          results.push(
            kind === 'kl'
              ? meanKl(reference[outputs[0]!]!, changed[outputs[0]!]!, fromProbabilities)
              : relativeError(outputs, reference, changed),
          );
        }
        return results;
      } finally {
        await opened.release();
      }
    },
  };
}

const WEIGHT_INPUT = 'probe weight';

/** The model from the cut value on, with the layer's weight as an input. */
function suffixModel(model: ModelProto, layer: WeightLayer, cut: string | undefined, shapes: TracedValues): ModelProto {
  const graph = new Graph(model);
  const node = graph.mustGet(layer.output.name).producer!;
  if (cut !== undefined) {
    graph.feed(graph.mustGet(cut), tensorInfo(cut, DataType.FLOAT, ['N', ...shapes.get(cut)!.dims.slice(1)]));
  }
  const weight = graph.addInitializer(withFields(graph.constant(layer.weight)!, { name: WEIGHT_INPUT }));
  graph.setInput(node, layer.weightIndex, weight);
  graph.feed(weight, tensorInfo(WEIGHT_INPUT, DataType.FLOAT, layer.dims));
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

/** Mean over samples of KL(p || q) from logits (or probabilities) of shape [N, classes], in nats. */
export function meanKl(reference: HostTensor, changed: HostTensor, probabilities = false): number {
  const [samples, classes] = reference.dims as [number, number];
  const p = reference.data as Float32Array;
  const q = changed.data as Float32Array;
  let total = 0;
  for (let n = 0; n < samples; n++) {
    const base = n * classes;
    const logP = logSoftmax(p, base, classes, probabilities);
    const logQ = logSoftmax(q, base, classes, probabilities);
    for (let c = 0; c < classes; c++) total += Math.exp(logP[c]!) * (logP[c]! - logQ[c]!);
  }
  return Math.max(0, total / Math.max(samples, 1));
}

function logSoftmax(values: Float32Array, base: number, classes: number, probabilities: boolean): Float64Array {
  const out = new Float64Array(classes);
  if (probabilities) {
    for (let c = 0; c < classes; c++) out[c] = Math.log(Math.max(values[base + c]!, 1e-12));
    return out;
  }
  let peak = -Infinity;
  for (let c = 0; c < classes; c++) peak = Math.max(peak, values[base + c]!);
  let sum = 0;
  for (let c = 0; c < classes; c++) sum += Math.exp(values[base + c]! - peak);
  const shift = peak + Math.log(sum);
  for (let c = 0; c < classes; c++) out[c] = values[base + c]! - shift;
  return out;
}

/** ||changed - reference||^2 / ||reference||^2 over all outputs of floating type. */
export function relativeError(
  names: readonly string[],
  reference: Record<string, HostTensor>,
  changed: Record<string, HostTensor>,
): number {
  let error = 0;
  let energy = 0;
  for (const name of names) {
    const a = reference[name]!.data;
    const b = changed[name]!.data;
    if (!(a instanceof Float32Array) || !(b instanceof Float32Array)) continue;
    for (let i = 0; i < a.length; i++) {
      error += (b[i]! - a[i]!) ** 2;
      energy += a[i]! ** 2;
    }
  }
  return energy > 0 ? error / energy : 0;
}
