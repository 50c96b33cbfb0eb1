/**
 * Hints: values inside the student that are held against those of the teacher in the same place, beside its answers (FitNets,
 * Romero et al. 2015). A cut network has forgotten in its middle what its answers tell it only from afar.
 */
import type { HostTensor } from '../runtime/engine.js';

/** A value inside the student that learns to be one of the teacher's. */
export interface TaughtValue {
  /** Names in the two models. */
  readonly student: string;
  readonly teacher: string;
  /** What the student has of the teacher's value; all when absent. */
  readonly part?: { readonly axis: number; readonly channels: readonly number[] };
}

/** More teach little more, and every one of them is carried from model to model. */
const MOST_HINTS = 6;

/** Some of the values, as far apart as can be, the last among them. */
export function spreadOut(values: readonly TaughtValue[]): TaughtValue[] {
  const count = Math.min(MOST_HINTS, values.length);
  return Array.from({ length: count }, (_, i) => values[Math.ceil(((i + 1) * values.length) / count) - 1]!);
}

/**
 * For every taught value, what makes of its mean squared error a relative one, and of all of them together `weight` times
 * their mean.
 * @param values of the teacher
 */
export function hintFactors(values: readonly HostTensor[], weight: number): number[] {
  return values.map(({ data }) => {
    const square = (data as Float32Array).reduce((sum, v) => sum + v * v, 0) / Math.max(data.length, 1);
    return square > 0 ? weight / (square * values.length) : 0;
  });
}
