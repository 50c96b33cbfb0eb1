/**
 * The gradient of a convolution in its input, in the blocked layout: a convolution of dY with the turned kernel. With strides,
 * positions of the input that are a stride apart meet the same elements of the kernel: each such phase is a dense
 * convolution of dY with its share of the kernel, and the phases are laid side by side.
 */
import {
  blockChannelWeights,
  blockedConv,
  blockWeights,
  fromBlocked,
  toBlocked,
  wholeBlocks,
  type BlockedGeometry,
} from '../../onnx/blocked.js';
import type { Graph, Value } from '../../onnx/graph.js';
import { concat, firstElements, reshape, slice } from '../../onnx/ops.js';
import { phasesOf, type BlockedShape, type ConvShape, type Phase } from './conv-shape.js';

/** Of which the batch need not be known. */
type Blocked = ConvShape & { readonly block: number };

/** From dY [N, Cout, output...] and W to dX [N, Cin, height, width], for stride 1. @param window how the turned kernel meets dY */
export function blockedInputGradient(
  graph: Graph,
  shape: Blocked,
  gradient: Value,
  weight: Value,
  window: BlockedGeometry,
): Value {
  return fromBlocked(graph, againstKernel(graph, shape, toBlocked(graph, gradient), weight, window), shape.inChannels);
}

/** Convolves dY, in blocks, with weights [Cout, Cin / groups, ...window.kernel] turned by 180 degrees. */
function againstKernel(graph: Graph, shape: Blocked, blocked: Value, weight: Value, window: BlockedGeometry): Value {
  const { inChannels, outChannels, groups, block } = shape;
  const weights =
    groups === 1
      ? blockWeights(graph, weight, [outChannels, inChannels, ...window.kernel], block, 'backward')
      : blockChannelWeights(graph, weight, [inChannels, 1, ...window.kernel], block, 'backward');
  return blockedConv(graph, blocked, weights, { ...window, groups: groups === 1 ? 1 : wholeBlocks(inChannels, block) });
}

/** The same for strides. @param shape of which `isPhased` is true */
export function inputGradientByPhases(graph: Graph, shape: BlockedShape, gradient: Value, weight: Value): Value {
  const { input, inChannels, kernel, strides, block, samples } = shape;
  const blocked = toBlocked(graph, gradient);
  const channels = wholeBlocks(inChannels, block);
  const [height, width] = input.map((n, i) => Math.ceil(n / strides[i]!)) as [number, number];
  const at = (row: Phase, column: Phase): Value => {
    const isWhole = row.taps === kernel[0] && column.taps === kernel[1];
    const share = isWhole ? weight : slice(graph, weight, [2, 3], [row.first, column.first], kernel, strides);
    return againstKernel(graph, shape, blocked, share, {
      kernel: [row.taps, column.taps],
      padBegin: [row.begin, column.begin],
      padEnd: [row.end, column.end],
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
  return firstElements(graph, plain, 2, [fullHeight, fullWidth], input);
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
