/** Swin-T (Liu et al. 2021, Hierarchical Vision Transformer using Shifted Windows). Maps are [N, H, W, C]. */
import { intAttribute } from '../onnx/attributes.js';
import { DataType } from '../onnx/dtypes.js';
import type { Value } from '../onnx/graph.js';
import type { Architecture } from './architecture.js';
import { add, concat, conv, layerNorm, linear, reshape, slice, transpose } from './layers.js';
import type { Net } from './net.js';
import { scaled, sizeAtLeast, type ZooSettings } from './options.js';
import { attention, mlp, TRANSFORMER_INIT } from './transformer.js';

const DEPTHS = [2, 2, 6, 2] as const;
/** Heads of the first stage; every stage has twice the heads and channels of the one before. */
const HEADS = 3;
const HEAD_WIDTH = 32;
const PATCH = 4;
const WINDOW = 7;
const EPSILON = 1e-5;
/** What keeps tokens apart that are neighbours only because of the shift. */
const APART = -100;

/** Side of the windows on a map: the largest that divides it, up to the paper's 7. */
function windowOn(side: number): number {
  let window = Math.min(WINDOW, side);
  while (side % window !== 0) window--;
  return window;
}

/** [N, H, W, C] to [N, windows, tokens, C]. */
function partition(net: Net, x: Value, name: string, window: number): Value {
  const [, side = 0, , channels = 0] = net.dims(x);
  const count = side / window;
  const cut = reshape(net, x, `${name}.cut`, [count, window, count, window, channels]);
  const ordered = transpose(net, cut, `${name}.order`, [0, 1, 3, 2, 4, 5]);
  return reshape(net, ordered, name, [count * count, window * window, channels]);
}

/** The way back of `partition`. */
function merge(net: Net, x: Value, name: string, side: number, window: number): Value {
  const channels = net.dims(x).at(-1) ?? 0;
  const count = side / window;
  const cut = reshape(net, x, `${name}.cut`, [count, count, window, window, channels]);
  const ordered = transpose(net, cut, `${name}.order`, [0, 1, 3, 2, 4, 5]);
  return reshape(net, ordered, name, [side, side, channels]);
}

/** Moves the map by `shift` rows and columns towards the origin; what leaves comes in on the other side. */
function roll(net: Net, x: Value, name: string, shift: number): Value {
  return [1, 2].reduce((y, axis) => {
    const path = `${name}.${axis === 1 ? 'rows' : 'columns'}`;
    const rest = slice(net, y, `${path}.rest`, [axis], { start: shift });
    const moved = slice(net, y, `${path}.moved`, [axis], { start: 0, end: shift });
    return concat(net, [rest, moved], path, axis);
  }, x);
}

/** One learned number per head and offset between two tokens of a window; bias [heads, tokens, tokens]. */
function relativePositionBias(net: Net, name: string, heads: number, window: number): Value {
  const tokens = window * window;
  const offsets = 2 * window - 1;
  const table = net.parameter(`${name}.table`, [offsets * offsets, heads], TRANSFORMER_INIT);
  const index: number[] = [];
  for (let a = 0; a < tokens; a++) {
    for (let b = 0; b < tokens; b++) {
      const rows = Math.floor(a / window) - Math.floor(b / window) + window - 1;
      const columns = (a % window) - (b % window) + window - 1;
      index.push(rows * offsets + columns);
    }
  }
  const taken = net.op(`${name}.take`, 'Gather', [table, net.integers(`${name}.index`, index)], [index.length, heads]);
  const shape = net.integers(`${name}.square.shape`, [tokens, tokens, -1]);
  const square = net.op(`${name}.square`, 'Reshape', [taken, shape], [tokens, tokens, heads]);
  return transpose(net, square, name, [2, 0, 1]);
}

/**
 * 0 between tokens of one region of the unshifted map, -100 between others; [windows, 1, tokens, tokens], computed when the
 * model is loaded from the region numbers of the tokens.
 */
function shiftMask(net: Net, name: string, side: number, window: number, shift: number): Value {
  const count = side / window;
  const tokens = window * window;
  const band = (at: number): number => (at < side - window ? 0 : at < side - shift ? 1 : 2);
  const regions: number[] = [];
  for (let w = 0; w < count * count; w++) {
    for (let t = 0; t < tokens; t++) {
      const row = Math.floor(w / count) * window + Math.floor(t / window);
      const column = (w % count) * window + (t % window);
      regions.push(3 * band(row) + band(column));
    }
  }
  const square = [count * count, 1, tokens, tokens];
  const ofRows = net.integers(`${name}.regions`, regions, [count * count, 1, tokens, 1]);
  const ofColumns = transpose(net, ofRows, `${name}.regions.columns`, [0, 1, 3, 2]);
  const same = net.op(`${name}.same`, 'Equal', [ofRows, ofColumns], square);
  const apart = net.op(`${name}.apart`, 'Not', [same], square);
  const asFloat = net.op(`${name}.cast`, 'Cast', [apart], square, [intAttribute('to', Number(DataType.FLOAT))]);
  return net.op(name, 'Mul', [asFloat, net.scalar(APART)], square);
}

