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
import type { ConvShape } from './conv-shape.js';

/** Along one axis, how the positions s q + r of X are made of dY. */
interface Phase {
  /** First element of the kernel that they meet; the others follow a stride apart. */
  readonly first: number;
  readonly taps: number;
  /** Padding of dY. */
  readonly begin: number;
  readonly end: number;
}

/**
 * With j = s q + r + pad, dX[s q + r] = sum over t of W[k + s t] dY[q + floor((r + pad) / s) - t], where k = (r + pad) mod s.
 * @returns by r; undefined where a phase meets no element, or dY would have to be cut
 */
function phasesOf(shape: ConvShape, axis: number): Phase[] | undefined {
  const [stride, kernel, pad] = [shape.strides[axis]!, shape.kernel[axis]!, shape.padBegin[axis]!];
  const [input, output] = [shape.input[axis]!, shape.output[axis]!];
  const phases = Array.from({ length: stride }, (_, r) => {
    const first = (r + pad) % stride;
    const taps = Math.ceil((kernel - first) / stride);
    const begin = taps - 1 - Math.floor((r + pad) / stride);
    return { first, taps, begin, end: Math.ceil(input / stride) - output + taps - 1 - begin };
  });
  return phases.every(({ taps, begin, end }) => taps > 0 && begin >= 0 && end >= 0) ? phases : undefined;
}

/** Whether every phase of a strided geometry is a convolution of dY. */
export function hasPhases(shape: ConvShape): boolean {
  const { strides, dilations } = shape;
  return (
    strides.some((stride) => stride > 1) &&
    dilations.every((dilation) => dilation === 1) &&
    strides.every((_, axis) => phasesOf(shape, axis) !== undefined)
  );
}

/** From dY [N, Cout, output...] and W to dX [N, Cin, height, width]. @param shape of which `hasPhases` is true */
export function inputGradientByPhases(
  graph: Graph,
  shape: ConvShape & { readonly block: number; readonly samples: number },
  gradient: Value,
  weight: Value,
): Value {
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
