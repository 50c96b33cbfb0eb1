/** Where a cut model and its original stand side by side: values that play the same part in both, and the channels that are left. */
import type { ModelProto } from 'onnx-buf';
import { postActivation } from '../flow/post-activation.js';
import { Graph, type Value } from '../onnx/graph.js';
import { findLayers, type WeightLayer } from '../onnx/layers.js';
import type { TaughtValue } from '../recovery/hints.js';
import type { Branch } from './branches.js';

export interface CutModel {
  readonly original: ModelProto;
  /** A part of the original, with the names that values and layers have there. */
  readonly model: ModelProto;
  /** Output channels of the original that are left of each layer. */
  readonly kept: ReadonlyMap<string, readonly number[]>;
  /** What was taken out of the original. */
  readonly gone: readonly Branch[];
}

/**
 * Values of the cut model that can learn to be those of the original, in topological order: the sums that end residual branches,
 * or what activation functions give where there are none.
 */
export function sharedPlaces({ original, model, kept, gone }: CutModel): TaughtValue[] {
  const source = new Graph(original);
  const graph = new Graph(model);
  const before = new Map(findLayers(source).map((layer) => [layer.name, layer]));
  const pairs = findLayers(graph).flatMap((layer) => {
    const old = before.get(layer.name);
    const channels = kept.get(layer.name);
    return old && channels?.length === layer.channels ? [{ layer, old, channels }] : [];
  });
  const sums = pairs.flatMap(({ layer, old, channels }): TaughtValue[] => {
    const ends = [branchEnd(graph, resultOf(layer)), branchEnd(source, resultOf(old))];
    if (!ends[0] || !ends[1]) return [];
    const wanted = behindGone(ends[1].sum, gone);
    const both = [rectified(ends[0].sum), rectified(wanted)];
    const [own, theirs] = both[0] && both[1] ? both : [ends[0].sum, wanted];
    return [taughtValue(own!, theirs!, layer, old, channels)];
  });
  if (sums.length > 0) return sums;
  return pairs.flatMap(({ layer, old, channels }) => {
    const [own, theirs] = [postActivation(graph, layer.output), postActivation(source, old.output)];
    if (own.path.length === 0 || theirs.path.length === 0) return [];
    return [taughtValue(graph.mustGet(own.output), source.mustGet(theirs.output), layer, old, channels)];
  });
}

/** The same for a model that has all channels of the original and its names, but for those of values that are computed in another way. */
export function samePlaces(original: ModelProto, model: ModelProto): TaughtValue[] {
  const layers = findLayers(new Graph(original));
  const kept = new Map(layers.map(({ name, channels }) => [name, Array.from({ length: channels }, (_, c) => c)]));
  return placesIn(model, sharedPlaces({ original, model: original, kept, gone: [] }));
}

/** The places whose values the model still has under their names. */
export function placesIn(model: ModelProto, places: readonly TaughtValue[]): TaughtValue[] {
  const graph = new Graph(model);
  return places.filter(({ student }) => graph.value(student) !== undefined);
}

function taughtValue(
  own: Value,
  theirs: Value,
  layer: WeightLayer,
  old: WeightLayer,
  channels: readonly number[],
): TaughtValue {
  return {
    ...{ student: own.name, teacher: theirs.name },
    // Convolutions have their channels behind the samples, products of matrices at the end.
    ...(channels.length < old.channels && { part: { axis: layer.op.startsWith('Conv') ? 1 : -1, channels } }),
  };
}

/** What the layer gives, its bias added. */
export function resultOf({ biasSlot, output }: WeightLayer): Value {
  return biasSlot?.node.outputs[0] ?? output;
}

/** The sum that ends a residual branch, and what the branch is added to. */
export function branchEnd(graph: Graph, result: Value): { sum: Value; skip: Value } | undefined {
  if (result.uses.size !== 1 || graph.isGraphOutput(result)) return undefined;
  const [use] = result.uses;
  if (!use || use.index < 0 || !use.node.is('Add')) return undefined;
  const skip = use.node.inputs[1 - use.index];
  return skip && skip !== result && !graph.constant(skip) ? { sum: use.node.outputs[0]!, skip } : undefined;
}

/** The value whose part this one plays once branches that started from it are gone. */
export function behindGone(value: Value, gone: readonly Branch[]): Value {
  for (let current = value; ;) {
    const next = goneFrom(current, gone) ?? goneFrom(rectified(current), gone);
    if (!next) return current;
    current = next;
  }
}

function goneFrom(value: Value | undefined, gone: readonly Branch[]): Value | undefined {
  const branch = value && gone.find(({ skip }) => skip === value.name);
  if (!branch) return undefined;
  const uses = [...value.uses];
  // The graph of the branch may be another one of the same model: nodes are told by label.
  const inside = new Set([...branch.nodes].map(({ label }) => label));
  if (!uses.every(({ node }) => inside.has(node.label))) return undefined;
  return uses.find(({ node }) => node.label === branch.name)?.node.outputs[0];
}

/** What Relu makes of the value, if that is all that becomes of it: fitting in front of it, any number below 0 will do for 0. */
function rectified(value: Value): Value | undefined {
  const [use] = value.uses;
  return value.uses.size === 1 && use!.index === 0 && use!.node.is('Relu') ? use!.node.outputs[0] : undefined;
}
