/** Activations that are computed a second time, when the backward pass gets to them. */
import type { Graph, Node, Value } from '../onnx/graph.js';
import { GIVES_OTHER_NUMBERS } from '../onnx/passes/share-nodes.js';
import type { Ordering } from './ordering.js';
import type { Shape } from './rule.js';

export interface Recomputation {
  readonly graph: Graph;
  readonly order: Ordering;
  /** Shapes of all values; those of new ones are added. */
  readonly shapes: Map<string, Shape>;
  /** What depends on the samples; everything else is read as it is. */
  readonly activations: ReadonlySet<Value>;
}

/**
 * Copies of the nodes that begin when `started` are there. Nodes with random numbers or subgraphs are not repeated: their outputs are
 * kept.
 * @returns the copy of every node that has one
 */
export function recompute(
  { graph, order, shapes, activations }: Recomputation,
  nodes: readonly Node[],
  started: readonly Value[],
): Map<Node, Node> {
  const copies = new Map<Node, Node>();
  const known = new Map<Value, Value>();
  const noted = (value: Value, original: Value): Value => {
    shapes.set(value.name, shapes.get(original.name)!);
    known.set(original, value);
    return value;
  };
  const inputOf = (value: Value | undefined): Value | undefined => {
    if (!value || !activations.has(value)) return value;
    const dims = shapes.get(value.name);
    return (
      known.get(value) ?? (dims?.length ? noted(order.after(value, dims as readonly number[], started), value) : value)
    );
  };
  for (const node of nodes) {
    const isActivation = node.outputs.some((output) => output && activations.has(output));
    if (!isActivation || node.captures.length > 0 || GIVES_OTHER_NUMBERS.has(node.opType)) continue;
    const copy = graph.insert({
      ...{ opType: node.opType, domain: node.domain, attributes: [...node.attributes.values()] },
      inputs: node.inputs.map(inputOf),
      outputs: node.outputs.map((output) => graph.uniqueName(`${output?.name ?? node.label} again`)),
    });
    node.outputs.forEach((output, i) => {
      if (output && shapes.has(output.name)) noted(copy.outputs[i]!, output);
    });
    copies.set(node, copy);
  }
  return copies;
}
