/** Cholesky factorization of symmetric positive definite matrices, and the solves that follow from it. */
import { FlowCompressError } from '../errors.js';

/**
 * Lower triangular L with A = L L^T.
 * @param a row-major [n, n], only its lower triangle is read
 * @throws FlowCompressError `internal` when A is not positive definite.
 */
export function cholesky(a: ArrayLike<number>, n: number): Float64Array {
  const l = new Float64Array(n * n);
  for (let i = 0; i < n; i += 2) {
    const pair = i + 1 < n;
    const row0 = i * n;
    const row1 = pair ? row0 + n : row0;
    const sums = new Float64Array(8);
    for (let j = 0; j <= i + (pair ? 1 : 0); j += 4) {
      // Two rows by four columns share their loads; the triangle among the four columns follows.
      const width = Math.min(4, i + (pair ? 2 : 1) - j);
      const c0 = j * n;
      const c1 = width > 1 ? c0 + n : c0;
      const c2 = width > 2 ? c1 + n : c0;
      const c3 = width > 3 ? c2 + n : c0;
      let s0 = 0;
      let s1 = 0;
      let s2 = 0;
      let s3 = 0;
      let t0 = 0;
      let t1 = 0;
      let t2 = 0;
      let t3 = 0;
      for (let k = 0; k < j; k++) {
        const x = l[row0 + k]!;
        const y = l[row1 + k]!;
        const v0 = l[c0 + k]!;
        const v1 = l[c1 + k]!;
        const v2 = l[c2 + k]!;
        const v3 = l[c3 + k]!;
        s0 += x * v0;
        s1 += x * v1;
        s2 += x * v2;
        s3 += x * v3;
        t0 += y * v0;
        t1 += y * v1;
        t2 += y * v2;
        t3 += y * v3;
      }
      sums.set([s0, s1, s2, s3, t0, t1, t2, t3]);
      finishTile(a, l, n, i, j, width, sums.subarray(0, 4));
      if (pair) finishTile(a, l, n, i + 1, j, width, sums.subarray(4, 8));
    }
  }
  return l;
}

/** Entries (i, j .. j + width) once the products of all earlier columns are summed. */
function finishTile(
  a: ArrayLike<number>,
  l: Float64Array,
  n: number,
  i: number,
  j: number,
  width: number,
  sums: Float64Array,
): void {
  const row = i * n;
  for (let c = 0; c < width && j + c <= i; c++) {
    const column = j + c;
    let rest = a[row + column]! - sums[c]!;
    for (let k = j; k < column; k++) rest -= l[row + k]! * l[column * n + k]!;
    if (column < i) {
      l[row + column] = rest / l[column * n + column]!;
    } else {
      if (!(rest > 0)) throw new FlowCompressError('internal', `Matrix of size ${String(n)} is not positive definite.`);
      l[row + i] = Math.sqrt(rest);
    }
  }
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
