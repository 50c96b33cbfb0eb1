/** Which indices of which axes can only be removed together, and which must stay, found by following every operator. */
import { DataType } from '../onnx/dtypes.js';
import type { Graph, Node, Use, Value } from '../onnx/graph.js';
import type { Shapes } from '../onnx/macs.js';
import { FREE, Partition } from './partition.js';
import { pruningRule } from './registry.js';
import { Ties, type Axis, type Cause, type DeadEnds, type FollowOptions } from './ties.js';

/** The units of a graph. Values are known by name, so that it holds for models of the same structure with other weights. */
export interface Units {
  /** Axes of every value that a rule has followed. */
  readonly axes: ReadonlyMap<string, readonly Axis[]>;
  /** Class by member. A class bears the number of its first member. */
  readonly classOf: Int32Array;
  /** Number in `causes` by class; 0 where it can be removed. */
  readonly causeOf: Int32Array;
  readonly causes: ReadonlyMap<number, Cause>;
  /** Initializers of which removing a class and setting it to 0 are the same. */
  readonly maskable: ReadonlySet<string>;
  /** Classes that are heads of attention. */
  readonly heads: ReadonlySet<number>;
}

/** Places along an axis whose classes stay, ascending. @param removed 1 for every class that goes */
export function placesLeft({ start, size }: Axis, { classOf }: Pick<Units, 'classOf'>, removed: Uint8Array): number[] {
  const places = Array.from({ length: size }, (_, place) => place);
  // Axes of length 1 have no members.
  return size > 1 ? places.filter((place) => removed[classOf[start + place]!] === 0) : places;
}

const MASKABLE_TYPES = new Set<number>([DataType.FLOAT, DataType.DOUBLE, DataType.FLOAT16, DataType.BFLOAT16]);

/** What is divided by, or goes through a function that is not finite at 0, is left as it is where other slices are zeroed. */
function isDivisor({ node, index }: Use): boolean {
  if (node.is('Div')) return index === 1;
  if (node.is('BatchNormalization')) return index === 4;
  return (node.is('Pow') && index === 0) || node.is('Log') || node.is('Reciprocal');
}

function isMaskable(value: Value): boolean {
  const type = value.initializer?.dataType;
  return type !== undefined && MASKABLE_TYPES.has(type) && ![...value.uses].some(isDivisor);
}

/**
 * Follows all nodes. Where an operator can be followed in several ways (an axis that is split has two that may carry units),
 * the first is taken that leaves something to remove; to know that takes a few passes, each linear in the axes of the graph.
 * @param shapes dims of every computed value and of the inputs; what is missing there is fixed
 */
export function findUnits(graph: Graph, shapes: Shapes, options: FollowOptions = {}): Units {
  const deadEnds: DeadEnds = new Map();
  const nodes = graph.nodes;
  const maskable = new Set<string>();
  for (const value of graph.values()) if (isMaskable(value)) maskable.add(value.name);
  for (;;) {
    const ties = new Ties(graph, new Partition(), shapes, options, ({ name }) => maskable.has(name), deadEnds);
    followAll(nodes, ties);
    if (!findDeadEnds(ties, deadEnds)) return unitsOf(ties, maskable);
  }
}

function followAll(nodes: readonly Node[], ties: Ties): void {
  const { graph } = ties;
  ties.fixInterface([...graph.inputs.filter((value) => graph.isFed(value))], 'input of the model');
  for (const node of nodes) {
    ties.begin(node);
    followNode(node, ties);
    ties.end([...node.inputs, ...node.outputs]);
  }
  ties.fixUnfollowed();
  ties.fixInterface(graph.outputs, 'output of the model');
  ties.fixWhole();
}

function followNode(node: Node, ties: Ties): void {
  const values = [...node.inputs, ...node.outputs];
  const everything = [...values, ...node.captures.map(({ value }) => value)];
  const rule = pruningRule(node);
  if (!rule || node.captures.length > 0) return ties.fixAll(everything, `there is no rule for ${node.opType}`);
  if (values.some((value) => value && !ties.axesKnown(value))) {
    return ties.fixAll(everything, 'the shape of an operand or result is not known');
  }
  rule.follow(node, ties);
}

/** Notes alternatives that were in vain; false when there are no new ones. */
function findDeadEnds(ties: Ties, deadEnds: DeadEnds): boolean {
  let found = false;
  for (const { key, alternative, seen } of ties.choices) {
    if (seen.some((axis) => ties.mayShrink(axis))) continue;
    const dead = deadEnds.get(key) ?? new Set<number>();
    deadEnds.set(key, dead);
    if (!dead.has(alternative)) found = true;
    dead.add(alternative);
  }
  return found;
}

function unitsOf(ties: Ties, maskable: ReadonlySet<string>): Units {
  const { partition } = ties;
  const classOf = Int32Array.from({ length: partition.size }, (_, member) => partition.find(member));
  const causeOf = Int32Array.from(classOf, (unit, member) => (unit === member ? partition.causeOf(unit) : FREE));
  const heads = new Set<number>();
  for (const { start, size } of ties.heads) for (let i = 0; i < size; i++) heads.add(classOf[start + i]);
  return {
    axes: new Map([...ties.axes].map(([value, axes]) => [value.name, axes])),
    classOf,
    causeOf,
    causes: ties.causes,
    maskable,
    heads,
  };
}
