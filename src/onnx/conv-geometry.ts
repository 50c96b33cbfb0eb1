/** Kernel, strides, dilations, explicit padding and output grid of a Conv, whatever way its node states them. */
import { FlowCompressError } from '../errors.js';
import type { Node } from './graph.js';

export interface ConvGeometry {
  readonly kernel: number[];
  readonly strides: number[];
  readonly dilations: number[];
  readonly padBegin: number[];
  readonly padEnd: number[];
  /** Spatial dims of the output. */
  readonly output: number[];
}

/**
 * @param inputDims [N, C, spatial...] of the activation
 * @param weightDims [O, C / groups, kernel...]
 * @throws FlowCompressError `bad-input` when the kernel does not fit the padded input.
 */
export function convGeometry(node: Node, inputDims: readonly number[], weightDims: readonly number[]): ConvGeometry {
  const kernel = weightDims.slice(2);
  const spatial = inputDims.slice(2);
  const strides = node.ints('strides') ?? kernel.map(() => 1);
  const dilations = node.ints('dilations') ?? kernel.map(() => 1);
  const extent = kernel.map((k, i) => (k - 1) * dilations[i]! + 1);
  const autoPad = node.string('auto_pad', 'NOTSET');
  const pads = node.ints('pads') ?? kernel.flatMap(() => [0, 0]);
  let padBegin = pads.slice(0, kernel.length);
  let padEnd = pads.slice(kernel.length);
  if (autoPad === 'VALID') {
    padBegin = kernel.map(() => 0);
    padEnd = padBegin;
  } else if (autoPad.startsWith('SAME')) {
    const total = spatial.map((n, i) => Math.max(0, (Math.ceil(n / strides[i]!) - 1) * strides[i]! + extent[i]! - n));
    const small = total.map((t) => Math.floor(t / 2));
    const large = total.map((t, i) => t - small[i]!);
    [padBegin, padEnd] = autoPad === 'SAME_UPPER' ? [small, large] : [large, small];
  }
  const output = spatial.map((n, i) => Math.floor((n + padBegin[i]! + padEnd[i]! - extent[i]!) / strides[i]!) + 1);
  if (output.some((n) => n < 1)) {
    throw new FlowCompressError('bad-input', `The kernel [${extent.join(', ')}] is larger than the padded input.`, {
      node: node.label,
      hint: 'Feed samples of the size the model was trained on (--size).',
    });
  }
  return { kernel, strides, dilations, padBegin, padEnd, output };
}

/** Index tuples of a kernel, row-major: the last axis fastest. */
export function kernelTaps(kernel: readonly number[]): number[][] {
  return kernel.reduce<number[][]>(
    (tuples, size) => tuples.flatMap((tuple) => Array.from({ length: size }, (_, i) => [...tuple, i])),
    [[]],
  );
}
