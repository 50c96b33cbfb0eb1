/** Dependency groups: units that lie in the same weights, as a person and a ranking want to see them. */
import type { ModelProto } from 'onnx-buf';
import { Graph, type Node, type Use, type Value } from '../onnx/graph.js';
import { axisFromStart } from '../onnx/axis.js';
import { loadTimeValues } from '../onnx/load-time.js';
import type { Shapes } from '../onnx/macs.js';
import { FREE } from './partition.js';
import { pruningRule } from './registry.js';
import type { FollowOptions } from './ties.js';
import { findUnits, type Units } from './units.js';

/** `producer`: holds what a layer makes; `consumer`: what it sums over; `scale`: anything that goes along with it. */
export type MemberRole = 'producer' | 'consumer' | 'scale';

/** An axis of an initializer that loses slices when a unit goes. */
export interface GroupMember {
  readonly initializer: string;
  readonly axis: number;
  readonly role: MemberRole;
  /** Label of the first node that reads it. */
  readonly node: string;
  /** Slices of the first unit. */
  readonly slices: number;
}

/**
 * `filters` of convolutions, `neurons` of other products, `heads` of attention, `embedding`: columns of a table of vectors,
 * `inputs`: slices that only see constants.
 */
export type GroupKind = 'filters' | 'neurons' | 'heads' | 'embedding' | 'inputs';

export interface DependencyGroup {
  /** Place in the list. */
  readonly index: number;
  readonly kind: GroupKind;
  /** Labels of the layers that make what the units are, in topological order. */
  readonly layers: readonly string[];
  readonly members: readonly GroupMember[];
  /** Classes of {@link Units}, in the order of their slices. */
  readonly units: Int32Array;
}

/** What a layer makes and nobody can remove. */
export interface FixedUnits {
  readonly layer: string;
  readonly op: string;
  /** How many of what the layer makes, and how many that are in all. */
  readonly count: number;
  readonly of: number;
  readonly reason: string;
  /** Label of the node at fault; absent for the interface of the model. */
  readonly node?: string;
}

export interface Dependencies {
  readonly groups: readonly DependencyGroup[];
  readonly fixed: readonly FixedUnits[];
  readonly units: Units;
}

/**
 * The groups of a model in topological order. Linear in the axes of all values.
 * @param shapes dims of every computed value and of the inputs, as {@link traceShapes} shows them
 */
export function dependencyGroups(model: ModelProto | Graph, shapes: Shapes, options: FollowOptions = {}): Dependencies {
  const graph = model instanceof Graph ? model : new Graph(model);
  const units = findUnits(graph, shapes, options);
  const nodes = graph.nodes;
  const layers = layersOf(graph, nodes, units);
  return { groups: collectGroups(nodes, units, layers), fixed: fixedUnits(units, layers), units };
}

/** The axis of a layer's result that holds what the layer makes. */
interface LayerResult {
  readonly node: Node;
  readonly start: number;
  readonly size: number;
}

function layersOf(graph: Graph, nodes: readonly Node[], { axes }: Units): LayerResult[] {
  const known = loadTimeValues(graph);
  const layers: LayerResult[] = [];
  for (const node of nodes) {
    const layer = pruningRule(node)?.layer;
    const output = node.outputs[0];
    const weight = layer && node.inputs[layer.weight];
    if (!weight || !output || !known.has(weight) || known.has(output)) continue;
    const own = axes.get(output.name);
    const made = own?.[axisFromStart(layer.made, own.length)];
    if (made && made.size > 1) layers.push({ node, ...made });
  }
  return layers;
}

interface Draft {
  readonly units: number[];
  readonly members: { readonly value: Value; readonly axis: number }[];
  readonly layers: Node[];
}

