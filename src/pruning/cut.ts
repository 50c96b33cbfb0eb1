/** Removes units from a model: slices of all weights that hold them, and everything that states a size. */
import type { ModelProto, ValueInfoProto } from 'onnx-buf';
import { FlowCompressError } from '../errors.js';
import { Graph } from '../onnx/graph.js';
import { withFields } from '../onnx/message.js';
import { Mender, type Kept } from './mender.js';
import { pruningRule } from './registry.js';
import type { Selection } from './selection.js';
import { keepSlices, zeroSlices } from './slices.js';
import type { Axis } from './ties.js';
import { placesLeft } from './units.js';

/** What stays along the axes of all values. */
class Remains {
  private readonly known = new Map<Axis, Kept>();

  constructor(private readonly selection: Selection) {}

  axes(name: string): readonly Axis[] {
    return this.selection.dependencies.units.axes.get(name) ?? [];
  }

  /** By axis. */
  of(name: string): Kept[] {
    return this.axes(name).map((axis) => this.along(axis));
  }

  private along(axis: Axis): Kept {
    if (axis.size <= 1) return undefined;
    if (this.known.has(axis)) return this.known.get(axis);
    const { removed, dependencies } = this.selection;
    const kept = placesLeft(axis, dependencies.units, removed);
    const result = kept.length === axis.size ? undefined : Int32Array.from(kept);
    this.known.set(axis, result);
    return result;
  }
}

/**
 * The model without the selected units, in one rewrite. Weights that hold none of them are shared with the original, not
 * copied; weights that several nodes read stay shared.
 * @param model the one that the selection was made for, or one of the same structure with other weights
 * @throws FlowCompressError `bad-input` when the selection belongs to another model, or would leave nothing of a value
 */
export function cutUnits(model: ModelProto, selection: Selection): ModelProto {
  const graph = new Graph(model);
  const remains = new Remains(selection);
  refuseStrangers(graph, remains);
  refuseEmpty(remains, selection);
  mendNodes(graph, remains);
  for (const value of graph.values()) {
    const kept = remains.of(value.name);
    if (!kept.some((axis) => axis)) continue;
    if (value.initializer) graph.setInitializer(value, keepSlices(value.initializer, kept));
    else if (value.info) value.info = shortened(value.info, kept);
  }
  // Constants that were given anew leave the old ones without readers.
  graph.removeDead();
  return graph.toModel();
}

/**
 * The original with zeros in the weights of the selected units: where no unit is summed over without weights of its own,
 * which `dependencyGroups` makes sure of, its outputs are those of the cut model. Errors as {@link cutUnits}.
 */
export function maskedModel(model: ModelProto, selection: Selection): ModelProto {
  const graph = new Graph(model);
  const remains = new Remains(selection);
  refuseStrangers(graph, remains);
  for (const value of graph.values()) {
    if (!value.initializer || !selection.dependencies.units.maskable.has(value.name)) continue;
    const kept = remains.of(value.name);
    if (kept.some((axis) => axis)) graph.setInitializer(value, zeroSlices(value.initializer, kept));
  }
  return graph.toModel();
}

function refuseStrangers(graph: Graph, remains: Remains): void {
  for (const value of graph.values()) {
    const axes = remains.axes(value.name);
    if (!value.initializer || axes.length === 0) continue;
    const dims = value.initializer.dims.map(Number);
    if (dims.length === axes.length && dims.every((size, axis) => size === axes[axis].size)) continue;
    throw new FlowCompressError('bad-input', `The selection was made for another model: ${value.name} differs.`, {
      node: value.name,
      hint: 'Find the dependency groups of this model, and select from them.',
    });
  }
}

function refuseEmpty(remains: Remains, { dependencies }: Selection): void {
  for (const name of dependencies.units.axes.keys()) {
    if (remains.of(name).some((kept) => kept?.length === 0)) {
      throw new FlowCompressError('bad-input', `Nothing would be left of ${name}.`, {
        node: name,
        hint: 'Leave one unit of what it is made of.',
      });
    }
  }
}

function mendNodes(graph: Graph, remains: Remains): void {
  const mender = new Mender(
    graph,
    ({ name }, axis) => remains.of(name)[axis],
    ({ name }) => remains.axes(name).map(({ size }) => size),
  );
  for (const node of graph.nodes) {
    const { mend } = pruningRule(node) ?? {};
    if (!mend) continue;
    const values = [...node.inputs, ...node.outputs];
    if (values.some((value) => value && remains.of(value.name).some((kept) => kept))) mend(node, mender);
  }
}

function shortened(info: ValueInfoProto, kept: readonly Kept[]): ValueInfoProto {
  const type = info.type?.value;
  if (!info.type || type?.case !== 'tensorType' || !type.value.shape) return info;
  const dim = type.value.shape.dim.map((size, axis) =>
    kept[axis] && size.value.case === 'dimValue'
      ? withFields(size, { value: { case: 'dimValue' as const, value: BigInt(kept[axis].length) } })
      : size,
  );
  const shape = withFields(type.value.shape, { dim });
  const value = { case: 'tensorType' as const, value: withFields(type.value, { shape }) };
  return withFields(info, { type: withFields(info.type, { value }) });
}
