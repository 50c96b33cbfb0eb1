/** Rounds a whole layer: scale search per output channel, error-compensating rounding, refinement. */
import type { Gram } from '../flow/gram-probe.js';
import type { WeightLayer } from '../onnx/layers.js';
import { gridOf, type Grid } from './grid.js';
import {
  blockIndex,
  energyOfRows,
  loadBasis,
  openBlock,
  refineRows,
  roundHalfEven,
  roundingBasis,
  roundRows,
  ROWS,
  type RoundingBasis,
  type RowBlock,
} from './round.js';

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
  /** Candidate scales: a single, statistically good one, or a search. */
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
  const { rows, cols } = layer;
  // Levels symmetric around zero gain up to a tenth of the error at 1 to 3 bits; above, an exact zero is worth more.
  const grid = gridOf(bits, bits <= 3 ? 0.5 : 0);
  const work: LayerWork = { layer, weights, bases, block: openBlock(cols), peaks: new Float64Array(ROWS), grid };
  const codes = new Int8Array(rows * cols);
  const scales = new Float32Array(rows);
  const all = effort.search === 'full' ? (CLIPS[bits] ?? WIDE_CLIPS) : [typicalClip(bits, cols)];
  const clips = all.length > KEPT_CLIPS ? bestClips(work, all) : all;
  const { block } = work;
  let error = 0;
  forEachBlock(work, (members, { order }) => {
    roundWithBestClip(work, clips);
    if (effort.refinements > 0) refineRows(block, grid, effort.refinements);
    members.forEach((row, r) => {
      scales[row] = block.scales[r]!;
      error += block.energies[r]!;
      for (let i = 0; i < cols; i++) codes[row * cols + order[i]!] = block.codes[blockIndex(cols, r, i)]!;
    });
  });
  return { grid, codes, scales, error };
}

/** Energy of a layer's output for a matrix in the place of its weights: sum over rows of m H m^T. */
export function outputEnergy(layer: WeightLayer, matrix: Float32Array, bases: readonly RoundingBasis[]): number {
  const block = openBlock(layer.cols);
  let total = 0;
  forEachBlock({ layer, weights: matrix, bases, block, peaks: new Float64Array(ROWS) }, () => {
    total += energyOfRows(block);
  });
  return total;
}

/** Clips that every row tries, after the rest was ruled out on a sample of rows; the refinement refits the scales anyway. */
const KEPT_CLIPS = 2;
/** Rows of the sample, in blocks. */
const SAMPLED_BLOCKS = 1;

/** The rows of a layer on their way through a block. */
interface LayerRows {
  readonly layer: WeightLayer;
  /** [rows, cols] */
  readonly weights: Float32Array;
  readonly bases: readonly RoundingBasis[];
  readonly block: RowBlock;
  /** Largest magnitude of each row in the block. */
  readonly peaks: Float64Array;
}

interface LayerWork extends LayerRows {
  readonly grid: Grid;
}

/** Loads the rows of a layer, group by group, as many at a time as a block holds. */
function forEachBlock(work: LayerRows, visit: (members: readonly number[], basis: RoundingBasis) => void): void {
  const { rows, groups } = work.layer;
  const perGroup = rows / groups;
  work.bases.forEach((basis, group) => {
    loadBasis(work.block, basis);
    const end = (group + 1) * perGroup;
    for (let first = group * perGroup; first < end; first += ROWS) {
      const members = Array.from({ length: Math.min(ROWS, end - first) }, (_, r) => first + r);
      load(work, basis, members);
      visit(members, basis);
    }
  });
}

/** Loads rows in processing order; missing ones become zero rows with scale 0. */
function load({ layer, weights, block, peaks }: LayerRows, { order }: RoundingBasis, rows: readonly number[]): void {
  const { cols } = layer;
  block.w.fill(0);
  peaks.fill(0);
  rows.forEach((row, r) => {
    for (let i = 0; i < cols; i++) {
      const value = weights[row * cols + order[i]!]!;
      block.w[blockIndex(cols, r, i)] = value;
      if (Math.abs(value) > peaks[r]!) peaks[r] = Math.abs(value);
    }
  });
}

/** @param clips one, or one per row */
function setScales({ block, peaks, grid }: LayerWork, clips: ArrayLike<number>): void {
  for (let r = 0; r < ROWS; r++)
    block.scales[r] = (peaks[r]! * clips[clips.length > 1 ? r : 0]!) / (grid.high + grid.offset);
}

/** Rounds each loaded row with the clip of its least energy. */
function roundWithBestClip(work: LayerWork, clips: readonly number[]): void {
  const { block, grid } = work;
  const best = new Float64Array(ROWS);
  const least = new Float64Array(ROWS).fill(Infinity);
  for (const clip of clips) {
    setScales(work, [clip]);
    roundRows(block, grid);
    for (let r = 0; r < ROWS; r++) {
      if (block.energies[r]! >= least[r]!) continue;
      least[r] = block.energies[r]!;
      best[r] = clip;
    }
  }
  if (clips.length === 1) return;
  setScales(work, best);
  roundRows(block, grid);
}

/** The clips with the least summed error on rows spread over the layer: the optimum hardly moves between rows. */
function bestClips(work: LayerWork, clips: readonly number[]): readonly number[] {
  const { bases } = work;
  const { rows, groups } = work.layer;
  const perGroup = rows / groups;
  const sums = clips.map(() => 0);
  const sampled = Math.min(rows, SAMPLED_BLOCKS * ROWS);
  const byGroup = new Map<number, number[]>();
  for (let i = 0; i < sampled; i++) {
    const row = Math.floor((i * rows) / sampled);
    const group = Math.floor(row / perGroup);
    byGroup.set(group, [...(byGroup.get(group) ?? []), row]);
  }
  for (const [group, members] of byGroup) {
    loadBasis(work.block, bases[group]!);
    for (let at = 0; at < members.length; at += ROWS) {
      load(work, bases[group]!, members.slice(at, at + ROWS));
      clips.forEach((clip, c) => {
        setScales(work, [clip]);
        roundRows(work.block, work.grid);
        sums[c]! += work.block.energies.reduce((a, b) => a + b, 0);
      });
    }
  }
  return clips
    .map((clip, c) => ({ clip, sum: sums[c]! }))
    .sort((a, b) => a.sum - b.sum)
    .slice(0, KEPT_CLIPS)
    .map(({ clip }) => clip);
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
