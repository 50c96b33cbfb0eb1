/**
 * Codebooks: 2^b levels for all weights of a layer, each weight the nearest of them times the scale of its output channel.
 *
 * Levels and scales are those of weighted k-means: they minimise sum_i h_i (w_i - s_c q_i)^2, h the diagonal of E[x x^T], by turns in
 * the levels (Lloyd's rule), and in the scales. Levels are then rounded to integers, which the int8 kernels take as they are.
 */
import { codebookGrid, placeIn, type Grid } from './grid.js';

/** Widths that a codebook may have. Four levels of its own fit a layer better than even ones by its error alone, but the network worse. */
export const CODEBOOK_WIDTHS: readonly number[] = [3, 4, 5];
/**
 * The largest level: seven bits with the sign. Kernels of 8 bits that add products in 16 saturate on larger ones, and levels
 * that are a hundredth apart are near enough to where they should be.
 */
export const LARGEST_LEVEL = 63;

/** Weights that levels are fitted to, if a layer has more. */
const SAMPLED = 32768;
/** Turns of levels and scales, and of Lloyd's rule within each. */
const TURNS = 4;
const LLOYD_STEPS = 60;

export interface Codebook {
  readonly grid: Grid;
  /** One per output channel, 0 for channels of zeros. */
  readonly scales: Float32Array;
}

export interface CodebookRequest {
  /** All weights, those of a channel together, as many for each. */
  readonly weights: Float32Array;
  readonly channels: number;
  readonly bits: number;
  /** What an error in weight i counts, at least 0; all alike when absent. */
  readonly importance?: ((i: number) => number) | undefined;
}

/** Deterministic: nothing is drawn. */
export function fitCodebook({ weights, channels, bits, importance }: CodebookRequest): Codebook {
  const { w, h, channel } = sampleOf(weights, channels, importance);
  const x = new Float64Array(w.length);
  let levels: Float64Array = new Float64Array(0);
  let scales = rootMeanSquares(w, h, channel, channels);
  for (let turn = 0; turn < TURNS; turn++) {
    const mass = h.map((weight, i) => weight * scales[channel[i]!]! ** 2);
    for (let i = 0; i < w.length; i++) x[i] = scales[channel[i]!]! > 0 ? w[i]! / scales[channel[i]!]! : 0;
    levels = kMeans(x, mass, 2 ** bits, levels.length > 0 ? levels : undefined);
    scales = refitScales(w, h, channel, scales, levels);
  }
  const peak = levels.reduce((most, level) => Math.max(most, Math.abs(level)), 0);
  const whole = wholeLevels(levels, peak);
  const unit = peak > 0 ? peak / LARGEST_LEVEL : 1;
  const fitted = refitScales(
    w,
    h,
    channel,
    scales.map((s) => s * unit),
    Float64Array.from(whole),
  );
  return { grid: codebookGrid(bits, whole), scales: Float32Array.from(fitted) };
}

interface Sample {
  readonly w: Float64Array;
  readonly h: Float64Array;
  readonly channel: Uint32Array;
}

/** Weights spread evenly over every channel. */
function sampleOf(weights: Float32Array, channels: number, importance: CodebookRequest['importance']): Sample {
  const own = weights.length / channels;
  const taken = Math.max(1, Math.min(own, Math.floor(SAMPLED / channels)));
  const count = taken * channels;
  const sample = { w: new Float64Array(count), h: new Float64Array(count), channel: new Uint32Array(count) };
  for (let c = 0; c < channels; c++) {
    for (let k = 0; k < taken; k++) {
      const i = c * own + Math.floor(((k + 0.5) * own) / taken);
      const at = c * taken + k;
      sample.w[at] = weights[i]!;
      sample.h[at] = importance ? importance(i) : 1;
      sample.channel[at] = c;
    }
  }
  return sample;
}

function rootMeanSquares(w: Float64Array, h: Float64Array, channel: Uint32Array, channels: number): Float64Array {
  const [sums, masses] = [new Float64Array(channels), new Float64Array(channels)];
  w.forEach((value, i) => {
    sums[channel[i]!]! += h[i]! * value * value;
    masses[channel[i]!]! += h[i]!;
  });
  return sums.map((sum, c) => (masses[c]! > 0 ? Math.sqrt(sum / masses[c]!) : 0));
}

