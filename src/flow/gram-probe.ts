/**
 * Gram matrices G = E[x x^T] of what each weight layer multiplies its weights with: rows of MatMul and Gemm inputs,
 * unfolded patches (im2col) of convolution inputs. Built inside the engine, on a strided sample of positions.
 */
import { FlowCompressError } from '../errors.js';
import { TensorProto_DataType as DataType } from 'onnx-buf';
import type { Graph, Value } from '../onnx/graph.js';
import { convGeometry, kernelTaps } from '../onnx/conv-geometry.js';
import type { WeightLayer } from '../onnx/layers.js';
import { intAttribute, intsAttribute } from '../onnx/attributes.js';
import { reduce, reshape, slice, transpose, unsqueeze } from '../onnx/ops.js';
import { makeTensor } from '../onnx/tensor.js';
import type { HostTensor } from '../runtime/engine.js';
import type { Probe, ProbeContext } from '../runtime/probe.js';

/** Second moments of a layer's input rows, one [cols, cols] block per group. */
export interface Gram {
  readonly groups: number;
  readonly cols: number;
  /** Row-major [groups, cols, cols], symmetric: mean over rows of x x^T. */
  readonly data: Float64Array;
  /** [groups, cols], mean of x. */
  readonly mean: Float64Array;
  /** Rows seen. */
  readonly count: number;
}

export interface GramProbe extends Probe {
  /** @throws FlowCompressError `internal` when no batch was seen. */
  result(): Gram;
}

/**
 * @param positions wanted rows per sample: the convolution grid (or the token axis) is sampled with a stride so that at
 *   least this many remain where the layer has that many.
 */
export function gramProbe(layer: WeightLayer, positions: number): GramProbe {
  const { groups, cols } = layer;
  const sum = new Float64Array(groups * cols * cols);
  const sumX = new Float64Array(groups * cols);
  let rowsPerSample = 0;
  let count = 0;
  return {
    attach(context) {
      const { graph } = context;
      const input = graph.mustGet(layer.input.name);
      const { columns, rows } = inputColumns(context, layer, input, positions);
      rowsPerSample = rows;
      return [
        graph.insertOp('MatMul', [columns, transpose(graph, columns, [0, 2, 1])]),
        reduce(graph, 'ReduceMean', columns, [2]),
      ];
    },
    update([gram, mean]: HostTensor[], batch) {
      const samples = batch.feeds[Object.keys(batch.feeds)[0]!]!.dims[0] ?? 1;
      const rows = rowsPerSample * samples;
      const products = gram!.data as Float32Array;
      // The lower triangles: the products are symmetric.
      for (let row = 0; row < groups * cols; row++) {
        const from = row * cols;
        const to = from + (row % cols);
        for (let i = from; i <= to; i++) sum[i]! += products[i]!;
      }
      const means = mean!.data as Float32Array;
      for (let i = 0; i < sumX.length; i++) sumX[i]! += means[i]! * rows;
      count += rows;
    },
    result() {
      if (count === 0) throw new FlowCompressError('internal', 'No calibration sample was seen.', { node: layer.name });
      const data = new Float64Array(sum.length);
      for (let row = 0; row < groups * cols; row++) {
        const i = row % cols;
        const block = (row - i) * cols;
        for (let j = 0; j <= i; j++)
          data[block + j * cols + i] = data[block + i * cols + j] = sum[row * cols + j]! / count;
      }
      return { groups, cols, data, mean: sumX.map((v) => v / count), count };
    },
  };
}

/** What the layer multiplies its weights with, at the positions that are sampled. */
export function inputColumns(context: ProbeContext, layer: WeightLayer, input: Value, positions: number): Columns {
  switch (layer.op) {
    case 'Conv':
      return convColumns(context, layer, input, positions);
    case 'ConvTranspose':
      return pixelColumns(context, layer, input);
    default:
      return tokenColumns(context, layer, input, positions);
  }
}

/**
 * What the layer gives at the same positions: [channels, rows].
 * @param output any value of the shape of the layer's result, in a graph in which the input has the dims of `context`
 */
export function outputRows(context: ProbeContext, layer: WeightLayer, output: Value, positions: number): Value {
  const { graph, shapes } = context;
  const inputDims = shapes.get(layer.input.name)!.dims;
  if (layer.op !== 'Conv') {
    const { sampled } = sampledTokens(graph, output, inputDims, positions);
    return transpose(graph, reshape(graph, sampled, [-1, layer.channels]), [1, 0]);
  }
  const geometry = convGeometry(layer.node, inputDims, layer.dims);
  const { steps, phases } = sampling(geometry.output, positions);
  const axes = steps.map((_, i) => i + 2);
  const taken = steps.map((step, i) => Math.floor((geometry.output[i]! - 1 - phases[i]!) / step) + 1);
  const ends = steps.map((step, i) => phases[i]! + (taken[i]! - 1) * step + 1);
  const sampled = slice(graph, output, axes, phases, ends, steps);
  return reshape(graph, transpose(graph, sampled, [1, 0, ...axes]), [layer.channels, -1]);
}

/** [groups, cols, rows] with its number of rows per sample. */
export interface Columns {
  columns: Value;
  rows: number;
}

