/** Where the features of a model are: in front of the last layer with weights that its answers pass through. */
import type { ModelProto } from 'onnx-buf';
import { Graph, type Node, type Value } from '../onnx/graph.js';
import type { FeatureValue } from './cka-features.js';

/** Operands of a layer, by operator, whatever the domain: what it reads, its weights, and where the channels of the former are. */
interface LayerForm {
  readonly data: number;
  readonly weight: number;
  readonly channels: 'first' | 'last';
  /** Reads integers with a scale and a zero point behind them. */
  readonly quantized?: boolean;
}

const conv: LayerForm = { data: 0, weight: 1, channels: 'first' };
const product: LayerForm = { data: 0, weight: 1, channels: 'last' };
const LAYERS: ReadonlyMap<string, LayerForm> = new Map([
  ...['Conv', 'ConvTranspose', 'FusedConv', 'ConvInteger'].map((op) => [op, conv] as const),
  ...[
    'Gemm',
    'MatMul',
    'FusedGemm',
    'FusedMatMul',
    'MatMulInteger',
    'MatMulIntegerToFloat',
    'DynamicQuantizeMatMul',
  ].map((op) => [op, product] as const),
  ['MatMulNBits', product],
  ['QLinearConv', { ...conv, weight: 3, quantized: true }],
  ...['QLinearMatMul', 'QGemm'].map((op) => [op, { ...product, weight: 3, quantized: true }] as const),
]);
const QUANTIZERS = ['QuantizeLinear', 'DynamicQuantizeLinear'];

export interface FoundFeatures {
  /** The model, with the features as a float value in it. */
  readonly model: ModelProto;
  readonly value: FeatureValue;
}

/**
 * Finds what the last weight layer before `output` reads, in topological order: a convolution or matrix product whose one operand
 * follows from the inputs of the model and whose other does not, whether its weights are stored plain, quantized or packed. For
 * a classifier behind global pooling that is the pooled features. Of a feature map (or of tokens) the mean over all positions is
 * taken, as for a classifier that is a 1x1 convolution in front of the pooling. Integers are read as what they stand for.
 * @param output of the model: its scores, or another one
 * @returns undefined where no such layer is found in the main graph
 */
export function featuresBefore(model: ModelProto, output: string): FoundFeatures | undefined {
  const graph = new Graph(model);
  const nodes = graph.nodes;
  const varying = valuesOfInputs(graph, nodes);
  const upstream = new Set<Value>([graph.mustGet(output)]);
  for (const node of nodes.reverse()) {
    if (!node.outputs.some((value) => value && upstream.has(value))) continue;
    for (const value of readBy(node)) upstream.add(value);
    const form = LAYERS.get(node.opType);
    const data = form && node.inputs[form.data];
    const weight = form && node.inputs[form.weight];
    if (!form || !data || !weight || !varying.has(data) || varying.has(weight) || node.int('transA', 0) === 1) continue;
    const value = asFloat(graph, node, data, form);
    return { model: graph.toModel(), value: { name: value.name, pooled: form.channels } };
  }
  return undefined;
}

/** Values that depend on what the model is fed. */
function valuesOfInputs(graph: Graph, nodes: readonly Node[]): Set<Value> {
  const varying = new Set(graph.inputs.filter((value) => graph.isFed(value)));
  for (const node of nodes) {
    if (readBy(node).some((value) => varying.has(value)))
      for (const output of node.outputs) if (output) varying.add(output);
  }
  return varying;
}

function readBy(node: Node): Value[] {
  return [...node.inputs.filter((value) => value !== undefined), ...node.captures.map(({ value }) => value)];
}

function asFloat(graph: Graph, node: Node, data: Value, form: LayerForm): Value {
  const before = data.producer;
  if (before?.inputs[0] && QUANTIZERS.some((op) => before.is(op))) return before.inputs[0];
  return form.quantized ? graph.insertOp('DequantizeLinear', [data, node.inputs[1], node.inputs[2]]) : data;
}
