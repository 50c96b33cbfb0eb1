/**
 * After a cut: the running statistics of the batch normalizations that could not be folded away, taken anew so that each
 * gives results of the mean and variance that it gave before. Where the statistics were those of the data that is the usual
 * re-estimation; where they were others (another data set, no training) it changes nothing that the cut did not.
 */
import type { ModelProto } from 'onnx-buf';
import type { Batch } from '../data/dataset.js';
import { DataType } from '../onnx/dtypes.js';
import { Graph, type Node, type Value } from '../onnx/graph.js';
import { constantOf, formula, reduceKeeping } from '../onnx/ops.js';
import { makeTensor, readFloats } from '../onnx/tensor.js';
import type { RunControl } from '../progress.js';
import {
  channelMomentsProbe,
  channelReduction,
  type ChannelMoments,
  type MomentsProbe,
} from '../runtime/channel-moments.js';
import type { Engine } from '../runtime/engine.js';
import { runProbes, type Probe } from '../runtime/probe.js';
import type { TracedValues } from '../runtime/trace.js';

export interface NormStatisticsRequest {
  readonly engine: Engine;
  /** Before the cut. */
  readonly original: ModelProto;
  readonly originalShapes: TracedValues;
  readonly model: ModelProto;
  readonly shapes: TracedValues;
  /** Channels of the original that a normalization has left, by the name of its scale there. */
  readonly keptOf: (scale: string) => readonly number[] | undefined;
  /** A fresh pass over the samples. */
  readonly batches: () => AsyncIterable<Batch>;
  readonly samples: number;
}

/** Spreads are brought back by this factor at most: channels that a cut left all but constant hold nothing to enlarge. */
const LARGEST = 4;
/** Below it a channel counts as constant. */
const LEAST_VARIANCE = 1e-8;

interface Pair {
  readonly name: string;
  readonly input: string;
  /** Of what the normalization read before the cut, channels that are left. */
  readonly wanted: ChannelMoments;
}

/**
 * One pass over the samples through each model, all normalizations at once: each reads, in the second pass, what it would read with
 * the ones in front of it corrected for the batch.
 * @returns undefined where no normalization is left in the model. Errors as `runProbes`
 */
export async function restoreNormStatistics(
  request: NormStatisticsRequest,
  control: RunControl = {},
): Promise<ModelProto | undefined> {
  const { engine, model, shapes, batches, samples } = request;
  const pairs = await pairsOf(request, control);
  if (pairs.length === 0) return undefined;
  const corrected = new Graph(model);
  for (const pair of pairs) correctFor(corrected, normalizationOf(corrected, pair.name)!, pair.wanted, shapes);
  const probes = pairs.map(({ input }) => channelMomentsProbe(input, shapes));
  await runProbes(
    {
      ...{ engine, model: corrected.toModel(), shapes, batches: batches(), probes, total: samples },
      stage: 'take statistics',
    },
    control,
  );
  const graph = new Graph(model);
  pairs.forEach(({ name, wanted }, i) => {
    const found = probes[i]!.result();
    if ([wanted, found].every(areFinite)) setStatistics(graph, normalizationOf(graph, name)!, wanted, found);
  });
  return graph.toModel();
}

/** The normalizations with constant statistics that are in both models, by the name of their result. */
async function pairsOf(
  { engine, original, originalShapes, model, keptOf, batches, samples }: NormStatisticsRequest,
  control: RunControl,
): Promise<Pair[]> {
  const before = new Graph(original);
  const after = new Graph(model);
  const found = after.nodes.flatMap((node) => {
    const name = node.outputs[0]?.name;
    const left = name === undefined ? undefined : normalizationOf(after, name);
    const old = name === undefined ? undefined : normalizationOf(before, name);
    const kept = old && keptOf(old.inputs[1]!.name);
    const probed = old?.inputs[0]!.name;
    if (!left || !kept || probed === undefined || readStatistics(left).mean.length !== kept.length) return [];
    return [{ name: name!, input: left.inputs[0]!.name, kept, probe: channelMomentsProbe(probed, originalShapes) }];
  });
  if (found.length === 0) return [];
  const probes: Probe[] = found.map(({ probe }): MomentsProbe => probe);
  await runProbes(
    {
      ...{ engine, model: original, shapes: originalShapes, batches: batches(), probes, total: samples },
      stage: 'take statistics',
    },
    control,
  );
  return found.map(({ name, input, kept, probe }) => {
    const { mean, variance } = probe.result();
    const left = (values: Float64Array): Float64Array => Float64Array.from(kept, (channel) => values[channel]!);
    return { name, input, wanted: { mean: left(mean), variance: left(variance) } };
  });
}

