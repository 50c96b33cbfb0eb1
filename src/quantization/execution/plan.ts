/**
 * Which connected regions of a model execute in int8: the minimum cut of a network in which every node pays for the
 * precision it gets and every tensor that crosses between precisions pays for its conversion, once.
 */
import { flowNetwork } from '../../linalg/max-flow.js';
import type { Graph, Node, Value } from '../../onnx/graph.js';
import { activationInputs, type Int8Candidate } from './candidates.js';
import { resultsOf } from './quantized-values.js';

/** Times in any one unit. */
export interface ExecutionCosts {
  /** Time of a candidate with the nodes it absorbs, by its key. */
  node(candidate: Int8Candidate, execution: 'int8' | 'float'): number;
  /** Rounding a float tensor for int8 readers. */
  quantize(value: Value): number;
  /** Handing an int8 tensor to float readers. */
  dequantize(value: Value): number;
  /** What a candidate in int8 loses for each activation input that a float node computes, beside its rounding. */
  entry(candidate: Int8Candidate): number;
}

/**
 * The cheapest set of candidates to execute in int8, exact for these costs; among equally cheap sets the smallest.
 * Nodes that are no candidates execute in float; so do the model's inputs and outputs.
 * @returns names of first outputs
 */
export function planRegions(
  graph: Graph,
  candidates: ReadonlyMap<string, Int8Candidate>,
  costs: ExecutionCosts,
): Set<string> {
  const network = flowNetwork();
  const int8Side = network.addVertex();
  const floatSide = network.addVertex();
  const vertexOf = new Map<Node, number>();
  for (const candidate of candidates.values()) {
    const vertex = network.addVertex();
    for (const node of candidate.unit) vertexOf.set(node, vertex);
    network.addEdge(int8Side, vertex, costs.node(candidate, 'float'));
    network.addEdge(vertex, floatSide, costs.node(candidate, 'int8'));
  }
  const readersOf = (value: Value, made: Node | undefined): Set<number> => {
    const readers = new Set<number>();
    for (const { node, index } of value.uses) {
      const vertex = vertexOf.get(node);
      if (made && vertex !== undefined && vertex === vertexOf.get(made)) continue;
      const takesInt8 = vertex !== undefined && activationInputs(graph, node).includes(node.inputs[index]!);
      readers.add(takesInt8 ? vertex : floatSide);
    }
    if (graph.isGraphOutput(value)) readers.add(floatSide);
    return readers;
  };
  const tensors = new Map<Value, number>();
  for (const { node } of candidates.values()) {
    for (const value of activationInputs(graph, node)) if (!tensors.has(value)) tensors.set(value, floatSide);
  }
  for (const { node } of candidates.values()) {
    for (const value of resultsOf(graph, node)) tensors.set(value, vertexOf.get(node)!);
  }
  for (const candidate of candidates.values()) {
    const entry = costs.entry(candidate);
    if (entry === 0) continue;
    for (const value of new Set(activationInputs(graph, candidate.node))) {
      network.addEdge(vertexOf.get(candidate.node)!, tensors.get(value)!, entry);
    }
  }
  for (const [value, maker] of tensors) {
    const readers = readersOf(value, value.producer);
    const quantize = network.addVertex();
    const dequantize = network.addVertex();
    network.addEdge(quantize, maker, costs.quantize(value));
    network.addEdge(maker, dequantize, costs.dequantize(value));
    for (const reader of readers) {
      network.addEdge(reader, quantize, Infinity);
      network.addEdge(dequantize, reader, Infinity);
    }
  }
  const { sourceSide } = network.minimumCut(int8Side, floatSide);
  const int8 = new Set<string>();
  for (const [name, { node }] of candidates) if (sourceSide[vertexOf.get(node)!]) int8.add(name);
  return int8;
}
