/**
 * A student whose least filters are pulled to 0 while all of it learns: soft filter pruning (He et al. 2018), which zeroes them now
 * and then, and selective weight decay (Tessier et al. 2022), which lets them decay more and more. How many there are of every group
 * is fixed; which ones is chosen anew every time, by the norms of the filters with their normalizations folded in.
 */
import type { ModelProto } from 'onnx-buf';
import { FlowCompressError } from '../errors.js';
import { Graph } from '../onnx/graph.js';
import { findLayers } from '../onnx/layers.js';
import type { RunningStatistics, Student } from '../recovery/recover.js';
import { layoutOf, readParameters, trainableParameters } from '../training/parameters.js';
import { maskedModel } from './cut.js';
import type { Dependencies } from './groups.js';
import { layerUnits, type LayerUnits } from './layer-units.js';
import { CUT_OF_SHRUNK, type ShrinkingMethod } from './methods.js';
import { removalOrders } from './removal-order.js';

export interface ShrinkRequest {
  readonly method: ShrinkingMethod;
  /** What the student was made of, with its normalizations. */
  readonly model: ModelProto;
  readonly student: Student<ModelProto>;
  /** Of what the student stands for: `student.of`. */
  readonly dependencies: Dependencies;
  /** How many units of a group go, by its place in the list. */
  readonly going: ReadonlyMap<number, number>;
  /** Updates between two times that filters are zeroed. */
  readonly interval: number;
  readonly seed: number;
}

/** Statistics as they are in the model that the student was made of. */
const FIRST_STATISTICS: RunningStatistics = { slots: [], values: new Float32Array() };

/** What the student stands for before it has learned anything. */
export function firstState(student: Student<ModelProto>): ModelProto {
  return student.of(readParameters(student.model, student.parameters), FIRST_STATISTICS);
}

/**
 * The student with the pull. It stands for the model in which the filters that would go now are 0, whatever they have grown to: what
 * VAL judges is what the cut will give.
 */
export function shrinkingStudent(request: ShrinkRequest): Student<ModelProto> {
  const { method, student, dependencies, going, interval } = request;
  const least = (flat: Float32Array): Uint8Array =>
    leastUnits(student.of(flat, FIRST_STATISTICS), dependencies, going, request.seed);
  const unitOf = unitsOfParameters(request, method.pull === 'zero' ? 'weights' : 'all');
  const times = (flat: Float32Array, factor: number): Float32Array => {
    const removed = least(flat);
    return flat.map((value, i) => (unitOf[i]! >= 0 && removed[unitOf[i]!] === 1 ? value * factor : value));
  };
  return {
    ...student,
    layout: `${layoutOf(student.parameters)} ${method.name} ${[...going].join(' ')}`,
    of: (flat, running) => maskedModel(student.of(flat, running), { dependencies, removed: least(flat) }),
    adjusted(flat, step, share) {
      if (step === 0) return undefined;
      if (method.pull === 'zero') return step % interval === 0 ? times(flat, 0) : undefined;
      return times(flat, Math.exp(decayUntil((share * (step - 1)) / step) - decayUntil(share)));
    },
  };
}

/** What a filter that is selected all the time decays by. */
const TOTAL_DECAY = Math.log(1000);
/** a_max / a_min. */
const RISE = 10;

/**
 * Minus the logarithm of what selective weight decay has left, after a share of the training, of a weight that was selected all the
 * time. The penalty mu/2 a_k w^2 has the gradient mu a_k w; decoupled from the loss, an update of rate r multiplies w by
 * exp(-r mu a_k). With a_k = a_min RISE^(k / K) the exponents add up to r mu a_min K (RISE^share - 1) / ln RISE; here a_min is such that
 * they come to {@link TOTAL_DECAY}, whatever K and the rate.
 */
export function decayUntil(share: number): number {
  return (TOTAL_DECAY * (RISE ** share - 1)) / (RISE - 1);
}

/** 1 for every class that would go now: of every group as many as there should, those of least norm. */
export function leastUnits(
  model: ModelProto,
  dependencies: Dependencies,
  going: ReadonlyMap<number, number>,
  seed: number,
): Uint8Array {
  const graph = new Graph(model);
  const orders = removalOrders({
    ...{ graph, dependencies, layers: layerUnits(graph, dependencies), grams: new Map(), seed },
    ...{ score: CUT_OF_SHRUNK.score, order: 'lowest' },
  });
  const removed = new Uint8Array(dependencies.units.classOf.length);
  for (const [group, count] of going) for (const unit of orders[group]!.units.slice(0, count)) removed[unit] = 1;
  return removed;
}

/**
 * Class of the unit that every parameter makes, end to end; -1 for parameters that make none.
 * @param parts `weights` alone, or with biases and the scales and shifts of normalizations
 * @throws FlowCompressError `internal` when the student does not learn the model's parameters in their order
 */
function unitsOfParameters({ model, student, dependencies }: ShrinkRequest, parts: 'weights' | 'all'): Int32Array {
  const graph = new Graph(model);
  const slots = trainableParameters(graph);
  if (slots.map(({ size }) => size).join() !== student.parameters.map(({ size }) => size).join())
    throw new FlowCompressError('internal', 'The student learns other parameters than its model has.');
  const made = new Map(
    layerUnits(new Graph(firstState(student)), dependencies).map((units) => [units.layer.name, units.made]),
  );
  const unitAt = new Map<string, (element: number) => number>();
  for (const layer of findLayers(graph)) {
    const units = made.get(layer.name);
    if (!units) continue;
    const inner = layer.dims.slice(layer.channelAxis + 1).reduce((a, b) => a * b, 1);
    unitAt.set(layer.weight.name, (element) => units[Math.floor(element / inner) % units.length]!);
    if (parts === 'all') for (const name of vectorsOf(layer, units)) unitAt.set(name, (element) => units[element]!);
  }
  return Int32Array.from(
    slots.flatMap(({ name, size }) => {
      const of = unitAt.get(name);
      return Array.from({ length: size }, (_, element) => (of ? of(element) : -1));
    }),
  );
}

/** Names of the bias of a layer and of the scale and shift of a normalization right behind it, of one element per unit. */
function vectorsOf({ biasSlot, output, channels }: LayerUnits['layer'], units: Int32Array): string[] {
  if (units.length !== channels) return [];
  const bias = biasSlot?.node.inputs[biasSlot.index];
  const norms = [...output.uses].filter(({ node, index }) => index === 0 && node.is('BatchNormalization'));
  return [bias, ...norms.flatMap(({ node }) => node.inputs.slice(1, 3))].flatMap((value) => value?.name ?? []);
}
