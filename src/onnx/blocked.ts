/**
 * ONNX Runtime's blocked layout, written by hand: its own optimizer gives it only to convolutions of constant weights.
 * A blocked tensor has the dims [N, C', height, width] with C' a multiple of the block size b, and lies in memory as
 * [N, C' / b, height, width, b]. Element-wise operators take it as it is, and Reshape gives the same memory other dims.
 */
import type { AttributeProto } from 'onnx-buf';
import { intAttribute, intsAttribute } from './attributes.js';
import { DataType } from './dtypes.js';
import type { Graph, Value } from './graph.js';
import { padZeros, reshape, reversed, transpose } from './ops.js';
import { makeTensor } from './tensor.js';

export const BLOCKED_DOMAIN = 'com.microsoft.nchwc';

/** C rounded up to whole blocks. */
export function wholeBlocks(channels: number, block: number): number {
  return Math.ceil(channels / block) * block;
}

/** Whether ONNX Runtime can bring so many channels into blocks. */
export function canBlock(channels: number): boolean {
  return channels % 4 === 0;
}

/** [N, C, height, width] in blocks (`canBlock(C)`); channels that fill the last block up are zero. */
export function toBlocked(graph: Graph, x: Value): Value {
  return insertBlocked(graph, 'ReorderInput', [x]);
}

/** The first `channels` of a blocked tensor as [N, channels, height, width]. */
export function fromBlocked(graph: Graph, x: Value, channels: number): Value {
  return insertBlocked(graph, 'ReorderOutput', [x], [intAttribute('channels', channels)]);
}

export interface BlockedGeometry {
  /** [height, width], as all that follow. */
  readonly kernel: readonly number[];
  readonly strides?: readonly number[];
  readonly dilations?: readonly number[];
  readonly padBegin: readonly number[];
  readonly padEnd: readonly number[];
  readonly groups?: number;
}

/**
 * A convolution from blocked tensor to blocked tensor.
 * @param weight of `blockWeights`, or of `blockChannelWeights` with a group per channel, whose number is C' then
 * @param bias [C'], one for every channel of whole blocks
 */
export function blockedConv(graph: Graph, x: Value, weight: Value, geometry: BlockedGeometry, bias?: Value): Value {
  const { kernel, strides = [1, 1], dilations = [1, 1], padBegin, padEnd, groups = 1 } = geometry;
  return insertBlocked(graph, 'Conv', bias ? [x, weight, bias] : [x, weight], [
    intAttribute('group', groups),
    intsAttribute('kernel_shape', kernel),
    intsAttribute('strides', strides),
    intsAttribute('dilations', dilations),
    intsAttribute('pads', [...padBegin, ...padEnd]),
  ]);
}

/**
 * x times a factor plus a term, one of each per channel, in whole blocks: a convolution with a group per channel.
 * @param channels C' of x
 */
export function scaleBlocked(
  graph: Graph,
  x: Value,
  channels: number,
  { factors, terms }: { factors?: Value; terms?: Value },
): Value {
  const weight = factors ? reshape(graph, factors, [channels, 1, 1, 1]) : onesPerChannel(graph, channels);
  const geometry = { kernel: [1, 1], padBegin: [0, 0], padEnd: [0, 0], groups: channels };
  return blockedConv(graph, x, weight, geometry, terms);
}

/** Weights [C', 1, 1, 1] of a convolution that copies. */
export function onesPerChannel(graph: Graph, channels: number): Value {
  const ones = new Float32Array(channels).fill(1);
  return graph.addInitializer(makeTensor(graph.uniqueName('ones'), DataType.FLOAT, [channels, 1, 1, 1], ones));
}

/** The mean over the positions of every sample and channel, [N, C', 1, 1], which is the same in both layouts. */
export function averageBlocked(graph: Graph, x: Value): Value {
  return insertBlocked(graph, 'GlobalAveragePool', [x]);
}

/**
 * Weights as the convolution that computes `Y` from `X` reads them: in memory [O / b, I / b, height, width, b of I, b of O].
 * With fewer than b channels in X, which is then read in the plain layout: [O / b, I, height, width, b of O].
 * @param weight [O, I, height, width]
 * @param role `forward`: X has I channels and Y has O; `backward`: X has O channels and Y has I, and the kernel is turned
 *   by 180 degrees, as the gradient in the input of a convolution needs it
 */
export function blockWeights(
  graph: Graph,
  weight: Value,
  dims: readonly number[],
  block: number,
  role: 'forward' | 'backward' = 'forward',
): Value {
  const [outer, inner, height, width] = dims as [number, number, number, number];
  const O = wholeBlocks(outer, block);
  const I = role === 'forward' && inner < block ? inner : wholeBlocks(inner, block);
  const filled = filledUp(graph, weight, [O - outer, I - inner, 0, 0]);
  if (I < block) {
    const rows = reshape(graph, filled, [O / block, block, I, height, width]);
    return reshape(graph, transpose(graph, rows, [0, 2, 3, 4, 1]), [O, I, height, width]);
  }
  const parts = reshape(graph, filled, [O / block, block, I / block, block, height, width]);
  if (role === 'forward') return reshape(graph, transpose(graph, parts, [0, 2, 4, 5, 3, 1]), [O, I, height, width]);
  const exchanged = transpose(graph, parts, [2, 0, 4, 5, 1, 3]);
  return reshape(graph, turned(graph, exchanged, 2, [height, width]), [I, O, height, width]);
}

/**
 * Weights of a convolution with one channel per group: in memory [C / b, height, width, b].
 * @param weight [C, 1, height, width]
 * @param role `backward` turns the kernel by 180 degrees
 */
export function blockChannelWeights(
  graph: Graph,
  weight: Value,
  dims: readonly number[],
  block: number,
  role: 'forward' | 'backward' = 'forward',
): Value {
  const [held, , height, width] = dims as [number, number, number, number];
  const channels = wholeBlocks(held, block);
  const filled = filledUp(graph, weight, [channels - held, 0, 0, 0]);
  const last = transpose(graph, reshape(graph, filled, [channels / block, block, height, width]), [0, 2, 3, 1]);
  const kernels = role === 'forward' ? last : turned(graph, last, 1, [height, width]);
  return reshape(graph, kernels, [channels, 1, height, width]);
}

/** A kernel turned by 180 degrees, whose axes of these sizes begin at `first`. */
export function turned(graph: Graph, x: Value, first: number, kernel: readonly number[]): Value {
  return reversed(
    graph,
    x,
    kernel.flatMap((size, i) => (size > 1 ? [first + i] : [])),
  );
}

/** Zeros behind the elements along every axis: so many more. */
export function filledUp(graph: Graph, x: Value, more: readonly number[]): Value {
  return padZeros(
    graph,
    x,
    more.map(() => 0),
    more,
  );
}

/** An operator of the blocked layout. */
export function insertBlocked(
  graph: Graph,
  op: string,
  inputs: (Value | undefined)[],
  attributes: AttributeProto[] = [],
): Value {
  graph.requireOpset(1, BLOCKED_DOMAIN);
  return graph.insertOp(op, inputs, attributes, undefined, BLOCKED_DOMAIN);
}