function normalizationOf(graph: Graph, name: string): Node | undefined {
  const node = graph.value(name)?.producer;
  if (!node?.is('BatchNormalization') || node.int('training_mode', 0) === 1) return undefined;
  return [1, 2, 3, 4].every((index) => node.inputs[index]?.initializer) ? node : undefined;
}

function readStatistics(node: Node): { mean: Float32Array; variance: Float32Array } {
  return { mean: readFloats(node.inputs[3]!.initializer!), variance: readFloats(node.inputs[4]!.initializer!) };
}

/** Statistics of values that are not would make the whole channel so. */
function areFinite({ mean, variance }: ChannelMoments): boolean {
  return mean.every(Number.isFinite) && variance.every(Number.isFinite);
}

/** By how much the spread of a channel is to be enlarged. */
function enlargement(wanted: number, found: number): number {
  const ratio = Math.sqrt((wanted + LEAST_VARIANCE) / (found + LEAST_VARIANCE));
  return Math.min(Math.max(ratio, 1 / LARGEST), LARGEST);
}

/** Lets the normalization read what it would read if each batch had the wanted moments. */
function correctFor(graph: Graph, node: Node, { mean, variance }: ChannelMoments, shapes: TracedValues): void {
  const x = node.inputs[0]!;
  const rank = shapes.get(x.name)!.dims.length;
  const op = formula(graph);
  const perChannel = (values: Float64Array): Value =>
    graph.addInitializer(
      makeTensor(
        graph.uniqueName('wanted'),
        DataType.FLOAT,
        Array.from({ length: rank }, (_, axis) => (axis === 1 ? values.length : 1)),
        Float32Array.from(values),
      ),
    );
  const axes = channelReduction(rank);
  const centred = op('Sub', x, reduceKeeping(graph, 'ReduceMean', x, axes));
  const spread = reduceKeeping(graph, 'ReduceMean', op('Mul', centred, centred), axes);
  const wanted = perChannel(variance.map((v) => v + LEAST_VARIANCE));
  const ratio = graph.insertOp('Clip', [
    graph.insertOp('Sqrt', [op('Div', wanted, op('Add', spread, LEAST_VARIANCE))]),
    constantOf(graph, [1 / LARGEST], 'float32', { scalar: true }),
    constantOf(graph, [LARGEST], 'float32', { scalar: true }),
  ]);
  graph.setInput(node, 0, op('Add', op('Mul', centred, ratio), perChannel(mean)));
}

/**
 * With r the enlargement and m, v the statistics as they were: sqrt(v' + e) = sqrt(v + e) / r and m' = mean found - (mean
 * wanted - m) / r normalize what is found as m and v did what is wanted.
 */
function setStatistics(graph: Graph, node: Node, wanted: ChannelMoments, found: ChannelMoments): void {
  const { mean, variance } = readStatistics(node);
  const epsilon = node.float('epsilon', 1e-5);
  const ratios = wanted.variance.map((value, c) => enlargement(value, found.variance[c]!));
  const give = (index: number, part: string, values: Float32Array): void => {
    const name = graph.uniqueName(`${node.outputs[0]!.name} ${part}`);
    graph.setInput(node, index, graph.addInitializer(makeTensor(name, DataType.FLOAT, [values.length], values)));
  };
  give(
    3,
    'mean',
    mean.map((m, c) => found.mean[c]! - (wanted.mean[c]! - m) / ratios[c]!),
  );
  give(
    4,
    'variance',
    variance.map((v, c) => Math.max((v + epsilon) / ratios[c]! ** 2 - epsilon, 0)),
  );
  graph.removeDead();
}
