/** Rounds a whole layer: scale search per output channel, error-compensating rounding, refinement. */
import type { Gram } from '../flow/gram-probe.js';
import type { WeightLayer } from '../onnx/layers.js';
import { fitCodebook } from './codebook.js';
import type { StorageFormat } from './format.js';
import { gridOf, nearestCode, type Grid } from './grid.js';
import {
  blockIndex,
  energyOfRows,
  loadBasis,
  openBlock,
  refineRows,
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
/** The same for a codebook, as shares of the scale that it was fitted with. */
const CODEBOOK_CLIPS = [1.06, 1, 0.94];

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
 */
export function roundLayer(
  layer: WeightLayer,
  weights: Float32Array,
  bases: readonly RoundingBasis[],
  format: StorageFormat,
  effort: RoundingEffort,
): RoundedLayer {
  const { rows, cols } = layer;
  const { grid, units, clips: all } = scalingOf(layer, weights, bases, format, effort);
  const work: LayerWork = { layer, weights, bases, block: openBlock(cols), members: [], grid, units };
  const codes = new Int8Array(rows * cols).fill(codeOfZeros(grid));
  const scales = new Float32Array(rows);
  const clips = all.length > KEPT_CLIPS ? bestClips(work, all) : all;
  const { block } = work;
  let error = 0;
  forEachBlock(work, (members, { order }) => {
    roundWithBestClip({ ...work, members }, clips);
    if (effort.refinements > 0) refineRows(block, grid, effort.refinements);
    members.forEach((row, r) => {
      scales[row] = block.scales[r]!;
      error += block.energies[r]!;
      if (scales[row] === 0) return;
      for (let i = 0; i < cols; i++) codes[row * cols + order[i]!] = block.codes[blockIndex(cols, r, i)]!;
    });
  });
  return { grid, codes, scales, error };
}

/** What a layer is rounded to, and the scales that are tried. */
interface Scaling {
  readonly grid: Grid;
  /** Per row. */
  readonly units: Float32Array;
  /** Scales as shares of the units. */
  readonly clips: readonly number[];
}

function scalingOf(
  layer: WeightLayer,
  weights: Float32Array,
  bases: readonly RoundingBasis[],
  { kind, bits }: StorageFormat,
  { search }: RoundingEffort,
): Scaling {
  const { rows, cols } = layer;
  if (kind === 'codebook') {
    const perGroup = rows / layer.groups;
    const energies = bases.map(inputEnergies);
    const importance = (i: number): number => energies[Math.floor(i / cols / perGroup)]![i % cols]!;
    const { grid, scales } = fitCodebook({ weights, channels: rows, bits, importance });
    return { grid, units: scales, clips: search === 'full' ? CODEBOOK_CLIPS : [1] };
  }
  // Levels symmetric around zero gain up to a tenth of the error at 1 to 3 bits; above, an exact zero is worth more.
  const grid = gridOf(bits, bits <= 3 ? 0.5 : 0);
  const units = new Float32Array(rows);
  for (let row = 0; row < rows; row++)
    units[row] = peakOf(weights, row * cols, (row + 1) * cols) / (grid.high + grid.offset);
  return { grid, units, clips: search === 'full' ? (CLIPS[bits] ?? WIDE_CLIPS) : [typicalClip(bits, cols)] };
}

/** Mean square of each input: the diagonal of H, in the order of the columns. */
function inputEnergies({ n, h, order }: RoundingBasis): Float64Array {
  const energies = new Float64Array(n);
  order.forEach((column, at) => (energies[column] = h[at * n + at]!));
  return energies;
}

function peakOf(weights: Float32Array, from: number, to: number): number {
  let peak = 0;
  for (let i = from; i < to; i++) peak = Math.max(peak, Math.abs(weights[i]!));
  return peak;
}

/** Energy of a layer's output for a matrix in the place of its weights: sum over rows of m H m^T. */
export function outputEnergy(layer: WeightLayer, matrix: Float32Array, bases: readonly RoundingBasis[]): number {
  const block = openBlock(layer.cols);
  let total = 0;
  forEachBlock({ layer, weights: matrix, bases, block }, () => {
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
}

interface LayerWork extends LayerRows, Pick<Scaling, 'grid' | 'units'> {
  /** Rows in the block. */
  readonly members: readonly number[];
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
function load({ layer, weights, block }: LayerRows, { order }: RoundingBasis, rows: readonly number[]): void {
  const { cols } = layer;
  block.w.fill(0);
  rows.forEach((row, r) => {
    for (let i = 0; i < cols; i++) block.w[blockIndex(cols, r, i)] = weights[row * cols + order[i]!]!;
  });
}

/** @param clips one, or one per row */
function setScales({ block, members, units }: LayerWork, clips: ArrayLike<number>): void {
  block.scales.fill(0);
  members.forEach((row, r) => (block.scales[r] = units[row]! * clips[clips.length > 1 ? r : 0]!));
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
      const loaded = members.slice(at, at + ROWS);
      load(work, bases[group]!, loaded);
      clips.forEach((clip, c) => {
        setScales({ ...work, members: loaded }, [clip]);
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
  const grid = gridOf(bits, bits <= 3 ? 0.5 : 0);
  const clips = searchClip ? (CLIPS[bits] ?? WIDE_CLIPS) : WIDE_CLIPS;
  return roundChannels(layer, weights, grid, (_, peak) =>
    clips.map((clip) => (peak * clip) / (grid.high + grid.offset)),
  );
}

/** The same with a codebook that is fitted to the weights. */
export function roundLayerToCodebook(layer: WeightLayer, weights: Float32Array, bits: number): RoundedLayer {
  const { grid, scales } = fitCodebook({ weights, channels: layer.channels, bits });
  return roundChannels(layer, weights, grid, (channel) => [scales[channel]!]);
}

/** @param scalesOf the scales to try for a channel with weights up to `peak`, which is above 0 */
function roundChannels(
  { channels }: WeightLayer,
  weights: Float32Array,
  grid: Grid,
  scalesOf: (channel: number, peak: number) => readonly number[],
): RoundedLayer {
  const perChannel = weights.length / channels;
  const codes = new Int8Array(weights.length).fill(codeOfZeros(grid));
  const scales = new Float32Array(channels);
  let error = 0;
  for (let channel = 0; channel < channels; channel++) {
    const from = channel * perChannel;
    const to = from + perChannel;
    const peak = peakOf(weights, from, to);
    let best = peak > 0 ? Infinity : 0;
    let scale = 0;
    for (const wanted of peak > 0 ? scalesOf(channel, peak) : []) {
      const candidate = Math.fround(wanted);
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

/** What stands where the scale is 0: any code does. */
function codeOfZeros(grid: Grid): number {
  return grid.levels ? grid.levels[0]! : 0;
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
