/** The gradient of a convolution in its input, in every form. */
import { FlowCompressError } from '../../errors.js';
import { intAttribute, intsAttribute } from '../../onnx/attributes.js';
import { turned } from '../../onnx/blocked.js';
import type { Graph, Value } from '../../onnx/graph.js';
import { reshape, transpose } from '../../onnx/ops.js';
import { blockedInputGradient, inputGradientByPhases } from './conv-input-blocked.js';
import { isPhased, type ConvShape, type InputForm } from './conv-shape.js';

/** From dY [N, Cout, output...] and W to dX [N, Cin, input...]. */
type InputGradient = (graph: Graph, shape: ConvShape, gradient: Value, weight: Value) => Value;

/** What the stride does not reach at the end of the padded input is output padding. */
const convTranspose: InputGradient = (graph, shape, gradient, weight) => {
  const { input, kernel, strides, dilations, padBegin, padEnd, output, groups } = shape;
  const outputPadding = input.map((n, i) => {
    const reached = (output[i]! - 1) * strides[i]! + (kernel[i]! - 1) * dilations[i]! + 1;
    return n + padBegin[i]! + padEnd[i]! - reached;
  });
  return graph.insertOp(
    'ConvTranspose',
    [gradient, weight],
    [
      intAttribute('group', groups),
      intsAttribute('strides', strides),
      intsAttribute('dilations', dilations),
      intsAttribute('pads', [...padBegin, ...padEnd]),
      intsAttribute('output_padding', outputPadding),
    ],
  );
};

/** dX[p] = sum over taps k of W[k] dY[p + pad - k d]: a correlation with the reversed kernel. */
const flippedConv: InputGradient = (graph, shape, gradient, weight) => {
  const { kernel, dilations, groups } = shape;
  const { begin, end } = flippedPads(shape);
  return graph.insertOp(
    'Conv',
    [gradient, exchangeChannels(graph, shape, turned(graph, weight, 2, kernel))],
    [intAttribute('group', groups), intsAttribute('dilations', dilations), intsAttribute('pads', [...begin, ...end])],
  );
};

function flippedPads({ kernel, dilations, padBegin, padEnd }: ConvShape): { begin: number[]; end: number[] } {
  const pads = (before: readonly number[]): number[] => kernel.map((k, i) => (k - 1) * dilations[i]! - before[i]!);
  return { begin: pads(padBegin), end: pads(padEnd) };
}

const blocked: InputGradient = (graph, shape, gradient, weight) => {
  const { kernel, dilations, block } = shape;
  if (block === undefined) throw new FlowCompressError('internal', 'This convolution has no blocked form.');
  const { begin, end } = flippedPads(shape);
  const window = { kernel, dilations, padBegin: begin, padEnd: end };
  return blockedInputGradient(graph, { ...shape, block }, gradient, weight, window);
};

const byPhases: InputGradient = (graph, shape, gradient, weight) => {
  if (!isPhased(shape)) throw new FlowCompressError('internal', 'This convolution has no phases.');
  return inputGradientByPhases(graph, shape, gradient, weight);
};

/** [Cout, Cin / g, kernel...] as [Cin, Cout / g, kernel...], within the groups. */
function exchangeChannels(graph: Graph, shape: ConvShape, weight: Value): Value {
  const { inChannels, outChannels, groups, kernel } = shape;
  const [inner, outer] = [inChannels / groups, outChannels / groups];
  const spatial = kernel.map((_, i) => i);
  if (groups === 1) return transpose(graph, weight, [1, 0, ...spatial.map((i) => i + 2)]);
  if (inner === 1 && outer === 1) return weight;
  const grouped = reshape(graph, weight, [groups, outer, inner, ...kernel]);
  const exchanged = transpose(graph, grouped, [0, 2, 1, ...spatial.map((i) => i + 3)]);
  return reshape(graph, exchanged, [inChannels, outer, ...kernel]);
}

const matmul: InputGradient = (graph, shape, gradient, weight) => {
  const { input, inChannels, outChannels, groups } = shape;
  const [inner, outer] = [inChannels / groups, outChannels / groups];
  const back = (product: Value): Value => reshape(graph, product, [0, inChannels, ...input]);
  if (groups === 1) {
    const rows = transpose(graph, reshape(graph, weight, [outer, inner]), [1, 0]);
    return back(graph.insertOp('MatMul', [rows, reshape(graph, gradient, [0, outer, -1])]));
  }
  const rows = transpose(graph, reshape(graph, weight, [groups, outer, inner]), [0, 2, 1]);
  return back(graph.insertOp('MatMul', [rows, reshape(graph, gradient, [0, groups, outer, -1])]));
};

export const INPUT_GRADIENTS: Readonly<Record<InputForm, InputGradient>> = {
  'conv-transpose': convTranspose,
  'flipped-conv': flippedConv,
  matmul,
  blocked,
  phases: byPhases,
};
