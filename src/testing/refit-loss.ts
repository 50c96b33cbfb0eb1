/** What a re-fitted layer gives differently, straight from the moments of its input. */
import type { InputMoments, Refit } from '../pruning/refit.js';

/**
 * Mean square of what the output moves by, relative to its variance.
 * @param weights row-major [rows, cols] of the layer as it was
 * @returns with the weights and the bias that are left as they were, and with the re-fitted ones
 */
export function refitLoss(
  weights: ArrayLike<number>,
  { data, mean, cols }: InputMoments,
  kept: readonly number[],
  found: Refit,
): { before: number; after: number } {
  const sums = { before: 0, after: 0, whole: 0 };
  const variance = (d: ArrayLike<number>): number => {
    let sum = 0;
    for (let i = 0; i < cols; i++)
      for (let j = 0; j < cols; j++) sum += d[i]! * d[j]! * (data[i * cols + j]! - mean[i]! * mean[j]!);
    return sum;
  };
  for (let row = 0; row * cols < weights.length; row++) {
    const own = Float64Array.from({ length: cols }, (_, i) => weights[row * cols + i]!);
    const lost = own.map((w, i) => (kept.includes(i) ? 0 : w));
    // The bias stays, so the mean of what is lost counts.
    const mute = lost.reduce((sum, w, i) => sum + w * mean[i]!, 0);
    const moved = own.slice();
    kept.forEach((i, a) => (moved[i]! -= found.weights[row * kept.length + a]!));
    sums.whole += variance(own);
    sums.before += variance(lost) + mute * mute;
    sums.after += variance(moved);
  }
  const relative = (value: number): number => (sums.whole > 0 ? value / sums.whole : 0);
  return { before: relative(sums.before), after: relative(sums.after) };
}
