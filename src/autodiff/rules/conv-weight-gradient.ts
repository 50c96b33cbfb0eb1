/** The gradient of a convolution in its weight, in every form. */
import { FlowCompressError } from '../../errors.js';
import { intAttribute, intsAttribute } from '../../onnx/attributes.js';
import { kernelTaps } from '../../onnx/conv-geometry.js';
import type { Graph, Value } from '../../onnx/graph.js';
import { concat, firstElements, padZeros, reduce, reshape, slice, transpose, unsqueeze } from '../../onnx/ops.js';
import { blockedWeightGradient } from './conv-weight-blocked.js';
import { isBlockable, isPointwise, type ConvShape, type WeightForm } from './conv-shape.js';

/** From X [N, Cin, input...] and dY [N, Cout, output...] to dW [Cout, Cin / groups, kernel...]. */
type WeightGradient = (graph: Graph, shape: ConvShape, x: Value, gradient: Value) => Value;

const product = (sizes: readonly number[]): number => sizes.reduce((a, b) => a * b, 1);

/** Zeros around the spatial axes; negative counts cut off. */
function pad(graph: Graph, x: Value, begin: readonly number[], end: readonly number[]): Value {
  return padZeros(graph, x, [0, 0, ...begin], [0, 0, ...end]);
}

/** For every kernel position the elements of X that it meets, [a, b, output...] of X [a, b, input...]. */
function slices(graph: Graph, shape: ConvShape, x: Value): Value[] {
  if (isPointwise(shape)) return [x];
  const { kernel, strides, dilations, output } = shape;
  const padded = pad(graph, x, shape.padBegin, shape.padEnd);
  const axes = kernel.map((_, i) => i + 2);
  return kernelTaps(kernel).map((tap) => {
    const starts = tap.map((k, i) => k * dilations[i]!);
    const ends = starts.map((start, i) => start + (output[i]! - 1) * strides[i]! + 1);
    return slice(graph, padded, axes, starts, ends, strides);
  });
}

type Layout = 'samples' | 'flat';

/** [N, C, ...] as matrices [N, C, positions], [N, g, C / g, positions]; flat: [C, N, ...] without the leading N. */
function matrices(graph: Graph, value: Value, channels: number, groups: number, layout: Layout): Value {
  const rows = groups === 1 ? [channels] : [groups, channels / groups];
  return reshape(graph, value, layout === 'samples' ? [0, ...rows, -1] : [...rows, -1]);
}

/** Positions and samples summed: [groups, left rows, right rows], without the groups where there is one. */
function summedProduct(graph: Graph, left: Value, right: Value, groups: number, layout: Layout): Value {
  if (layout === 'flat' && groups === 1) return graph.insertOp('Gemm', [left, right], [intAttribute('transB', 1)]);
  const lead = (layout === 'samples' ? 1 : 0) + (groups === 1 ? 0 : 1);
  const axes = Array.from({ length: lead }, (_, i) => i);
  const multiplied = graph.insertOp('MatMul', [left, transpose(graph, right, [...axes, lead + 1, lead])]);
  return layout === 'samples' ? reduce(graph, 'ReduceSum', multiplied, [0]) : multiplied;
}

/** Channels brought before samples. */
function channelsFirst(graph: Graph, { kernel }: ConvShape, value: Value): Value {
  return transpose(graph, value, [1, 0, ...kernel.map((_, i) => i + 2)]);
}

/** dW from its parts of Cout x (Cin / groups) elements per kernel position. */
function assemble(graph: Graph, { kernel, outChannels, inChannels, groups }: ConvShape, parts: Value[]): Value {
  const inner = inChannels / groups;
  const stacked =
    parts.length === 1
      ? parts[0]!
      : concat(
          graph,
          parts.map((part) => reshape(graph, part, [-1, 1])),
          1,
        );
  return reshape(graph, stacked, [outChannels, inner, ...kernel]);
}

const byTaps =
  (layout: Layout): WeightGradient =>
  (graph, shape, x, gradient) => {
    const { groups, inChannels, outChannels } = shape;
    const arranged = (value: Value): Value => (layout === 'flat' ? channelsFirst(graph, shape, value) : value);
    const left = matrices(graph, arranged(gradient), outChannels, groups, layout);
    const parts = slices(graph, shape, arranged(x)).map((part) =>
      summedProduct(graph, left, matrices(graph, part, inChannels, groups, layout), groups, layout),
    );
    return assemble(graph, shape, parts);
  };

/** dW from [Cout, kernel positions x Cin / groups]. */
function byTap(graph: Graph, { kernel, outChannels, inChannels, groups }: ConvShape, found: Value): Value {
  const inner = inChannels / groups;
  const count = product(kernel);
  if (inner === 1 || count === 1) return reshape(graph, found, [outChannels, inner, ...kernel]);
  const exchanged = transpose(graph, reshape(graph, found, [outChannels, count, inner]), [0, 2, 1]);
  return reshape(graph, exchanged, [outChannels, inner, ...kernel]);
}

const byColumns =
  (layout: Layout): WeightGradient =>
  (graph, shape, x, gradient) => {
    const { groups, inChannels, outChannels } = shape;
    const arranged = (value: Value): Value => (layout === 'flat' ? channelsFirst(graph, shape, value) : value);
    const left = matrices(graph, arranged(gradient), outChannels, groups, layout);
    const parts = slices(graph, shape, arranged(x)).map((part) => matrices(graph, part, inChannels, groups, layout));
    const columns = concat(graph, parts, -2);
    const found = summedProduct(graph, left, columns, groups, layout);
    return byTap(graph, shape, found);
  };

