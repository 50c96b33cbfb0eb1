/** Cholesky factors of covariances from sums in float32. */
import { cholesky } from './cholesky.js';

/** Times that what is added grows tenfold, to as much as the largest variance. */
const RAISES = 8;

export interface HeldFactor {
  /** As of `cholesky`. */
  readonly factor: Float64Array;
  /** What was added. */
  readonly hold: number;
}

/**
 * Factor of A + hold I. The engine's float32 sums are off by more than a small variance beside a large mean (a channel that is
 * saturated nearly everywhere), which can leave the difference indefinite: what is added then grows until it covers that.
 * @param a row-major [n, n], only its lower triangle is read
 * @param hold above 0
 * @throws FlowCompressError `internal` when A is not finite
 */
export function heldCholesky(a: Float64Array, n: number, hold: number): HeldFactor {
  for (let added = hold, tries = 0; ; added *= 10, tries++) {
    const raised = a.slice();
    for (let i = 0; i < n; i++) raised[i * n + i]! += added;
    try {
      return { factor: cholesky(raised, n), hold: added };
    } catch (error) {
      if (tries === RAISES) throw error;
    }
  }
}