/** sum h w q / sum h q^2 per channel; a scale that this does not make positive stays. */
function refitScales(
  w: Float64Array,
  h: Float64Array,
  channel: Uint32Array,
  scales: Float64Array,
  levels: Float64Array,
): Float64Array {
  const [cross, energy] = [new Float64Array(scales.length), new Float64Array(scales.length)];
  w.forEach((value, i) => {
    const c = channel[i]!;
    if (!(scales[c]! > 0)) return;
    const q = levels[placeIn(levels, value / scales[c]!)]!;
    cross[c]! += h[i]! * value * q;
    energy[c]! += h[i]! * q * q;
  });
  return scales.map((s, c) => (cross[c]! > 0 && energy[c]! > 0 ? cross[c]! / energy[c]! : s));
}

/**
 * Lloyd's rule on numbers: every level becomes the mean of the numbers nearest to it.
 * @param start levels to begin with, ascending; spread over the numbers when absent
 * @returns ascending
 */
export function kMeans(x: Float64Array, mass: Float64Array, count: number, start?: Float64Array): Float64Array {
  const order = Uint32Array.from(x, (_, i) => i).sort((a, b) => x[a]! - x[b]! || a - b);
  const sorted = Float64Array.from(order, (i) => x[i]!);
  // Sums up to each place, so that the mean of a stretch is a difference.
  const masses = new Float64Array(x.length + 1);
  const sums = new Float64Array(x.length + 1);
  order.forEach((i, at) => {
    masses[at + 1] = masses[at]! + mass[i]!;
    sums[at + 1] = sums[at]! + mass[i]! * x[i]!;
  });
  let levels = start ?? spreadLevels(sorted, masses, count);
  for (let step = 0; step < LLOYD_STEPS; step++) {
    let before = 0;
    const next = levels.map((level, k) => {
      const after = k + 1 < count ? firstAbove(sorted, (level + levels[k + 1]!) / 2) : x.length;
      const own = masses[after]! - masses[before]!;
      const mean = own > 0 ? (sums[after]! - sums[before]!) / own : level;
      before = after;
      return mean;
    });
    const moved = next.some((level, k) => level !== levels[k]);
    levels = next.sort();
    if (!moved) break;
  }
  return levels;
}

/** Stretches of equal length in which the density is counted. */
const BINS = 256;

/** As dense as the cube root of the density of the numbers: that of the best levels, where these are many (Panter and Dite 1951). */
function spreadLevels(sorted: Float64Array, masses: Float64Array, count: number): Float64Array {
  const [least, width] = [sorted[0]!, (sorted.at(-1)! - sorted[0]!) / BINS];
  const shares = new Float64Array(BINS + 1);
  let before = 0;
  for (let b = 0; b < BINS; b++) {
    const after = b + 1 < BINS ? firstAbove(sorted, least + (b + 1) * width) : sorted.length;
    shares[b + 1] = shares[b]! + Math.cbrt(masses[after]! - masses[before]!);
    before = after;
  }
  return Float64Array.from({ length: count }, (_, k) => {
    const wanted = ((k + 0.5) / count) * shares[BINS]!;
    const b = Math.max(0, firstAbove(shares, wanted) - 1);
    return least + width * (b + 0.5);
  });
}

/** Place of the first of ascending numbers that is above a bound. */
function firstAbove(sorted: Float64Array, bound: number): number {
  let [from, to] = [0, sorted.length];
  while (from < to) {
    const middle = (from + to) >> 1;
    if (sorted[middle]! > bound) to = middle;
    else from = middle + 1;
  }
  return from;
}

/** The levels as integers of which the largest is `LARGEST_LEVEL`, each once. */
function wholeLevels(levels: Float64Array, peak: number): Int8Array {
  const rounded = [...levels].map((level) => (peak > 0 ? Math.round((level / peak) * LARGEST_LEVEL) + 0 : 0));
  return Int8Array.from(new Set(rounded)).sort();
}
