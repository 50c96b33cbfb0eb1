/**
 * The gradient of a convolution in its weight as one blocked convolution: samples take the place of channels, and dY, which
 * lies in blocks as weights do, that of the kernel. The channels of X lie side by side along the width, between neighbouring
 * columns. A kernel as wide as dY, dilated by the number of channels, then gives all channels and kernel columns as one dense
 * row of results, so that each of the numbers of dY that is fetched serves many products.
 */
import { blockedConv, onesPerChannel, toBlocked, wholeBlocks } from '../../onnx/blocked.js';
import type { Graph, Value } from '../../onnx/graph.js';
import { firstElements, padZeros, reduce, reshape, slice, transpose } from '../../onnx/ops.js';
import type { BlockedShape } from './conv-shape.js';

/** X in the form that meets the kernel. */
interface Columns {
  /** [images, N, height, columns x channels] */
  readonly value: Value;
  /** Channels of X are cut into images of so many channels. */
  readonly images: number;
  readonly channels: number;
  /** Columns of X with its padding. */
  readonly width: number;
}

/**
 * From X [N, Cin, height, width] and dY [N, Cout, output...] to dW [Cout, Cin / groups, kernel...].
 * With one channel per group, all products within a block of channels are computed and those of a channel with itself kept.
 */
export function blockedWeightGradient(graph: Graph, shape: BlockedShape, x: Value, gradient: Value): Value {
  const { inChannels, outChannels, groups, output, kernel, strides, dilations, padBegin, padEnd, block, samples } =
    shape;
  const columns = inChannels < block ? byPixels(graph, shape, x) : byBlocks(graph, shape, x);
  const { value, images, channels, width } = columns;
  const outBlocks = wholeBlocks(outChannels, block) / block;
  // With fewer samples at a time than a block has numbers, X is read as it lies. Their results are summed afterwards.
  const atOnce = largestDivisor(samples, Math.min(block - 1, MOST_AT_ONCE));
  const shares = samples / atOnce;
  const area = output[0]! * output[1]! * block;
  const single = groups > 1;
  const filters = single
    ? transposedChunks(graph, toBlocked(graph, gradient), [samples, outBlocks, area])
    : transposedChunks(graph, toBlocked(graph, gradient), [shares, atOnce, outBlocks, area]);
  const found = blockedConv(
    graph,
    single ? reshape(graph, value, [1, images * samples, shape.input[0]!, width * channels]) : value,
    reshape(graph, filters, [shares * outBlocks * block, atOnce, ...output]),
    {
      kernel: output,
      strides: [dilations[0]!, 1],
      dilations: [strides[0]!, strides[1]! * channels],
      padBegin: [padBegin[0]!, 0],
      padEnd: [padEnd[0]!, 0],
      groups: single ? shares * images : shares,
    },
  );
  // Where the stride leaves rows or columns at the end unread, the result reaches beyond the kernel.
  const reached = [reachedRows(shape), width - (output[1]! - 1) * strides[1]!];
  const cells = [...reached, channels, block];
  const parts = reshape(graph, found, [images, shares, ...(single ? [] : [outBlocks]), ...cells]);
  const summed = firstElements(graph, reduce(graph, 'ReduceSum', parts, [1]), single ? 1 : 2, reached, kernel);
  if (single)
    return firstElements(graph, diagonal(graph, summed, images, block, kernel), 0, [images * block], [groups]);
  const whole = reshape(graph, transpose(graph, summed, [1, 5, 0, 4, 2, 3]), [
    outBlocks * block,
    images * channels,
    ...kernel,
  ]);
  return firstElements(graph, whole, 0, [outBlocks * block, images * channels], [outChannels, inChannels]);
}

/** Beyond this, the sums are so few that threads wait for each other. */
const MOST_AT_ONCE = 8;

function largestDivisor(n: number, limit: number): number {
  let divisor = limit;
  while (n % divisor !== 0) divisor--;
  return divisor;
}

/** Exchanges the two axes before the last one, which moves in one piece. */
function transposedChunks(graph: Graph, x: Value, dims: readonly number[]): Value {
  const last = dims.length - 1;
  if (dims[last - 1] === 1 || dims[last - 2] === 1) return x;
  const order = dims.map((_, i) => (i === last - 1 ? last - 2 : i === last - 2 ? last - 1 : i));
  return transpose(graph, reshape(graph, x, dims), order);
}

/** [images, kernel..., block, block] as [images x block, 1, kernel...]: what lies on the diagonal of the last two axes. */
function diagonal(graph: Graph, x: Value, images: number, block: number, kernel: readonly number[]): Value {
  const flat = reshape(graph, x, [images, ...kernel, block * block]);
  const kept = slice(graph, flat, [3], [0], [block * block], [block + 1]);
  return reshape(graph, transpose(graph, kept, [0, 3, 1, 2]), [images * block, 1, ...kernel]);
}

/** Columns of X that dY meets, with the padding that this takes at the end; more where columns are left over. */
function widthNeeded({ input, output, strides, kernel, padBegin }: BlockedShape): { width: number; end: number } {
  const needed = (output[1]! - 1) * strides[1]! + kernel[1]!;
  const end = needed - input[1]! - padBegin[1]!;
  return { width: needed + Math.max(0, -end), end: Math.max(0, end) };
}

function reachedRows({ input, output, strides, dilations, padBegin, padEnd }: BlockedShape): number {
  const free = input[0]! + padBegin[0]! + padEnd[0]! - ((output[0]! - 1) * strides[0]! + 1);
  return Math.floor(free / dilations[0]!) + 1;
}

function byBlocks(graph: Graph, shape: BlockedShape, x: Value): Columns {
  const { inChannels, input, padBegin, block, samples } = shape;
  const images = wholeBlocks(inChannels, block) / block;
  const { width, end } = widthNeeded(shape);
  const blocked = toBlocked(graph, x);
  const padded =
    padBegin[1] === 0 && end === 0
      ? blocked
      : // Copying with padding takes a third of the time of Pad.
        blockedConv(graph, blocked, onesPerChannel(graph, images * block), {
          ...{ kernel: [1, 1], padBegin: [0, padBegin[1]!], padEnd: [0, end], groups: images * block },
        });
  const imagesFirst = transposedChunks(graph, padded, [samples, images, input[0]! * width * block]);
  const value = reshape(graph, imagesFirst, [images, samples, input[0]!, width * block]);
  return { value, images, channels: block, width };
}

/** For fewer channels than a block: one image of all of them. */
function byPixels(graph: Graph, shape: BlockedShape, x: Value): Columns {
  const { inChannels, input, padBegin, samples } = shape;
  const { width, end } = widthNeeded(shape);
  const pixels = padZeros(graph, transpose(graph, x, [0, 2, 3, 1]), [0, 0, padBegin[1]!, 0], [0, 0, end, 0]);
  const value = reshape(graph, pixels, [1, samples, input[0]!, width * inChannels]);
  return { value, images: 1, channels: inChannels, width };
}
