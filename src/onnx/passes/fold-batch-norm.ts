/** Folds BatchNormalization at inference into the Conv, ConvTranspose or Gemm before it. */
import { TensorProto_DataType as DataType } from 'onnx-buf';
import type { Graph, Node, Value } from '../graph.js';
import { makeTensor, readFloats } from '../tensor.js';

/**
 * y = gamma (Wx + b - mean) / sqrt(var + eps) + beta, so W' = W s and b' = (b - mean) s + beta with
 * s = gamma / sqrt(var + eps) per output channel. Runs in place and returns how many nodes were folded.
 */
export function foldBatchNorm(graph: Graph): number {
  let folded = 0;
  for (const norm of graph.nodes) {
    if (!norm.is('BatchNormalization') || norm.int('training_mode', 0) !== 0) continue;
    // Before opset 14 the statistics among the outputs mean training.
    if (norm.outputs.slice(1).some((v) => v)) continue;
    const input = norm.inputs[0];
    const layer = input?.producer;
    if (!input || !layer || input.uses.size !== 1 || graph.isGraphOutput(input)) continue;
    const axis = outputChannelAxis(layer);
    if (axis === undefined) continue;
    const parameters = [1, 2, 3, 4].map((i) => graph.constant(norm.inputs[i]));
    const weight = graph.constant(layer.inputs[1]);
    const hasBias = layer.inputs[2] !== undefined;
    const bias = hasBias ? graph.constant(layer.inputs[2]) : undefined;
    if (!weight || weight.dataType !== Number(DataType.FLOAT) || (hasBias && !bias) || parameters.some((p) => !p))
      continue;
    const [gamma, beta, mean, variance] = parameters.map((p) => readFloats(p!)) as [
      Float32Array,
      Float32Array,
      Float32Array,
      Float32Array,
    ];
    const channels = gamma.length;
    const eps = norm.float('epsilon', 1e-5);
    const scale = Float64Array.from(gamma, (g, c) => g / Math.sqrt(variance[c]! + eps));
    const oldBias = bias ? readFloats(bias) : new Float32Array(channels);
    if (bias && !isPerChannel(bias.dims.map(Number), channels)) continue;
    const newBias = Float32Array.from(oldBias, (b, c) => (b - mean[c]!) * scale[c]! + beta[c]!);
    const dims = weight.dims.map(Number);
    const groups = layer.int('group', 1);
    if (dims[axis]! * (axis === 0 ? 1 : groups) !== channels) continue;
    const weights = scaleChannels(readFloats(weight), dims, axis, scale, axis === 0 ? 1 : groups);
    replaceParameter(graph, layer, 1, makeTensor('', DataType.FLOAT, dims, weights));
    replaceParameter(graph, layer, 2, makeTensor('', DataType.FLOAT, [channels], newBias));
    const output = norm.outputs[0]!;
    graph.replaceUses(output, input);
    graph.remove(norm);
    folded++;
  }
  graph.removeDead();
  return folded;
}

/** False for a Gemm bias that is a scalar, a column or a matrix. */
function isPerChannel(dims: readonly number[], channels: number): boolean {
  return dims[dims.length - 1] === channels && dims.slice(0, -1).every((d) => d === 1);
}

function outputChannelAxis(layer: Node): number | undefined {
  if (layer.is('Conv')) return 0;
  if (layer.is('ConvTranspose')) return 1;
  if (layer.is('Gemm') && layer.float('alpha', 1) === 1 && layer.float('beta', 1) === 1) {
    return layer.int('transB', 0) ? 0 : 1;
  }
  return undefined;
}

/** Multiplies the slices along `axis`. A grouped ConvTranspose repeats the axis once per group of its input axis 0. */
function scaleChannels(
  values: Float32Array,
  dims: readonly number[],
  axis: number,
  scale: Float64Array,
  groups: number,
): Float32Array {
  const inner = dims.slice(axis + 1).reduce((a, b) => a * b, 1);
  const size = dims[axis]!;
  const perGroup = axis === 0 ? 0 : dims[0]! / groups;
  const scaled = new Float32Array(values.length);
  for (let at = 0, slice = 0; at < values.length; at += inner, slice++) {
    const group = axis === 0 ? 0 : Math.floor(Math.floor(slice / size) / perGroup);
    const factor = scale[group * size + (slice % size)]!;
    for (let i = at; i < at + inner; i++) scaled[i] = values[i]! * factor;
  }
  return scaled;
}

/** Gives a node an initializer of its own under a free name (the old one may be shared). */
export function replaceParameter(
  graph: Graph,
  node: Node,
  index: number,
  tensor: ReturnType<typeof makeTensor>,
): Value {
  const old = node.inputs[index];
  const base = old?.isInitializer ? old.name : `${node.label}_${index === 1 ? 'weight' : 'bias'}`;
  tensor.name = graph.uniqueName(`${base}_folded`);
  const value = graph.addInitializer(tensor);
  graph.setInput(node, index, value);
  return value;
}
