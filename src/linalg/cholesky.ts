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
    const row = i * n;
    for (let j = 0; j <= i; j += 4) {
      // Four columns at a time share the loads of row i; the triangle among themselves follows.
      const width = Math.min(4, i - j + 1);
      const r0 = j * n;
      const r1 = width > 1 ? r0 + n : r0;
      const r2 = width > 2 ? r1 + n : r0;
      const r3 = width > 3 ? r2 + n : r0;
      let s0 = 0;
      let s1 = 0;
      let s2 = 0;
      let s3 = 0;
      for (let k = 0; k < j; k++) {
        const x = l[row + k]!;
        s0 += x * l[r0 + k]!;
        s1 += x * l[r1 + k]!;
        s2 += x * l[r2 + k]!;
        s3 += x * l[r3 + k]!;
      }
      const sums = [s0, s1, s2, s3];
      for (let c = 0; c < width; c++) {
        const column = j + c;
        let rest = a[row + column]! - sums[c]!;
        for (let k = j; k < column; k++) rest -= l[row + k]! * l[column * n + k]!;
        if (column < i) {
          l[row + column] = rest / l[column * n + column]!;
        } else {
          if (!(rest > 0)) {
            throw new FlowCompressError('internal', `Matrix of size ${String(n)} is not positive definite.`);
          }
          l[row + column] = Math.sqrt(rest);
        }
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