function collectGroups(nodes: readonly Node[], units: Units, layers: readonly LayerResult[]): DependencyGroup[] {
  const { classOf, causeOf, heads } = units;
  const places = storedAxes(nodes, units);
  // The places of a class, as a path in a tree: classes with the same places end at the same number.
  const path = new Int32Array(classOf.length);
  const lastPlace = new Int32Array(classOf.length).fill(-1);
  const next = new Map<number, number>();
  const classes: number[] = [];
  for (const [place, { start, size }] of places.entries()) {
    for (let i = 0; i < size; i++) {
      const unit = classOf[start + i];
      if (causeOf[unit] !== FREE || lastPlace[unit] === place) continue;
      if (lastPlace[unit] < 0) classes.push(unit);
      lastPlace[unit] = place;
      const step = path[unit] * places.length + place;
      if (!next.has(step)) next.set(step, next.size + 1);
      path[unit] = next.get(step)!;
    }
  }
  const drafts = new Map<number, Draft>();
  for (const unit of classes) {
    let draft = drafts.get(path[unit]);
    if (!draft) drafts.set(path[unit], (draft = { units: [], members: [], layers: [] }));
    draft.units.push(unit);
  }
  const firsts = new Map([...drafts.values()].map((draft) => [draft.units[0], draft]));
  const slices = new Map<Draft, number[]>();
  for (const { value, axis, start, size } of places) {
    const counts = new Map<Draft, number>();
    for (let i = 0; i < size; i++) {
      const draft = firsts.get(classOf[start + i]);
      if (draft) counts.set(draft, (counts.get(draft) ?? 0) + 1);
    }
    for (const [draft, count] of counts) {
      draft.members.push({ value, axis });
      slices.set(draft, [...(slices.get(draft) ?? []), count]);
    }
  }
  for (const { node, start, size } of layers) {
    const made = new Set<Draft>();
    for (let i = 0; i < size; i++) {
      const draft = drafts.get(path[classOf[start + i]]);
      if (draft) made.add(draft);
    }
    for (const draft of made) draft.layers.push(node);
  }
  return [...drafts.values()].map((draft, index) => ({
    index,
    kind: kindOf(draft, heads),
    layers: draft.layers.map(({ label }) => label),
    members: draft.members.map(({ value, axis }, at) => ({
      initializer: value.name,
      axis,
      ...roleOf(value, axis),
      slices: slices.get(draft)![at],
    })),
    units: Int32Array.from(draft.units),
  }));
}

interface StoredAxis {
  readonly value: Value;
  readonly axis: number;
  readonly start: number;
  readonly size: number;
}

/** The axes of initializers that rules have followed, in the order of the nodes that read them. */
function storedAxes(nodes: readonly Node[], { axes }: Units): StoredAxis[] {
  const seen = new Set<Value>();
  const places: StoredAxis[] = [];
  for (const node of nodes) {
    for (const value of node.inputs) {
      if (!value?.isInitializer || seen.has(value)) continue;
      seen.add(value);
      for (const [axis, own] of (axes.get(value.name) ?? []).entries()) {
        if (own.size > 1) places.push({ value, axis, ...own });
      }
    }
  }
  return places;
}

function kindOf({ units, layers }: Draft, heads: ReadonlySet<number>): GroupKind {
  if (heads.has(units[0])) return 'heads';
  if (layers.length === 0) return 'inputs';
  if (layers.some(({ opType }) => opType === 'Gather')) return 'embedding';
  return layers.some(({ opType }) => opType.startsWith('Conv')) ? 'filters' : 'neurons';
}

function roleOf(value: Value, axis: number): { role: MemberRole; node: string } {
  const uses = [...value.uses].map((use) => ({ role: roleIn(use, axis, value), node: use.node.label }));
  return uses.find(({ role }) => role !== 'scale') ?? uses[0];
}

function roleIn({ node, index }: Use, axis: number, value: Value): MemberRole {
  const layer = pruningRule(node)?.layer;
  if (!layer) return 'scale';
  // The bias of a convolution or Gemm.
  if (index === 2) return 'producer';
  if (index !== layer.weight) return 'scale';
  const rank = value.initializer?.dims.length ?? 0;
  const { producer, consumer } = layer.axes(node);
  if (axis === axisFromStart(producer, rank)) return 'producer';
  return consumer !== undefined && axis === axisFromStart(consumer, rank) ? 'consumer' : 'scale';
}

function fixedUnits({ classOf, causeOf, causes }: Units, layers: readonly LayerResult[]): FixedUnits[] {
  const lines: FixedUnits[] = [];
  for (const { node, start, size } of layers) {
    const counts = new Map<number, number>();
    for (let i = 0; i < size; i++) {
      const cause = causeOf[classOf[start + i]];
      if (cause !== FREE) counts.set(cause, (counts.get(cause) ?? 0) + 1);
    }
    for (const [number, count] of counts) {
      const { reason, node: at } = causes.get(number)!;
      lines.push({
        layer: node.label,
        op: node.opType,
        count,
        of: size,
        reason,
        ...(at !== undefined && { node: at }),
      });
    }
  }
  return lines;
}
