/** Choice of the uint8 range of an activation from its histogram. */
import type { Range } from '../flow/activation-probe.js';
import { BINS, binWidth, quantile, type Histogram } from '../flow/histogram.js';

/** Affine uint8 quantization: q = clamp(round(x / scale) + zeroPoint, 0, 255). */
export interface ActivationQuantizer {
  readonly scale: number;
  readonly zeroPoint: number;
}

/** Quantizer of a range, widened to hold 0 exactly (algorithms: s = (max - min) / 255, zero point = round(-min / s)). */
export function quantizerOf(range: Range): ActivationQuantizer {
  const min = Math.min(0, range.min);
  const max = Math.max(0, range.max);
  const scale = Math.fround((max - min) / 255);
  if (!(scale > 1e-30) || !Number.isFinite(scale)) return { scale: 1, zeroPoint: 0 };
  return { scale, zeroPoint: Math.min(255, Math.max(0, Math.round(-min / scale))) };
}

/**
 * The candidate with the least mean square error at 8 bits: min-max, the 99.9 and 99.99 percentiles and a grid of
 * narrower ranges.
 * @param maxClipped share of values that a candidate may clip (0.001 for layers that carry much of the flow)
 */
export function chooseRange(range: Range, histogram: Histogram | undefined, maxClipped = 1): ActivationQuantizer {
  const full = quantizerOf(range);
  if (!histogram || histogram.total === 0) return full;
  const candidates: Range[] = [range];
  for (const q of [0.999, 0.9999]) {
    candidates.push({
      min: Math.max(range.min, quantile(histogram, 1 - q) - binWidth(histogram)),
      max: Math.min(range.max, quantile(histogram, q)),
    });
  }
  for (const shrink of [0.9, 0.8, 0.7, 0.6, 0.5]) candidates.push({ min: range.min * shrink, max: range.max * shrink });
  let best = full;
  let bestError = Infinity;
  for (const candidate of candidates) {
    const quantizer = quantizerOf(candidate);
    const { error, clipped } = costOf(histogram, quantizer);
    if (error < bestError && (clipped <= maxClipped || candidate === range)) {
      best = quantizer;
      bestError = error;
    }
  }
  return best;
}

function costOf(histogram: Histogram, { scale, zeroPoint }: ActivationQuantizer): { error: number; clipped: number } {
  const width = binWidth(histogram);
  const low = -zeroPoint * scale;
  const high = (255 - zeroPoint) * scale;
  let error = 0;
  let clipped = 0;
  for (let i = 0; i < BINS; i++) {
    const count = histogram.counts[i]!;
    if (count === 0) continue;
    const x = histogram.low + (i + 0.5) * width;
    const overshoot = x < low ? low - x : x > high ? x - high : 0;
    if (overshoot > 0) clipped += count;
    // Uniform rounding noise inside the range, the distance to its edge outside.
    error += count * (overshoot > 0 ? overshoot * overshoot : (scale * scale) / 12);
  }
  return { error, clipped: clipped / histogram.total };
}

/** A quantizer for every value that has a range. */
export function chooseQuantizers(
  ranges: ReadonlyMap<string, Range>,
  histograms: ReadonlyMap<string, Histogram>,
  maxClipped: (name: string) => number = () => 1,
): Map<string, ActivationQuantizer> {
  return new Map(
    [...ranges].map(([name, range]) => [name, chooseRange(range, histograms.get(name), maxClipped(name))] as const),
  );
}

/**
 * Gives all members of each group one quantizer, the one that covers the ranges of all of them.
 * @param groups names of values that an engine only moves between, so that their quantizers must be equal
 */
export function tieQuantizers(
  quantizers: ReadonlyMap<string, ActivationQuantizer>,
  groups: readonly (readonly string[])[],
): Map<string, ActivationQuantizer> {
  const tied = new Map(quantizers);
  for (const group of groups) {
    const members = group.flatMap((name) => quantizers.get(name) ?? []);
    if (members.length === 0) continue;
    const min = Math.min(...members.map((q) => -q.zeroPoint * q.scale));
    const max = Math.max(...members.map((q) => (255 - q.zeroPoint) * q.scale));
    const [first] = members;
    const same = members.every((q) => q.scale === first!.scale && q.zeroPoint === first!.zeroPoint);
    for (const name of group) tied.set(name, same ? first! : quantizerOf({ min, max }));
  }
  return tied;
}
