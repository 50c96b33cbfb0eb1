/**
 * Times of operators on the machine at hand, read from the engine's own profile of whole models: an operator between
 * its real neighbours, with the layouts that the engine chose for it, predicts the file that ships better than the same operator
 * alone. Quantize, dequantize and layout changes are timed on small models and fitted as a fixed time plus a rate.
 */
import { z } from 'zod';
import { TensorProto_DataType as DataType, type ModelProto } from 'onnx-buf';
import { floatAttribute, intAttribute, intsAttribute } from '../onnx/attributes.js';
import { emptyModel, Graph, requireGraph, type Value } from '../onnx/graph.js';
import { withFields } from '../onnx/message.js';
import { makeTensor } from '../onnx/tensor.js';
import { toBytes } from '../onnx/to-bytes.js';
import { tensorInfo } from '../onnx/value-info.js';
import type { Feeds } from './engine.js';
import { median } from './latency.js';
import type { MachineCache } from './machine-cache.js';

/** One executed node of the optimised graph. */
export interface OperatorEvent {
  /** Name of the node in the optimised graph. */
  readonly name: string;
  readonly op: string;
  readonly micros: number;
  /** Elements of the first output. */
  readonly elements: number;
}

/** An engine that can tell how long each node took. Times include no queueing: one node runs at a time. */
export interface Profiler {
  /** Engine, version, processor and threads: what times depend on. */
  readonly machine: string;
  /**
   * Runs the model on each batch up to `runs` times after one warm-up (slow models less often).
   * @returns by batch and run, the events in execution order
   */
  profile(model: Uint8Array, batches: readonly Feeds[], runs: number): Promise<OperatorEvent[][][]>;
}

/** Microseconds by name of the first output of the model's nodes; nodes that were optimised away are absent. */
export interface NodeTimes {
  readonly micros: ReadonlyMap<string, number>;
  /** All nodes together, those included that the engine added (layout changes, quantizers). */
  readonly total: number;
}

/**
 * Runs the model under the profiler and attributes the median time of every kernel to the node it came from.
 * @returns one per batch
 */
export async function measureNodes(
  profiler: Profiler,
  model: ModelProto,
  batches: readonly Feeds[],
  runs: number,
): Promise<NodeTimes[]> {
  const source = requireGraph(model);
  const tagged = withFields(model, {
    graph: withFields(source, {
      node: source.node.map((node, i) => withFields(node, { name: `@${String(i)}@` })),
    }),
  });
  const producer = new Map<string, string>();
  for (const node of source.node) for (const output of node.output) producer.set(output, node.output[0]!);
  const profiles = await profiler.profile(toBytes(tagged), batches, runs);
  return profiles.map((profile) => {
    const micros = new Map<string, number>();
    let total = 0;
    for (const event of medianEvents(profile)) {
      total += event.micros;
      const index = /@(\d+)@/.exec(event.name)?.[1];
      // Blocked convolutions and pools are named after the value that they compute.
      const output =
        index === undefined ? producer.get(event.name.replace(/_nchwc$/, '')) : source.node[Number(index)]?.output[0];
      if (output !== undefined) micros.set(output, (micros.get(output) ?? 0) + event.micros);
    }
    return { micros, total };
  });
}

/** The events of a run with the median time over all runs (the runs of one session execute the same nodes in order). */
function medianEvents(runs: OperatorEvent[][]): OperatorEvent[] {
  return (runs[0] ?? []).map((event, i) => ({
    ...event,
    micros: median(runs.map((run) => run[i]?.micros ?? event.micros)),
  }));
}

/** Time of an operator on n elements: `fixed` + n * `perElement`, microseconds. */
const linearTime = z.object({ fixed: z.number().nonnegative(), perElement: z.number().nonnegative() });
export type LinearTime = z.infer<typeof linearTime>;

/** What it costs to pass a tensor between float and int8 nodes. */
const borderTimes = z.object({
  quantize: linearTime,
  dequantize: linearTime,
  /** uint8 between channels first and channels last. */
  transpose: linearTime,
  /** float between plain and blocked layout. */
  reorder: linearTime,
});
export type BorderTimes = z.infer<typeof borderTimes>;

export function timeOf(time: LinearTime, elements: number): number {
  return time.fixed + elements * time.perElement;
}

/** Border times of this machine, from the cache when it has them. A cached text that cannot be read is measured anew. */
export async function borderTimesOf(profiler: Profiler, cache?: MachineCache): Promise<BorderTimes> {
  const key = `border-times-1 ${profiler.machine}`;
  const text = await cache?.read(key);
  if (text !== undefined) {
    const known = parse(text);
    if (known) return known;
  }
  const times = await measureBorders(profiler);
  await cache?.write(key, JSON.stringify(times));
  return times;
}

function parse(text: string): BorderTimes | undefined {
  try {
    return borderTimes.safeParse(JSON.parse(text)).data;
  } catch {
    return undefined;
  }
}