/**
 * Patches under the kernel at a strided subset of the output positions; order of cols: channel, then kernel tap. Cut out
 * by a grouped convolution with one-hot kernels, one output channel per tap, whose stride skips positions and whose
 * kernel is enlarged to start in the middle of the first stride: border and interior keep their natural proportion.
 */
function convColumns({ graph, shapes }: ProbeContext, layer: WeightLayer, input: Value, positions: number): Columns {
  const inputDims = shapes.get(layer.input.name)!.dims;
  const geometry = convGeometry(layer.node, inputDims, layer.dims);
  const { kernel, strides, dilations, padBegin, padEnd } = geometry;
  const rank = kernel.length;
  const { steps, phases } = sampling(geometry.output, positions);
  const offsets = phases.map((phase, i) => phase * strides[i]!);
  const extent = kernel.map((k, i) => offsets[i]! + (k - 1) * dilations[i]! + 1);
  const channels = inputDims[1]!;
  const taps = kernelTaps(kernel);
  const area = extent.reduce((a, b) => a * b, 1);
  const oneHot = new Float32Array(taps.length * area);
  taps.forEach((tap, t) => {
    const at = tap.reduce((index, position, i) => index * extent[i]! + offsets[i]! + position * dilations[i]!, 0);
    oneHot[t * area + at] = 1;
  });
  const repeated = new Float32Array(channels * oneHot.length);
  for (let c = 0; c < channels; c++) repeated.set(oneHot, c * oneHot.length);
  const weightName = graph.uniqueName('unfold');
  const weight = graph.addInitializer(
    makeTensor(weightName, DataType.FLOAT, [channels * taps.length, 1, ...extent], repeated),
  );
  const patches = graph.insertOp(
    'Conv',
    [input, weight],
    [
      intAttribute('group', channels),
      intsAttribute('kernel_shape', extent),
      intsAttribute('pads', [...padBegin, ...padEnd]),
      intsAttribute(
        'strides',
        strides.map((s, i) => s * steps[i]!),
      ),
    ],
  );
  const counts = extent.map((e, i) => {
    const room = inputDims[i + 2]! + padBegin[i]! + padEnd[i]! - e;
    return Math.floor(room / (strides[i]! * steps[i]!)) + 1;
  });
  // [N, C * taps, *counts] -> [groups, C / groups * taps, rows]
  const perm = [1, 0, ...Array.from({ length: rank }, (_, i) => i + 2)];
  const columns = reshape(graph, transpose(graph, patches, perm), [layer.groups, layer.cols, -1]);
  return { columns, rows: counts.reduce((a, b) => a * b, 1) };
}

/** Every input pixel of a ConvTranspose is one row. */
function pixelColumns({ graph, shapes }: ProbeContext, layer: WeightLayer, input: Value): Columns {
  const dims = shapes.get(layer.input.name)!.dims;
  const rank = dims.length;
  const perm = [1, 0, ...Array.from({ length: rank - 2 }, (_, i) => i + 2)];
  const columns = reshape(graph, transpose(graph, input, perm), [layer.groups, layer.cols, -1]);
  return { columns, rows: dims.slice(2).reduce((a, b) => a * b, 1) };
}

/** Rows of a [..., cols] activation. */
function tokenColumns({ graph, shapes }: ProbeContext, layer: WeightLayer, input: Value, positions: number): Columns {
  const { sampled, rows } = sampledTokens(graph, input, shapes.get(layer.input.name)!.dims, positions);
  const flat = reshape(graph, sampled, [-1, layer.cols]);
  return { columns: unsqueeze(graph, transpose(graph, flat, [1, 0]), [0]), rows };
}

/** Long token axes (the one before the last) are sampled with a stride. @param dims of the layer's input */
function sampledTokens(
  graph: Graph,
  value: Value,
  dims: readonly number[],
  positions: number,
): { sampled: Value; rows: number } {
  const rows = dims.slice(0, -1).reduce((a, b) => a * b, 1);
  const axis = dims.length - 2;
  const tokens = dims[axis] ?? 1;
  const step = Math.max(1, Math.floor(rows / Math.max(positions, 1)));
  if (dims.length < 3 || step === 1 || tokens < step) return { sampled: value, rows };
  return {
    sampled: slice(graph, value, [axis], [0], [tokens], [step]),
    rows: (rows / tokens) * Math.ceil(tokens / step),
  };
}

/** Which positions of a grid are sampled along each axis: every `step`-th from `phase` on. */
function sampling(grid: readonly number[], positions: number): { steps: number[]; phases: number[] } {
  const steps = samplingSteps(grid, positions);
  const phases = steps.map((step, i) => {
    const last = (Math.floor(grid[i]! / step) - 1) * step;
    return Math.min(Math.floor(step / 2), grid[i]! - 1 - last);
  });
  return { steps, phases };
}

/** Strides per axis that leave about `positions` of the grid, never fewer (unless the grid is smaller). */
function samplingSteps(grid: readonly number[], positions: number): number[] {
  const steps = grid.map(() => 1);
  for (;;) {
    const left = grid.map((n, i) => Math.floor(n / steps[i]!));
    const axis = left.indexOf(Math.max(...left));
    const next = left.map((n, i) => (i === axis ? Math.floor(grid[i]! / (steps[i]! + 1)) : n));
    if (next[axis]! < 1 || next.reduce((a, b) => a * b, 1) < positions) return steps;
    steps[axis]!++;
  }
}
