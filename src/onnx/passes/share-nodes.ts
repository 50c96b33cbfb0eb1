/** Common subexpressions: nodes that compute the same from the same values become one. */
import { toBinary } from '@bufbuild/protobuf';
import { AttributeProtoSchema } from 'onnx-buf';
import type { Graph, Node } from '../graph.js';

/** Operators that give other numbers at every call. */
export const GIVES_OTHER_NUMBERS: ReadonlySet<string> = new Set([
  'RandomNormal',
  'RandomNormalLike',
  'RandomUniform',
  'RandomUniformLike',
  'Multinomial',
  'Bernoulli',
  'Dropout',
]);

/** Merges equal nodes in place, those that become equal by it too; returns how many went. Nodes with subgraphs are left alone. */
export function shareNodes(graph: Graph): number {
  const first = new Map<string, Node>();
  const numbers = new Map<object, number>();
  const idOf = (value: object | undefined): string => {
    if (!value) return '';
    let number = numbers.get(value);
    if (number === undefined) numbers.set(value, (number = numbers.size));
    return String(number);
  };
  let merged = 0;
  for (const node of graph.nodes) {
    if (GIVES_OTHER_NUMBERS.has(node.opType) || node.captures.length > 0) continue;
    if (node.outputs.some((output) => output && graph.isGraphOutput(output))) continue;
    const attributes = [...node.attributes.values()]
      .map((attribute) => toBinary(AttributeProtoSchema, attribute).join())
      .sort();
    const key = JSON.stringify([node.domain, node.opType, node.inputs.map(idOf), node.outputs.length, attributes]);
    const earlier = first.get(key);
    if (!earlier) {
      first.set(key, node);
      continue;
    }
    node.outputs.forEach((output, i) => {
      const same = earlier.outputs[i];
      if (output && same) graph.replaceUses(output, same);
    });
    if (node.outputs.every((output) => !output || output.uses.size === 0)) {
      graph.remove(node);
      merged++;
    }
  }
  return merged;
}
