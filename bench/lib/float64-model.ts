/**
 * A float32 model computed in float64 by ONNX Runtime, for finite differences that rounding does not drown. Operators without
 * float64 kernels are written out in others; shapes are fixed to those of one run.
 */
import { DataType } from '../../src/onnx/dtypes.js';
import { intAttribute, tensorAttribute } from '../../src/onnx/attributes.js';
import { convGeometry, kernelTaps } from '../../src/onnx/conv-geometry.js';
import { rewrite, type Graph, type Node, type Value } from '../../src/onnx/graph.js';
import { concat, constantOf, formula, reduceKeeping, reshape, signOf, slice, transpose } from '../../src/onnx/ops.js';
import { makeTensor, readFloats } from '../../src/onnx/tensor.js';
import { declaredDims, tensorInfo } from '../../src/onnx/value-info.js';
import type { Feeds } from '../../src/runtime/engine.js';
import type { TracedValues } from '../../src/runtime/trace.js';
import type { Parameter } from '../../src/training/parameters.js';
import type { ModelProto } from 'onnx-buf';

/** Name of the [P] input that is added to the parameters, laid end to end. */
export const OFFSETS = 'offsets of the parameters';

/**
 * @param model with float32 inputs and outputs and constants as initializers, opset 13 or newer
 * @param shapes of every value, as a run at the one batch size showed them
 * @throws Error naming the node that cannot be written in float64
 */
export function float64Model(model: ModelProto, shapes: TracedValues, parameters: readonly Parameter[]): ModelProto {
  return rewrite(model, (graph) => {
    const known = new Map([...shapes].map(([name, { dims }]) => [name, dims]));
    const dimsOf = (value: Value): readonly number[] =>
      known.get(value.name) ?? value.initializer?.dims.map(Number) ?? [];
    for (const node of graph.nodes) {
      const result = WRITTEN_OUT[node.domain === '' ? node.opType : '']?.({ graph, node, dimsOf });
      if (!result) continue;
      known.set(result.name, dimsOf(node.outputs[0]!));
      graph.replaceUses(node.outputs[0]!, result);
      graph.remove(node);
    }
    graph.removeDead();
    addOffsets(graph, parameters);
    widen(graph);
  });
}

/** The same feeds for the float64 model. */
export function float64Feeds(feeds: Feeds): Feeds {
  return Object.fromEntries(
    Object.entries(feeds).map(([name, tensor]) => [
      name,
      tensor.type === 'float32'
        ? { type: 'float64', dims: tensor.dims, data: Float64Array.from(tensor.data as Float32Array) }
        : tensor,
    ]),
  );
}

function addOffsets(graph: Graph, parameters: readonly Parameter[]): void {
  const total = parameters.reduce((sum, { size }) => sum + size, 0);
  const offsets = graph.addInput(tensorInfo(OFFSETS, DataType.FLOAT, [total]));
  let at = 0;
  for (const { name, dims, size } of parameters) {
    const value = graph.value(name);
    if (value?.initializer) {
      const uses = [...value.uses];
      const part = reshape(graph, slice(graph, offsets, [0], [at], [at + size], [1]), dims);
      const moved = graph.insertOp('Add', [value, part]);
      for (const { node, index } of uses) graph.setInput(node, index, moved);
    }
    at += size;
  }
}

/** Every float32 of the graph becomes a float64. */
function widen(graph: Graph): void {
  for (const value of graph.values()) {
    const tensor = value.initializer;
    if (tensor?.dataType === Number(DataType.FLOAT))
      graph.setInitializer(
        value,
        makeTensor(value.name, DataType.DOUBLE, tensor.dims.map(Number), Float64Array.from(readFloats(tensor))),
      );
    const type = value.info?.type?.value;
    const isFloat = type?.case === 'tensorType' && type.value.elemType === Number(DataType.FLOAT);
    if (!graph.inputs.includes(value) && !graph.isGraphOutput(value)) value.info = undefined;
    else if (isFloat) value.info = tensorInfo(value.name, DataType.DOUBLE, declaredDims(value.info) ?? []);
  }
  for (const node of graph.nodes) {
    if (node.is('Cast') && node.int('to') === Number(DataType.FLOAT))
      graph.setAttribute(node, intAttribute('to', DataType.DOUBLE));
    const filled = node.is('ConstantOfShape') ? (node.tensor('value') ?? null) : undefined;
    if (filled === null || filled?.dataType === Number(DataType.FLOAT)) {
      const number = filled ? Number(readFloats(filled)[0]) : 0;
      graph.setAttribute(node, tensorAttribute('value', makeTensor('', DataType.DOUBLE, [1], Float64Array.of(number))));
    }
  }
}

interface Call {
  readonly graph: Graph;
  readonly node: Node;
  readonly dimsOf: (value: Value) => readonly number[];
}

const product = (sizes: readonly number[]): number => sizes.reduce((a, b) => a * b, 1);

function refuse(node: Node, what: string): Error {
  return new Error(`${node.opType} ${node.label} has no form in float64 here: ${what}`);
}

/** What a window function sees at each of its taps: one [N, C, output...] per tap. */
function windows({ graph, node, dimsOf }: Call, kernel: readonly number[]): { parts: Value[]; output: number[] } {
  const x = node.inputs[0]!;
  const dims = dimsOf(x);
  const { strides, dilations, padBegin, padEnd, output } = convGeometry(node, dims, [0, 0, ...kernel]);
  const pads = [0, 0, ...padBegin, 0, 0, ...padEnd];
  const padded = pads.some((size) => size > 0) ? graph.insertOp('Pad', [x, constantOf(graph, pads, 'int64')]) : x;
  const axes = kernel.map((_, i) => i + 2);
  const parts = kernelTaps(kernel).map((tap) => {
    const starts = tap.map((t, i) => t * dilations[i]);
    const ends = starts.map((start, i) => start + (output[i] - 1) * strides[i] + 1);
    return slice(graph, padded, axes, starts, ends, strides);
  });
  return { parts, output };
}

