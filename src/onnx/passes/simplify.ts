/** Cheap rewrites that leave every number as it is and make the file smaller: fewer nodes, no duplicate constants. */
import { intsAttribute } from '../attributes.js';
import { findDataType } from '../dtypes.js';
import type { Graph, Node, Value } from '../graph.js';
import { readInts } from '../tensor.js';
import { elementTypeOf } from './infer.js';
import { inlineConstants } from './inline-constants.js';
import { shareInitializers } from './share-initializers.js';

/** Element types of values that a run has shown, for example what `traceShapes` returns. */
export type ValueTypes = ReadonlyMap<string, { readonly type: string }>;

/**
 * Removes Constant, Identity and no-op Cast and Transpose nodes, merges chains of Reshape, Transpose, and Squeeze with
 * Unsqueeze, and lets equal initializers be one. Runs in place until nothing changes; returns how many nodes went.
 * @param types what is known of element types beyond the file's own declarations
 */
export function simplify(graph: Graph, types?: ValueTypes): number {
  const before = graph.nodeCount;
  inlineConstants(graph);
  for (let changed = true; changed;) {
    changed = false;
    for (const node of graph.nodes) {
      // A node behind one that was merged away may be gone already.
      if (node.outputs.every((v) => !v || (v.uses.size === 0 && !graph.isGraphOutput(v)))) continue;
      changed = simplifyNode(graph, node, types) || changed;
    }
    graph.removeDead();
  }
  shareInitializers(graph);
  graph.removeDead();
  return before - graph.nodeCount;
}

function simplifyNode(graph: Graph, node: Node, types: ValueTypes | undefined): boolean {
  if (node.domain !== '') return false;
  switch (node.opType) {
    case 'Cast':
      return dropCast(graph, node, types);
    case 'Reshape':
      return mergeReshapes(graph, node);
    case 'Transpose':
      return mergeTransposes(graph, node);
    case 'Squeeze':
      return cancelAxes(graph, node, 'Unsqueeze');
    case 'Unsqueeze':
      return cancelAxes(graph, node, 'Squeeze');
    default:
      return false;
  }
}

/** Lets the readers of a node read `source`. Not where the node gives a public name to an input or another output. */
function bypass(graph: Graph, node: Node, source: Value): boolean {
  const output = node.outputs[0]!;
  if (graph.isGraphOutput(output) && (!source.producer || graph.isGraphOutput(source))) return false;
  graph.replaceUses(output, source);
  graph.remove(node);
  return true;
}

function dropCast(graph: Graph, node: Node, types: ValueTypes | undefined): boolean {
  const input = node.inputs[0];
  if (!input) return false;
  const to = node.int('to', 0);
  const traced = types?.get(input.name)?.type;
  const same = traced === undefined ? elementTypeOf(input) === to : findDataType(to)?.name === traced;
  return same && bypass(graph, node, input);
}

/** Operators that keep the elements in their order, so that a Reshape behind them may read what they read. */
const KEEPS_ORDER = new Set(['Reshape', 'Flatten', 'Squeeze', 'Unsqueeze']);

function mergeReshapes(graph: Graph, node: Node): boolean {
  const before = node.inputs[0]?.producer;
  if (!before || before.domain !== '' || !KEEPS_ORDER.has(before.opType) || !before.inputs[0]) return false;
  // A shape that is computed may be there for its order.
  if (before.is('Reshape') && !graph.constant(before.inputs[1])) return false;
  const shape = graph.constant(node.inputs[1]);
  // A 0 copies a size of the very operand.
  if (!shape || readInts(shape).includes(0)) return false;
  graph.setInput(node, 0, before.inputs[0]);
  return true;
}

function mergeTransposes(graph: Graph, node: Node): boolean {
  const input = node.inputs[0];
  const perm = node.ints('perm');
  if (!input || !perm) return false;
  if (perm.every((axis, i) => axis === i)) return bypass(graph, node, input);
  const before = input.producer;
  const first = before?.is('Transpose') ? before.ints('perm') : undefined;
  const source = before?.inputs[0];
  if (!first || !source || first.length !== perm.length) return false;
  graph.setAttribute(
    node,
    intsAttribute(
      'perm',
      perm.map((axis) => first[axis]!),
    ),
  );
  graph.setInput(node, 0, source);
  return true;
}

/** Squeeze and Unsqueeze of the same axes, one behind the other. */
function cancelAxes(graph: Graph, node: Node, inverse: 'Squeeze' | 'Unsqueeze'): boolean {
  const before = node.inputs[0]?.producer;
  if (!before?.is(inverse) || !before.inputs[0]) return false;
  const [inner, outer] = [axesOf(graph, before), axesOf(graph, node)];
  if (!inner || !outer || inner.length !== outer.length) return false;
  // Negative axes count from the end of tensors of different rank here; both or neither may be negative.
  const sorted = (axes: number[]): number[] => [...axes].sort((a, b) => a - b);
  const [a, b] = [sorted(inner), sorted(outer)];
  const consistent = a.every((axis) => axis >= 0) || a.every((axis) => axis < 0);
  return consistent && a.every((axis, i) => axis === b[i]) && bypass(graph, node, before.inputs[0]);
}

function axesOf(graph: Graph, node: Node): number[] | undefined {
  const axes = graph.constant(node.inputs[1]);
  return axes ? readInts(axes) : node.ints('axes');
}