/**
 * Sum over p of dY[p] X[p + k d - pad]. Along the last axis X is moved by the kernel position and cut to the output, along
 * the others dY is moved the other way within the padded input: as many copies as kernel rows and columns, not as elements.
 */
const byShifts: WeightGradient = (graph, shape, x, gradient) => {
  const { kernel, dilations, padBegin, input, output, groups, inChannels, outChannels } = shape;
  const last = kernel.length - 1;
  const reach = kernel.map((k, i) => (k - 1) * dilations[i]!);
  const rows = kernelTaps(kernel.slice(0, last)).map((tap) => {
    const begin = [...tap.map((k, i) => k * dilations[i]!), 0];
    const end = begin.map((count, i) => (i === last ? 0 : reach[i]! - count));
    return matrices(graph, pad(graph, gradient, begin, end), outChannels, groups, 'samples');
  });
  const columns = kernelTaps(kernel.slice(last)).map(([k]) => {
    const begin = padBegin.map((count, i) => (i === last ? count - k! * dilations[i]! : count));
    const end = begin.map((count, i) => output[i]! + (i === last ? 0 : reach[i]!) - input[i]! - count);
    return matrices(graph, pad(graph, x, begin, end), inChannels, groups, 'samples');
  });
  const parts = rows.flatMap((row) => columns.map((column) => summedProduct(graph, row, column, groups, 'samples')));
  return assemble(graph, shape, parts);
};

/**
 * X and dY lie in the same padded grid, channel by channel through all samples, dY with zeros in the padding: a kernel
 * position is then one offset, and what it meets one contiguous run.
 */
const byRuns: WeightGradient = (graph, shape, x, gradient) => {
  const { kernel, dilations, padBegin, padEnd, output, groups, inChannels, outChannels } = shape;
  const reach = kernel.map((k, i) => (k - 1) * dilations[i]!);
  const grid = output.map((n, i) => n + reach[i]!);
  const offsetOf = (steps: readonly number[]): number => steps.reduce((sum, step, i) => sum * grid[i]! + step, 0);
  const most = offsetOf(reach);
  const flat = (value: Value, channels: number, begin: readonly number[], end: readonly number[]): Value =>
    matrices(graph, pad(graph, channelsFirst(graph, shape, value), begin, end), channels, groups, 'flat');
  const run = (value: Value, offset: number): Value =>
    most === 0 ? value : slice(graph, value, [-1], [offset], [offset === most ? 2 ** 31 : offset - most], [1]);
  const left = run(
    flat(
      gradient,
      outChannels,
      kernel.map(() => 0),
      reach,
    ),
    0,
  );
  const padded = flat(x, inChannels, padBegin, padEnd);
  const parts = kernelTaps(kernel).map((tap) => run(padded, offsetOf(tap.map((k, i) => k * dilations[i]!))));
  return byTap(graph, shape, summedProduct(graph, left, concat(graph, parts, -2), groups, 'flat'));
};

/** Strides and dilations exchange roles; samples are summed as channels otherwise are. */
const byConv: WeightGradient = (graph, shape, x, gradient) => {
  const { kernel, strides, dilations, padBegin, padEnd, input, output, groups, inChannels } = shape;
  const inner = inChannels / groups;
  const spatial = kernel.map((_, i) => i + 3);
  const bySample = (): Value => {
    const grouped = reshape(graph, x, [0, groups, inner, ...input]);
    return reshape(graph, transpose(graph, grouped, [2, 1, 0, ...spatial]), [inner, -1, ...input]);
  };
  const found = graph.insertOp(
    'Conv',
    [groups === 1 ? channelsFirst(graph, shape, x) : bySample(), channelsFirst(graph, shape, gradient)],
    [
      intAttribute('group', groups),
      intsAttribute('strides', dilations),
      intsAttribute('dilations', strides),
      intsAttribute('pads', [...padBegin, ...padEnd]),
    ],
  );
  // Where the stride leaves elements at the end unread, the result reaches beyond the kernel.
  const sizes = kernel.map((_, i) => {
    const free = input[i]! + padBegin[i]! + padEnd[i]! - ((output[i]! - 1) * strides[i]! + 1);
    return Math.floor(free / dilations[i]!) + 1;
  });
  const cut = firstElements(graph, found, 2, sizes, kernel);
  return inner === 1 ? reshape(graph, cut, [-1, 1, ...kernel]) : channelsFirst(graph, shape, cut);
};

const byProducts: WeightGradient = (graph, shape, x, gradient) => {
  const { groups, outChannels, output } = shape;
  const multiplier = outChannels / groups;
  const left = multiplier === 1 ? gradient : reshape(graph, gradient, [0, groups, multiplier, ...output]);
  const positions = output.map((_, i) => i + (multiplier === 1 ? 2 : 3));
  const parts = slices(graph, shape, x).map((part) => {
    const right = multiplier === 1 ? part : unsqueeze(graph, part, [2]);
    return reduce(graph, 'ReduceSum', graph.insertOp('Mul', [left, right]), [0, ...positions]);
  });
  return assemble(graph, shape, parts);
};

const byBlocks: WeightGradient = (graph, shape, x, gradient) => {
  if (!isBlockable(shape)) throw new FlowCompressError('internal', 'This convolution has no blocked form.');
  return blockedWeightGradient(graph, shape, x, gradient);
};

export const WEIGHT_GRADIENTS: Readonly<Record<WeightForm, WeightGradient>> = {
  taps: byTaps('samples'),
  'taps-flat': byTaps('flat'),
  columns: byColumns('samples'),
  'columns-flat': byColumns('flat'),
  shifts: byShifts,
  runs: byRuns,
  conv: byConv,
  products: byProducts,
  blocked: byBlocks,
};
