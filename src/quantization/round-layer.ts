/** Rounds a whole layer: scale search per output channel, error-compensating rounding, refinement. */
import type { Gram } from '../flow/gram-probe.js';
import type { WeightLayer } from '../onnx/layers.js';
import { gridOf, type Grid } from './grid.js';
import { descendRow, refitScale, roundHalfEven, roundRow, roundingBasis, type RoundingBasis } from './round.js';

export interface RoundedLayer {
  readonly grid: Grid;
  /** [rows, cols] */
  readonly codes: Int8Array;
  /** One per output channel. */
  readonly scales: Float32Array;
  /** Expected squared error of the layer's output, summed over rows: sum (w - wq)^T G (w - wq). */
  readonly error: number;
}

/** Candidate scales as shares of the one that just covers the largest weight. */
const CLIPS: Readonly<Record<number, readonly number[]>> = {
  1: [0.75, 0.6, 0.5, 0.4, 0.3],
  2: [1, 0.87, 0.76, 0.66, 0.57, 0.48],
  3: [1, 0.9, 0.8, 0.7, 0.6],
  4: [1, 0.9, 0.8, 0.7],
  5: [1, 0.9, 0.8],
};
const WIDE_CLIPS = [1];

/** Factorized Gram matrices of a layer, one per group. */
export function layerBases(gram: Gram, damping = 0.01): RoundingBasis[] {
  const { groups, cols, data } = gram;
  return Array.from({ length: groups }, (_, g) =>
    roundingBasis(data.subarray(g * cols * cols, (g + 1) * cols * cols), cols, damping),
  );
}

export interface RoundingEffort {
  /** Candidate scales per row; 1 takes a single, statistically good one. */
  readonly search: 'full' | 'one';
  /** Rounds of scale refit + coordinate descent after the compensating pass. */
  readonly refinements: number;
}

/**
 * @param layer one with a single row per output channel
 * @param weights [rows, cols] matrix of the layer
 * @param bits 1 to 8
 */
export function roundLayer(
  layer: WeightLayer,
  weights: Float32Array,
  bases: readonly RoundingBasis[],
  bits: number,
  effort: RoundingEffort,
): RoundedLayer {
  const { rows, cols, groups } = layer;
  // Levels symmetric around zero gain up to a tenth of the error at 1 to 3 bits; above, an exact zero is worth more.
  const grid = gridOf(bits, bits <= 3 ? 0.5 : 0);
  const clips = effort.search === 'full' ? (CLIPS[bits] ?? WIDE_CLIPS) : [typicalClip(bits, cols)];
  const codes = new Int8Array(rows * cols);
  const scales = new Float32Array(rows);
  const w = new Float32Array(cols);
  const scratch = new Float32Array(cols);
  const levels = new Float32Array(cols);
  const trial = new Int8Array(cols);
  const best = new Int8Array(cols);
  let error = 0;
  for (let row = 0; row < rows; row++) {
    const basis = bases[Math.floor((row * groups) / rows)]!;
    const { order } = basis;
    let peak = 0;
    for (let i = 0; i < cols; i++) {
      w[i] = weights[row * cols + order[i]!]!;
      peak = Math.max(peak, Math.abs(w[i]!));
    }
    let scale = 0;
    let energy = 0;
    if (peak > 0) {
      energy = Infinity;
      for (const clip of clips) {
        const candidate = Math.fround((peak * clip) / (grid.high + grid.offset));
        const reached = roundRow(basis, w, candidate, grid, trial, scratch);
        if (reached >= energy) continue;
        energy = reached;
        scale = candidate;
        best.set(trial);
      }
      for (let pass = 0; pass < effort.refinements; pass++) {
        for (let i = 0; i < cols; i++) levels[i] = best[i]! + grid.offset;
        const refit = Math.fround(refitScale(basis, w, levels));
        if (refit > 0) scale = refit;
        energy = descendRow(basis, w, scale, grid, best, scratch, 4);
      }
    } else best.fill(0);
    scales[row] = scale;
    error += energy;
    for (let i = 0; i < cols; i++) codes[row * cols + order[i]!] = best[i]!;
  }
  return { grid, codes, scales, error };
}

/**
 * Rounds every weight to its nearest level, with the scale of least square error per output channel.
 * Inputs are not known here: the error is that of the weights alone, sum (w - wq)^2.
 */
export function roundLayerNearest(
  layer: WeightLayer,
  weights: Float32Array,
  bits: number,
  searchClip: boolean,
): RoundedLayer {
  const { rows, cols } = layer;
  const grid = gridOf(bits, bits <= 3 ? 0.5 : 0);
  const clips = searchClip ? (CLIPS[bits] ?? WIDE_CLIPS) : WIDE_CLIPS;
  const perChannel = rows / layer.channels;
  const codes = new Int8Array(rows * cols);
  const scales = new Float32Array(layer.channels);
  let error = 0;
  for (let channel = 0; channel < layer.channels; channel++) {
    const from = channel * perChannel * cols;
    const to = from + perChannel * cols;
    let peak = 0;
    for (let i = from; i < to; i++) peak = Math.max(peak, Math.abs(weights[i]!));
    let best = peak > 0 ? Infinity : 0;
    let scale = 0;
    for (const clip of peak > 0 ? clips : []) {
      const candidate = Math.fround((peak * clip) / (grid.high + grid.offset));
      let energy = 0;
      for (let i = from; i < to; i++) {
        const level = candidate * (nearestCode(weights[i]! / candidate, grid) + grid.offset);
        energy += (weights[i]! - level) ** 2;
      }
      if (energy < best) {
        best = energy;
        scale = candidate;
      }
    }
    error += best;
    scales[channel] = scale;
    if (scale > 0) for (let i = from; i < to; i++) codes[i] = nearestCode(weights[i]! / scale, grid);
  }
  return { grid, codes, scales, error };
}

function nearestCode(x: number, grid: Grid): number {
  return Math.min(grid.high, Math.max(grid.low, roundHalfEven(x - grid.offset)));
}

/** The [rows, cols] matrix that a rounded layer stands for. */
export function dequantize(layer: WeightLayer, rounded: Pick<RoundedLayer, 'codes' | 'scales' | 'grid'>): Float32Array {
  const out = new Float32Array(rounded.codes.length);
  const { offset } = rounded.grid;
  const rowsPerChannel = layer.rows / layer.channels;
  for (let row = 0; row < layer.rows; row++) {
    const scale = rounded.scales[Math.floor(row / rowsPerChannel)]!;
    for (let i = row * layer.cols; i < (row + 1) * layer.cols; i++) out[i] = scale * (rounded.codes[i]! + offset);
  }
  return out;
}

/** Good single clip for roughly Gaussian weights, relative to the largest of `n`: optimal clip in sigmas / expected peak. */
function typicalClip(bits: number, n: number): number {
  const optimal = [0, 0.8, 1.5, 2.05, 2.6, 3.1, 3.6][bits] ?? 8;
  const peak = Math.sqrt(2 * Math.log(Math.max(n, 3)));
  return Math.min(1, optimal / peak);
}