/** Attention within windows, which every second block shifts by half a window. */
function block(net: Net, x: Value, name: string, heads: number, shifted: boolean): Value {
  const [, side = 0, , channels = 0] = net.dims(x);
  const window = windowOn(side);
  const shift = shifted && window < side ? Math.floor(window / 2) : 0;
  let y = layerNorm(net, x, `${name}.norm1`, EPSILON);
  if (shift > 0) y = roll(net, y, `${name}.shift`, shift);
  y = partition(net, y, `${name}.windows`, window);
  const biases = [relativePositionBias(net, `${name}.attn.position`, heads, window)];
  if (shift > 0) biases.push(shiftMask(net, `${name}.attn.mask`, side, window, shift));
  y = attention(net, y, `${name}.attn`, { heads, biases });
  y = merge(net, y, `${name}.map`, side, window);
  if (shift > 0) y = roll(net, y, `${name}.unshift`, side - shift);
  const attended = add(net, x, y, `${name}.add1`);
  const moved = mlp(net, layerNorm(net, attended, `${name}.norm2`, EPSILON), `${name}.mlp`, { hidden: 4 * channels });
  return add(net, attended, moved, `${name}.add2`);
}

/** Four neighbouring tokens side by side, then half as many channels: [N, H, W, C] to [N, H/2, W/2, 2C]. */
function patchMerging(net: Net, x: Value, name: string): Value {
  const [, side = 0, , channels = 0] = net.dims(x);
  const half = side / 2;
  const cut = reshape(net, x, `${name}.cut`, [half, 2, half, 2, channels]);
  // Column before row, as in the authors' code.
  const ordered = transpose(net, cut, `${name}.order`, [0, 1, 3, 4, 2, 5]);
  const joined = reshape(net, ordered, `${name}.join`, [half, half, 4 * channels]);
  const normed = layerNorm(net, joined, `${name}.norm`, EPSILON);
  return linear(net, normed, `${name}.reduction`, 2 * channels, { bias: false, init: TRANSFORMER_INIT });
}

function swinT(net: Net, { inputSize, channels, classes, width }: ZooSettings): void {
  const heads = scaled(HEADS, width);
  const patch = { kernel: PATCH, stride: PATCH, padding: 0, bias: true, init: TRANSFORMER_INIT };
  const image = net.input([channels, inputSize, inputSize]);
  const grid = conv(net, image, 'patch_embed', heads * HEAD_WIDTH, patch);
  let x = layerNorm(net, transpose(net, grid, 'patch_embed.last', [0, 2, 3, 1]), 'patch_embed.norm', EPSILON);
  for (const [i, depth] of DEPTHS.entries()) {
    if (i > 0) x = patchMerging(net, x, `layers.${String(i)}.merging`);
    for (let b = 0; b < depth; b++)
      x = block(net, x, `layers.${String(i)}.blocks.${String(b)}`, heads * 2 ** i, b % 2 === 1);
  }
  x = layerNorm(net, x, 'norm', EPSILON);
  const mean = transpose(net, x, 'first', [0, 3, 1, 2]);
  const pooled = net.op('pool', 'GlobalAveragePool', [mean], [1, net.dims(mean)[1] ?? 0, 1, 1]);
  const features = reshape(net, pooled, 'flatten', [net.dims(mean)[1] ?? 0]);
  net.output(linear(net, features, 'head', classes, { init: TRANSFORMER_INIT }), 'logits');
}

/** Windows of a single token see nothing: the map must have a divisor from 2 to 7. */
function check(settings: ZooSettings): ReturnType<ReturnType<typeof sizeAtLeast>> {
  const problem = sizeAtLeast(32, 32)(settings);
  const side = settings.inputSize / 32;
  if (problem || side === 1 || windowOn(side) > 1) return problem;
  return {
    option: 'inputSize',
    reason: `${String(settings.inputSize)} leaves maps of ${String(side)} x ${String(side)}, which no window of 2 to 7 divides`,
    remedy: `Give ${String(settings.inputSize + 32)}.`,
  };
}

export const SWIN_T: Architecture = {
  name: 'swin-t',
  summary: 'Swin-T: attention in shifted windows, four resolutions',
  defaults: { classes: 1000, width: 1, inputSize: 224, channels: 3 },
  check,
  build: swinT,
};