const BORDER_SIZES: readonly (readonly [batch: number, size: number])[] = [
  [1, 4],
  [1, 32],
  [8, 32],
];
const BORDER_CHANNELS = 32;
const BORDER_RUNS = 12;

/** Times the borders of an int8 convolution between two float ones. */
export async function measureBorders(profiler: Profiler): Promise<BorderTimes> {
  const points: Record<keyof BorderTimes, { elements: number; micros: number }[]> = {
    quantize: [],
    dequantize: [],
    transpose: [],
    reorder: [],
  };
  const kinds: Readonly<Record<string, keyof BorderTimes>> = {
    QuantizeLinear: 'quantize',
    DequantizeLinear: 'dequantize',
    Transpose: 'transpose',
    ReorderInput: 'reorder',
    ReorderOutput: 'reorder',
  };
  const model = toBytes(borderModel());
  const shapes = BORDER_SIZES.map(([batch, size]) => [batch, BORDER_CHANNELS, size, size]);
  const feeds = shapes.map((dims): Feeds => {
    const count = dims.reduce((a, b) => a * b, 1);
    const data = Float32Array.from({ length: count }, (_, i) => ((i * 7919) % 255) / 128 - 1);
    return { x: { type: 'float32', dims, data } };
  });
  for (const [s, runs] of (await profiler.profile(model, feeds, BORDER_RUNS)).entries()) {
    const count = shapes[s]!.reduce((a, b) => a * b, 1);
    for (const event of medianEvents(runs)) {
      const kind = kinds[event.op];
      if (kind && event.elements === count) points[kind].push({ elements: event.elements, micros: event.micros });
    }
  }
  return {
    quantize: fitLine(points.quantize),
    dequantize: fitLine(points.dequantize),
    transpose: fitLine(points.transpose),
    reorder: fitLine(points.reorder),
  };
}

/** Line through the least time of the smallest size and the mean of the largest; zeros without points. */
export function fitLine(points: readonly { elements: number; micros: number }[]): LinearTime {
  if (points.length === 0) return { fixed: 0, perElement: 0 };
  const sizes = points.map((p) => p.elements);
  const meanAt = (elements: number): number => {
    const times = points.filter((p) => p.elements === elements).map((p) => p.micros);
    return times.reduce((a, b) => a + b, 0) / times.length;
  };
  const [small, large] = [Math.min(...sizes), Math.max(...sizes)];
  const slope = small === large ? 0 : Math.max(0, (meanAt(large) - meanAt(small)) / (large - small));
  return { fixed: Math.max(0, meanAt(small) - slope * small), perElement: slope };
}

/** Float, int8 and float 3x3 convolution of float [N, 32, H, W]. */
function borderModel(): ModelProto {
  const graph = new Graph(emptyModel(13));
  const channels = BORDER_CHANNELS;
  const dims = [channels, channels, 3, 3];
  const count = dims.reduce((a, b) => a * b, 1);
  const padded = [intsAttribute('kernel_shape', [3, 3]), intsAttribute('pads', [1, 1, 1, 1])];
  const pattern = Int8Array.from({ length: count }, (_, i) => ((i * 37) % 255) - 127);
  const scalar = (name: string, value: number): Value =>
    graph.addInitializer(makeTensor(name, DataType.FLOAT, [], Float32Array.of(value)));
  const scale = scalar('scale', 1 / 64);
  const zero = graph.addInitializer(makeTensor('zero', DataType.UINT8, [], Uint8Array.of(128)));
  const round = (value: Value): Value =>
    graph.insertOp('DequantizeLinear', [graph.insertOp('QuantizeLinear', [value, scale, zero]), scale, zero]);
  const floatConv = (value: Value, name: string): Value => {
    const weights = makeTensor(
      name,
      DataType.FLOAT,
      dims,
      Float32Array.from(pattern, (v) => v / 4096),
    );
    return graph.insertOp(
      'LeakyRelu',
      [graph.insertOp('Conv', [value, graph.addInitializer(weights)], padded)],
      [floatAttribute('alpha', 0.5)],
    );
  };
  graph.addInitializer(makeTensor('codes', DataType.INT8, dims, pattern));
  const weights = graph.insertOp(
    'DequantizeLinear',
    [graph.mustGet('codes'), scalar('step', 1 / 4096)],
    [intAttribute('axis', 0)],
  );
  graph.feed(scalar('x', 0), tensorInfo('x', DataType.FLOAT, ['N', channels, 'H', 'W']));
  const middle = round(graph.insertOp('Conv', [round(floatConv(graph.mustGet('x'), 'w1')), weights], padded));
  const output = floatConv(middle, 'w2');
  output.info = tensorInfo(output.name, DataType.FLOAT, ['N', channels, 'H', 'W']);
  graph.outputs.push(output);
  return graph.toModel();
}
