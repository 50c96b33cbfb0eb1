/**
 * Where quantization enters a model: which values are quantized around the nodes that execute in int8, which weights and
 * biases are replaced. How they are written is the writer's: packed for the file that ships, plain for the simulation.
 */
import type { ModelProto } from 'onnx-buf';
import { FlowCompressError } from '../errors.js';
import { Graph, type Node, type Value } from '../onnx/graph.js';
import { findLayers, type WeightLayer } from '../onnx/layers.js';
import { readFloats } from '../onnx/tensor.js';
import type { ActivationQuantizer } from './activation-range.js';
import { quantizeShortcut } from '../onnx/passes/shortcut-to-conv.js';
import { layersBetweenQuantizers, quantizedValues } from './execution/quantized-values.js';
import type { Grid } from './grid.js';

/** Rounded weights of one layer: w = scales[row's channel] * (codes + grid.offset), codes as a [rows, cols] matrix. */
export interface QuantizedWeights {
  readonly grid: Grid;
  readonly codes: Int8Array;
  /** One per output channel. */
  readonly scales: Float32Array;
  /** Bias after correction, one per output channel; absent when the layer's own bias stays as it is. */
  readonly bias?: Float32Array;
}

export interface Deployment {
  /** Quantized weights by layer name; layers that are missing keep their float weights. */
  readonly weights: ReadonlyMap<string, QuantizedWeights>;
  /** Quantizers by value name. */
  readonly activations: ReadonlyMap<string, ActivationQuantizer>;
  /** Nodes that execute in int8, by the name of their first output. */
  readonly int8: ReadonlySet<string>;
}

/** Puts quantized weights, activations and biases into a graph in one particular form. */
export interface Writer {
  /** The weight of a layer. `input` is the quantizer of its activation when the layer executes in int8. */
  weight(layer: WeightLayer, weights: QuantizedWeights, input: ActivationQuantizer | undefined): Value;
  /** The bias of an int8 Conv or Gemm, whose accumulator counts in steps of input scale times weight scale. */
  bias(layer: WeightLayer, bias: Value, weights: QuantizedWeights, input: ActivationQuantizer): Value;
  /** The value rounded to uint8 and back. */
  activation(value: Value, quantizer: ActivationQuantizer): Value;
  /** A corrected bias that stays float. */
  floatBias(layer: WeightLayer, bias: Float32Array): Value;
  finish(): void;
}

/**
 * Puts the plan into the model in the form that `writerFor` makes.
 * @param model a prepared float model (constants inlined, batch norms folded), opset 13 or newer
 * @throws FlowCompressError `internal` when an int8 node has an activation without a quantizer.
 */
export function place(model: ModelProto, plan: Deployment, writerFor: (graph: Graph) => Writer): ModelProto {
  const graph = new Graph(model);
  const writer = writerFor(graph);
  const layers = findLayers(graph);
  const isInt8 = (node: Node): boolean => plan.int8.has(node.outputs[0]?.name ?? '');
  const activations = quantizedValues(graph, plan.int8);
  const between = layersBetweenQuantizers(graph, plan.int8);
  for (const node of graph.nodes) if (isInt8(node)) quantizeShortcut(graph, node);
  for (const layer of layers) {
    const weights = plan.weights.get(layer.name);
    if (!weights) continue;
    const input = isInt8(layer.node) ? quantizerFor(plan, layer.input) : undefined;
    graph.setInput(layer.node, layer.weightIndex, writer.weight(layer, weights, input));
    placeBias(graph, layer, weights, input, writer);
  }
  for (const { value, readers, guarded } of activations) {
    const source = guarded ? graph.insertOp('Max', [value]) : value;
    const rounded = writer.activation(source, quantizerFor(plan, value));
    for (const use of readers) graph.setInput(use.node, use.index, rounded);
  }
  for (const node of between) graph.setInput(node, 0, graph.insertOp('Max', [node.inputs[0]]));
  writer.finish();
  graph.removeDead();
  return graph.toModel();
}

function quantizerFor(plan: Deployment, value: Value): ActivationQuantizer {
  const quantizer = plan.activations.get(value.name);
  if (!quantizer) {
    throw new FlowCompressError('internal', `No activation range was measured for '${value.name}'.`, {
      node: value.name,
    });
  }
  return quantizer;
}

function placeBias(
  graph: Graph,
  layer: WeightLayer,
  weights: QuantizedWeights,
  input: ActivationQuantizer | undefined,
  writer: Writer,
): void {
  const slot = layer.biasSlot;
  if (!slot) return;
  if (weights.bias) graph.setInput(slot.node, slot.index, writer.floatBias(layer, weights.bias));
  const bias = slot.node.inputs[slot.index];
  // The engine joins a MatMul of two axes and the Add behind it to a Gemm, which is fused with an integer bias only.
  if (bias && input) graph.setInput(slot.node, slot.index, writer.bias(layer, bias, weights, input));
}

/** The layer's bias, zeros when it has none. @returns undefined when the layer has no place for one. */
export function biasOf(graph: Graph, layer: WeightLayer): Float32Array | undefined {
  if (!layer.biasSlot) return undefined;
  const tensor = graph.constant(layer.biasSlot.node.inputs[layer.biasSlot.index]);
  return tensor ? readFloats(tensor) : new Float32Array(layer.channels);
}
