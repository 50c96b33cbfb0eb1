/** A streaming histogram whose range grows with the data: constant memory, no second pass. */

export const BINS = 2048;

/** Counts of values in `BINS` equal bins between `low` and `high`. */
export interface Histogram {
  counts: Float64Array;
  low: number;
  high: number;
  /** Finite values counted. */
  total: number;
}

export function emptyHistogram(): Histogram {
  return { counts: new Float64Array(BINS), low: 0, high: 0, total: 0 };
}

/** Width of one bin. */
export function binWidth(histogram: Histogram): number {
  return (histogram.high - histogram.low) / BINS;
}

/**
 * Counts `values`, all of which lie in [min, max]. The first call fixes a range (which includes 0) with room to grow;
 * later ones double it, merging bins in pairs, as often as they need.
 */
export function addToHistogram(histogram: Histogram, values: Float32Array, min: number, max: number): void {
  if (histogram.total === 0 && histogram.high === histogram.low) {
    const low = Math.min(0, min);
    const high = Math.max(0, max);
    const span = high > low ? high - low : 1;
    histogram.low = low < 0 ? low - 0.05 * span : 0;
    histogram.high = high > 0 ? high + 0.05 * span : low < 0 ? 0 : 1;
  }
  while (max >= histogram.high) growUp(histogram);
  while (min < histogram.low) growDown(histogram);
  const { counts, low } = histogram;
  const perUnit = BINS / (histogram.high - low);
  for (let i = 0; i < values.length; i++) {
    const bin = ((values[i]! - low) * perUnit) | 0;
    counts[bin < BINS ? bin : BINS - 1]!++;
  }
  histogram.total += values.length;
}

function growUp(histogram: Histogram): void {
  const { counts } = histogram;
  for (let i = 0; i < BINS / 2; i++) counts[i] = counts[2 * i]! + counts[2 * i + 1]!;
  counts.fill(0, BINS / 2);
  histogram.high += histogram.high - histogram.low;
}

function growDown(histogram: Histogram): void {
  const { counts } = histogram;
  for (let i = BINS / 2 - 1; i >= 0; i--) counts[BINS / 2 + i] = counts[2 * i]! + counts[2 * i + 1]!;
  counts.fill(0, 0, BINS / 2);
  histogram.low -= histogram.high - histogram.low;
}

/** Smallest value below which a share `q` of the counts lies (upper edge of the bin). */
export function quantile(histogram: Histogram, q: number): number {
  const target = q * histogram.total;
  let seen = 0;
  for (let i = 0; i < BINS; i++) {
    seen += histogram.counts[i]!;
    if (seen >= target) return histogram.low + (i + 1) * binWidth(histogram);
  }
  return histogram.high;
}
