/** Cholesky factorization of symmetric positive definite matrices, and the solves that follow from it. */
import { FlowCompressError } from '../errors.js';
import { kernelArrays } from './kernels.js';

/** An [n, n] matrix on which kernels work in place; valid until the next computation of a kernel. */
export interface CholeskyWork {
  readonly matrix: Float64Array;
  /**
   * Turns the lower triangle into L with A = L L^T; the rest stays as it was.
   * @throws FlowCompressError `internal` when the matrix is not positive definite.
   */
  factor(): void;
}

export function choleskyWork(n: number): CholeskyWork {
  const { kernels, float64 } = kernelArrays(n * n * 8);
  const matrix = float64(n * n);
  return {
    matrix,
    factor() {
      if (kernels.choleskyFactor(n, matrix.byteOffset) >= 0)
        throw new FlowCompressError('internal', `Matrix of size ${String(n)} is not positive definite.`);
    },
  };
}

/**
 * Lower triangular L with A = L L^T.
 * @param a row-major [n, n], only its lower triangle is read
 * @throws FlowCompressError `internal` when A is not positive definite.
 */
export function cholesky(a: ArrayLike<number>, n: number): Float64Array {
  const { matrix, factor } = choleskyWork(n);
  matrix.set(a);
  factor();
  const l = new Float64Array(n * n);
  for (let i = 0; i < n; i++) l.set(matrix.subarray(i * n, i * n + i + 1), i * n);
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
