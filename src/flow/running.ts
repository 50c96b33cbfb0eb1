/** Mean and variance of a stream of numbers (Welford), in float64. */

export interface Running {
  /** Adds a number; one that is not finite is only counted. */
  add(value: number): void;
  /** Finite numbers seen. */
  readonly count: number;
  /** Numbers left out because they were infinite or NaN. */
  readonly skipped: number;
  readonly mean: number;
  /** Population variance. */
  readonly variance: number;
}

export function running(): Running {
  let count = 0;
  let skipped = 0;
  let mean = 0;
  let m2 = 0;
  return {
    add(value) {
      if (!Number.isFinite(value)) {
        skipped++;
        return;
      }
      count++;
      const delta = value - mean;
      mean += delta / count;
      m2 += delta * (value - mean);
    },
    get count() {
      return count;
    },
    get skipped() {
      return skipped;
    },
    get mean() {
      return mean;
    },
    get variance() {
      return count > 0 ? m2 / count : 0;
    },
  };
}