function plusBias(graph: Graph, y: Value, bias: Value | undefined, axes: number): Value {
  return bias ? graph.insertOp('Add', [y, reshape(graph, bias, [-1, ...Array.from({ length: axes }, () => 1)])]) : y;
}

/** Columns of all taps, and one matrix product per group. */
function writtenConv(call: Call): Value {
  const { graph, node, dimsOf } = call;
  const [x, w, bias] = node.inputs;
  const [outChannels, inGroup, ...kernel] = dimsOf(w!);
  const { parts, output } = windows(call, kernel);
  const groups = node.int('group', 1);
  const [batch] = dimsOf(x!);
  const [taps, positions] = [product(kernel), product(output)];
  const columns = concat(
    graph,
    parts.map((part) => reshape(graph, part, [batch, groups, inGroup, positions])),
    2,
  );
  const byTap = transpose(graph, reshape(graph, w!, [groups, outChannels / groups, inGroup, taps]), [0, 1, 3, 2]);
  const matrix = reshape(graph, byTap, [groups, outChannels / groups, taps * inGroup]);
  const y = graph.insertOp('MatMul', [matrix, columns]);
  return plusBias(graph, reshape(graph, y, [batch, outChannels, ...output]), bias, kernel.length);
}

/** Kernels that do not overlap: every input position makes a block of the output. */
function writtenConvTranspose({ graph, node, dimsOf }: Call): Value {
  const [x, w, bias] = node.inputs;
  const [batch, channels, high, wide] = dimsOf(x!);
  const [, outChannels, down, across] = dimsOf(w!);
  const output = dimsOf(node.outputs[0]!);
  if (node.int('group', 1) > 1 || output[2] !== high * down || output[3] !== wide * across)
    throw refuse(node, 'kernels overlap');
  const matrix = reshape(graph, transpose(graph, w!, [1, 2, 3, 0]), [outChannels * down * across, channels]);
  const y = graph.insertOp('MatMul', [matrix, reshape(graph, x!, [batch, channels, high * wide])]);
  const blocks = reshape(graph, y, [batch, outChannels, down, across, high, wide]);
  return plusBias(graph, reshape(graph, transpose(graph, blocks, [0, 1, 4, 2, 5, 3]), output), bias, 2);
}

function writtenAveragePool(call: Call): Value {
  const { graph, node } = call;
  const kernel = node.ints('kernel_shape')!;
  if (node.int('ceil_mode', 0) > 0) throw refuse(node, 'ceil_mode');
  if ((node.ints('pads') ?? []).some((pad) => pad > 0) && node.int('count_include_pad', 0) === 0)
    throw refuse(node, 'padding that does not count');
  return formula(graph)('Div', graph.insertOp('Sum', windows(call, kernel).parts), product(kernel));
}

/** Abramowitz and Stegun 7.1.26: |error| <= 1.5e-7, and smooth, which is what differences need. */
function writtenErf({ graph, node }: Call): Value {
  const [x] = node.inputs;
  const op = formula(graph);
  const size = op('Abs', x!);
  const t = op('Div', 1, op('Add', 1, op('Mul', size, 0.3275911)));
  const [first, ...terms] = [1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592];
  const series = terms.reduce((sum, term) => op('Mul', op('Add', sum, term), t), op('Mul', t, first));
  const tail = op('Mul', series, op('Exp', op('Neg', op('Mul', x!, x!))));
  return op('Mul', signOf(graph, x!, size), op('Sub', 1, tail));
}

function writtenResize({ graph, node, dimsOf }: Call): Value {
  const [from, to] = [dimsOf(node.inputs[0]!), dimsOf(node.outputs[0]!)];
  const asymmetric = node.string('coordinate_transformation_mode', 'half_pixel') === 'asymmetric';
  const floor = node.string('nearest_mode', 'round_prefer_floor') === 'floor';
  if (node.string('mode', 'nearest') !== 'nearest' || !asymmetric || !floor) throw refuse(node, 'its mode');
  return from.reduce((value, size, axis) => {
    if (to[axis] === size) return value;
    const source = BigInt64Array.from({ length: to[axis] }, (_, i) => BigInt(Math.floor((i * size) / to[axis])));
    const indices = makeTensor(graph.uniqueName('source'), DataType.INT64, [to[axis]], source);
    return graph.insertOp('Gather', [value, graph.addInitializer(indices)], [intAttribute('axis', axis)]);
  }, node.inputs[0]!);
}

const spatial = (dims: readonly number[]): number[] => dims.slice(2).map((_, i) => i + 2);

/** The operators of the default domain without float64 kernels in ONNX Runtime 1.30 that models in use here have. */
const WRITTEN_OUT: Readonly<Record<string, (call: Call) => Value>> = {
  Conv: writtenConv,
  ConvTranspose: writtenConvTranspose,
  AveragePool: writtenAveragePool,
  Erf: writtenErf,
  Resize: writtenResize,
  GlobalAveragePool: ({ graph, node, dimsOf }) =>
    reduceKeeping(graph, 'ReduceMean', node.inputs[0]!, spatial(dimsOf(node.inputs[0]!))),
  GlobalMaxPool: ({ graph, node, dimsOf }) =>
    reduceKeeping(graph, 'ReduceMax', node.inputs[0]!, spatial(dimsOf(node.inputs[0]!))),
};
