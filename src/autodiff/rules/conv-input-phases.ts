/**
 * The gradient of a strided convolution in its input, in the blocked layout. Positions of the input that are a stride apart
 * meet the same elements of the kernel: each such phase is a dense convolution of dY with its share of the kernel, and the
 * phases are laid side by side.
 */
import {
  blockChannelWeights,
  blockedConv,
  blockWeights,
  fromBlocked,
  toBlocked,
  wholeBlocks,
} from '../../onnx/blocked.js';
import type { Graph, Value } from '../../onnx/graph.js';
import { concat, reshape, slice } from '../../onnx/ops.js';
import { phasesOf, type BlockedShape, type Phase } from './conv-shape.js';

/** From dY [N, Cout, output...] and W to dX [N, Cin, height, width]. @param shape of which `isPhased` is true */
export function inputGradientByPhases(graph: Graph, shape: BlockedShape, gradient: Value, weight: Value): Value {
  const { input, inChannels, outChannels, kernel, strides, groups, block, samples } = shape;
  const blocked = toBlocked(graph, gradient);
  const channels = wholeBlocks(inChannels, block);
  const [height, width] = input.map((n, i) => Math.ceil(n / strides[i]!)) as [number, number];
  const at = (row: Phase, column: Phase): Value => {
    const ends = [kernel[0]!, kernel[1]!];
    const isWhole = row.taps === kernel[0] && column.taps === kernel[1];
    const share = isWhole ? weight : slice(graph, weight, [2, 3], [row.first, column.first], ends, strides);
    const taps = [row.taps, column.taps];
    const weights =
      groups === 1
        ? blockWeights(graph, share, [outChannels, inChannels, ...taps], block, 'backward')
        : blockChannelWeights(graph, share, [inChannels, 1, ...taps], block, 'backward');
    return blockedConv(graph, blocked, weights, {
      ...{ kernel: taps, padBegin: [row.begin, column.begin], padEnd: [row.end, column.end] },
      groups: groups === 1 ? 1 : channels,
    });
  };
  const [rows, columns] = [phasesOf(shape, 0)!, phasesOf(shape, 1)!];
  const lines = rows.map((row) =>
    sideBySide(
      graph,
      columns.map((column) => at(row, column)),
      block,
    ),
  );
  const [fullHeight, fullWidth] = [height * strides[0]!, width * strides[1]!];
  const whole = sideBySide(graph, lines, fullWidth * block);
  const found = reshape(graph, whole, [samples, channels, fullHeight, fullWidth]);
  const plain = fromBlocked(graph, found, inChannels);
  const axes = [0, 1].filter((axis) => [fullHeight, fullWidth][axis]! > input[axis]!);
  if (axes.length === 0) return plain;
  return slice(
    graph,
    plain,
    axes.map((axis) => axis + 2),
    axes.map(() => 0),
    axes.map((axis) => input[axis]!),
    axes.map(() => 1),
  );
}

/** Runs of `length` numbers of each in turn. */
function sideBySide(graph: Graph, parts: readonly Value[], length: number): Value {
  if (parts.length === 1) return parts[0]!;
  return concat(
    graph,
    parts.map((part) => reshape(graph, part, [-1, length])),
    1,
  );
}
