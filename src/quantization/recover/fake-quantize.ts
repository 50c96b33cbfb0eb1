/**
 * Weights of a training graph, rounded to their grid by standard operators that have gradient rules, and the codes that the
 * same numbers have in a file.
 *
 * w = s (round(clip(v / s - o, low, high)) + o) for latent weights v and one scale s per output channel. The bounds are
 * products with s and the rounding is a QuantizeLinear with a DequantizeLinear of the same scale, so that the gradients are
 * those of LSQ (Esser et al. 2020): in v, straight through inside the range and 0 outside; in s, (w - v) / s inside,
 * low + o or high + o outside.
 *
 * In a codebook the integer that v / s rounds to gives way to the level nearest to it, by a look-up that gradients do not pass: they are
 * straight through in v from the lowest level to the highest, and (w - v) / s in s, as on a grid. The levels stay as they are.
 */
import { intAttribute } from '../../onnx/attributes.js';
import { DataType } from '../../onnx/dtypes.js';
import type { Graph, Value } from '../../onnx/graph.js';
import type { WeightLayer } from '../../onnx/layers.js';
import { formula, reshape } from '../../onnx/ops.js';
import { makeTensor } from '../../onnx/tensor.js';
import { placeIn, roundHalfEven, type Grid } from '../grid.js';

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
  const integers = (): Value =>
    graph.insertOp('QuantizeLinear', [half ? op('Sub', clipped, half) : clipped, scale, zero], axis);
  const rounded = graph.insertOp('DequantizeLinear', [integers(), scale, zero], axis);
  if (half) return op('Add', rounded, half);
  if (!grid.levels) return rounded;
  // Codes of their own: those of a pair are read by nothing but its DequantizeLinear.
  const places = graph.insertOp('Cast', [integers()], [intAttribute('to', DataType.INT32)]);
  const table = makeTensor(graph.uniqueName('to the level'), DataType.FLOAT, [256], stepsToLevels(grid.levels));
  return op('Add', rounded, op('Mul', steps, graph.insertOp('Gather', [graph.addInitializer(table), places])));
}

/** From each integer of 8 bits to the level nearest to it; negative ones lie behind the others, where Gather counts them from the end. */
function stepsToLevels(levels: Int8Array): Float32Array {
  return Float32Array.from({ length: 256 }, (_, i) => {
    const integer = i < 128 ? i : i - 256;
    return levels[placeIn(levels, integer)]! - integer;
  });
}

/**
 * The code that `fakeQuantize` rounds a latent weight to, in the same float32 arithmetic.
 * @param scale above 0
 */
export function codeOf(latent: number, scale: number, { low, high, offset, levels }: Grid): number {
  const least = Math.fround(scale * (low + offset));
  const greatest = Math.fround(scale * (high + offset));
  const clipped = Math.min(Math.max(latent, least), greatest);
  const shifted = Math.fround(clipped - Math.fround(scale * offset));
  const integer = roundHalfEven(Math.fround(shifted / scale));
  return levels ? levels[placeIn(levels, integer)]! : integer;
}

/** Distance of a latent weight to the edge of its code's cell at the start, as a share of the cell. */
const MARGIN = 0.05;

/**
 * The number closest to a weight that `codeOf` gives this code and that gradients reach: codes that were rounded to let
 * errors cancel are where the training begins.
 */
export function latentOf(weight: number, code: number, scale: number, grid: Grid): number {
  const { low, high, offset } = grid;
  const [from, to] = cellOf(code, grid);
  const margin = MARGIN * (to - from + 1);
  const least = code === low ? code + offset + margin / 2 : from + offset - 0.5 + margin;
  const greatest = code === high ? code + offset - margin / 2 : to + offset + 0.5 - margin;
  return Math.fround(scale * Math.min(Math.max(weight / scale, least), greatest));
}

/** The least and the greatest integer that become a code. */
function cellOf(code: number, { low, high, levels }: Grid): [number, number] {
  if (!levels) return [code, code];
  const k = levels.indexOf(code);
  const lastOf = (place: number): number => Math.floor((levels[place]! + levels[place + 1]!) / 2);
  return [code === low ? low : lastOf(k - 1) + 1, code === high ? high : lastOf(k)];
}
