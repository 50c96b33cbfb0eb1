/** Residual branches that can be taken out whole: the sum keeps its other operand. */
import type { ModelProto } from 'onnx-buf';
import { findBlocks } from '../flow/blocks.js';
import { Graph, type Node, type Value } from '../onnx/graph.js';
import { findLayers } from '../onnx/layers.js';
import type { Shapes } from '../onnx/macs.js';

export interface Branch {
  readonly kind: 'branch';
  /** Label of the sum. */
  readonly name: string;
  /** Names of the sum's result and of the operand that stays. */
  readonly output: string;
  readonly skip: string;
  /** Names of the weight layers that go. */
  readonly layers: readonly string[];
  /** What is computed for the branch alone, and the sum. */
  readonly nodes: ReadonlySet<Node>;
}

/**
 * Branches in topological order: residual blocks, attention and MLP sublayers.
 * @param shapes dims of every value
 */
export function removableBranches(graph: Graph, shapes: Shapes): Branch[] {
  const layers = findLayers(graph);
  const nameOf = new Map(layers.map(({ node, name }) => [node, name]));
  return findBlocks(graph, layers).flatMap(({ name, add, output, skip, branch }) => {
    const dims = [output, skip].map((value) => shapes.get(value.name)?.dims.join());
    if (dims[0] === undefined || dims[0] !== dims[1]) return [];
    const nodes = onlyFor(graph, branch, skip, add);
    const gone = [...nodes].flatMap((node) => nameOf.get(node) ?? []);
    const order = new Map(layers.map((layer, i) => [layer.name, i]));
    gone.sort((a, b) => order.get(a)! - order.get(b)!);
    return gone.length > 0
      ? [{ kind: 'branch' as const, name, output: output.name, skip: skip.name, layers: gone, nodes }]
      : [];
  });
}

/** The sum and all nodes whose results only serve its operand `branch`. */
function onlyFor(graph: Graph, branch: Value, skip: Value, sum: Node): Set<Node> {
  const dead = new Set<Node>([sum]);
  const waiting = [branch];
  for (let value = waiting.pop(); value; value = waiting.pop()) {
    const node = value.producer;
    // What stays is read in the place of the sum.
    if (!node || dead.has(node) || value === skip) continue;
    const idle = node.outputs.every(
      (output) => !output || (!graph.isGraphOutput(output) && [...output.uses].every((use) => dead.has(use.node))),
    );
    if (!idle) continue;
    dead.add(node);
    for (const input of node.inputs) if (input) waiting.push(input);
  }
  return dead;
}

/** The model without branches of these names; their sums pass on what stays. */
export function removeBranches(model: ModelProto, names: ReadonlySet<string>): ModelProto {
  if (names.size === 0) return model;
  const graph = new Graph(model);
  const chosen = findBlocks(graph, findLayers(graph)).filter(({ name }) => names.has(name));
  // By place: the operand that stays may be the sum of another branch that goes.
  const places = chosen.map(({ add, skip, output }) => ({ add, output, index: add.inputs.indexOf(skip) }));
  for (const { add, output, index } of places) graph.replaceUses(output, add.inputs[index]!);
  graph.removeDead();
  return graph.toModel();
}
