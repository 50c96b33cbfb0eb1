/**
 * Relu of a Relu is the Relu itself. Chains of them are what is left where residual branches were taken out; ONNX Runtime
 * 1.30 breaks models in which such a chain executes in int8.
 */
import type { Graph } from '../graph.js';

/** @returns how many went */
export function dropRepeatedRelu(graph: Graph): number {
  let dropped = 0;
  for (const node of [...graph.nodes]) {
    const [input, output] = [node.inputs[0], node.outputs[0]];
    if (!node.is('Relu') || !input || !output || graph.isGraphOutput(output)) continue;
    if (!input.producer?.is('Relu')) continue;
    graph.replaceUses(output, input);
    dropped++;
  }
  graph.removeDead();
  return dropped;
}
