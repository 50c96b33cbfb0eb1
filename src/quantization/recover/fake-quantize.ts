/**
 * Weights of a training graph, rounded to their grid by standard operators that have gradient rules, and the codes that the
 * same numbers have in a file.
 *
 * w = s (round(clip(v / s - o, low, high)) + o) for latent weights v and one scale s per output channel. The bounds are
 * products with s and the rounding is a QuantizeLinear with a DequantizeLinear of the same scale, so that the gradients are
 * those of LSQ (Esser et al. 2020): in v, straight through inside the range and 0 outside; in s, (w - v) / s inside,
 * low + o or high + o outside.
 */
import { intAttribute } from '../../onnx/attributes.js';
import { DataType } from '../../onnx/dtypes.js';
import type { Graph, Value } from '../../onnx/graph.js';
import type { WeightLayer } from '../../onnx/layers.js';
import { formula, reshape } from '../../onnx/ops.js';
import { makeTensor } from '../../onnx/tensor.js';
import type { Grid } from '../grid.js';
import { roundHalfEven } from '../round.js';

/** What the rounding asks of a layer. */
export type ChannelView = Pick<WeightLayer, 'dims' | 'channelAxis' | 'channels'>;

/**
 * @param latent values of the layer's weight tensor
 * @param scale [channels], above 0
 * @returns of the shape of `latent`
 */
export function fakeQuantize(graph: Graph, view: ChannelView, latent: Value, scale: Value, grid: Grid): Value {
  const { dims, channelAxis, channels } = view;
  const op = formula(graph);
  const steps = reshape(
    graph,
    scale,
    dims.map((_, axis) => (axis === channelAxis ? channels : 1)),
  );
  const bound = (code: number): Value => op('Mul', steps, code + grid.offset);
  const clipped = op('Min', op('Max', latent, bound(grid.low)), bound(grid.high));
  const half = grid.offset === 0 ? undefined : op('Mul', steps, grid.offset);
  const zero = graph.addInitializer(
    makeTensor(graph.uniqueName('zero point'), DataType.INT8, [channels], new Int8Array(channels)),
  );
  const axis = [intAttribute('axis', channelAxis)];
  const codes = graph.insertOp('QuantizeLinear', [half ? op('Sub', clipped, half) : clipped, scale, zero], axis);
  const levels = graph.insertOp('DequantizeLinear', [codes, scale, zero], axis);
  return half ? op('Add', levels, half) : levels;
}

/**
 * The code that `fakeQuantize` rounds a latent weight to, in the same float32 arithmetic.
 * @param scale above 0
 */
export function codeOf(latent: number, scale: number, { low, high, offset }: Grid): number {
  const least = Math.fround(scale * (low + offset));
  const greatest = Math.fround(scale * (high + offset));
  const clipped = Math.min(Math.max(latent, least), greatest);
  const shifted = Math.fround(clipped - Math.fround(scale * offset));
  return roundHalfEven(Math.fround(shifted / scale));
}

/** Distance of a latent weight to the edge of its code's cell at the start, in steps. */
const MARGIN = 0.05;

/**
 * The number closest to a weight that `codeOf` gives this code and that gradients reach: codes that were rounded to let
 * errors cancel are where the training begins.
 */
export function latentOf(weight: number, code: number, scale: number, { low, high, offset }: Grid): number {
  const level = code + offset;
  const least = code === low ? level + MARGIN / 2 : level - 0.5 + MARGIN;
  const greatest = code === high ? level - MARGIN / 2 : level + 0.5 - MARGIN;
  return Math.fround(scale * Math.min(Math.max(weight / scale, least), greatest));
}
