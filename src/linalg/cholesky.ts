/** Cholesky factorization of symmetric positive definite matrices, and the solves that follow from it. */
import { FlowCompressError } from '../errors.js';

/**
 * Lower triangular L with A = L L^T.
 * @param a row-major [n, n], only its lower triangle is read
 * @throws FlowCompressError `internal` when A is not positive definite.
 */
export function cholesky(a: ArrayLike<number>, n: number): Float64Array {
  const l = new Float64Array(n * n);
  for (let i = 0; i < n; i++) {
    const rowI = i * n;
    for (let j = 0; j <= i; j++) {
      const rowJ = j * n;
      // Four running sums hide the latency of the additions.
      let s0 = 0;
      let s1 = 0;
      let s2 = 0;
      let s3 = 0;
      let k = 0;
      for (; k + 3 < j; k += 4) {
        s0 += l[rowI + k]! * l[rowJ + k]!;
        s1 += l[rowI + k + 1]! * l[rowJ + k + 1]!;
        s2 += l[rowI + k + 2]! * l[rowJ + k + 2]!;
        s3 += l[rowI + k + 3]! * l[rowJ + k + 3]!;
      }
      for (; k < j; k++) s0 += l[rowI + k]! * l[rowJ + k]!;
      const rest = a[rowI + j]! - (s0 + s1 + s2 + s3);
      if (i !== j) {
        l[rowI + j] = rest / l[rowJ + j]!;
      } else {
        if (!(rest > 0))
          throw new FlowCompressError('internal', `Matrix of size ${String(n)} is not positive definite.`);
        l[rowI + i] = Math.sqrt(rest);
      }
    }
  }
  return l;
}

/** Solves L L^T x = b in place of `b`. */
export function solveCholesky(l: Float64Array, n: number, b: Float64Array): void {
  for (let i = 0; i < n; i++) {
    let s = b[i]!;
    for (let k = 0; k < i; k++) s -= l[i * n + k]! * b[k]!;
    b[i] = s / l[i * n + i]!;
  }
  for (let i = n - 1; i >= 0; i--) {
    b[i]! /= l[i * n + i]!;
    const x = b[i]!;
    for (let k = 0; k < i; k++) b[k]! -= l[i * n + k]! * x;
  }
}
