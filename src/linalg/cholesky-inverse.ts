/** The inverse of a symmetric positive definite matrix. */
import { cholesky } from './cholesky.js';

/**
 * @param a row-major [n, n], only its lower triangle is read
 * @returns row-major [n, n]
 * @throws FlowCompressError `internal` when A is not positive definite
 */
export function choleskyInverse(a: Float64Array, n: number): Float64Array {
  return inverseOfFactor(cholesky(a, n), n);
}

/** Inverse of L L^T, row-major [n, n]. @param l lower triangular */
export function inverseOfFactor(l: Float64Array, n: number): Float64Array {
  // L^-1, column by column; then (L^-1)^T L^-1.
  const inverse = new Float64Array(n * n);
  for (let j = 0; j < n; j++) {
    inverse[j * n + j] = 1 / l[j * n + j]!;
    for (let i = j + 1; i < n; i++) {
      let sum = 0;
      for (let k = j; k < i; k++) sum -= l[i * n + k]! * inverse[k * n + j]!;
      inverse[i * n + j] = sum / l[i * n + i]!;
    }
  }
  const result = new Float64Array(n * n);
  for (let k = 0; k < n; k++) {
    for (let i = 0; i <= k; i++) {
      const v = inverse[k * n + i]!;
      if (v === 0) continue;
      for (let j = 0; j <= i; j++) result[i * n + j]! += v * inverse[k * n + j]!;
    }
  }
  for (let i = 0; i < n; i++) for (let j = i + 1; j < n; j++) result[i * n + j] = result[j * n + i]!;
  return result;
}
