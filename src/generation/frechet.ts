/** Frechet distance between two sets of feature vectors, each taken for a normal distribution (FID: Heusel et al. 2017). */
import { FlowCompressError } from '../errors.js';
import { symmetricEigenvalues } from '../linalg/symmetric-eigenvalues.js';

/** Mean [d] and covariance [d, d] of some vectors. */
export interface Gaussian {
  readonly mean: Float64Array;
  readonly covariance: Float64Array;
}

/**
 * Unbiased estimates.
 * @param values row-major [rows, width], two rows or more
 */
export function gaussianOf(values: ArrayLike<number>, width: number): Gaussian {
  const rows = values.length / width;
  if (!Number.isInteger(rows) || rows < 2)
    throw new FlowCompressError('internal', 'A covariance takes two vectors or more.');
  const mean = new Float64Array(width);
  for (let at = 0; at < values.length; at++) mean[at % width]! += values[at]! / rows;
  const covariance = new Float64Array(width * width);
  const centred = new Float64Array(width);
  for (let n = 0; n < rows; n++) {
    for (let i = 0; i < width; i++) centred[i] = values[n * width + i]! - mean[i]!;
    for (let i = 0; i < width; i++)
      for (let j = i; j < width; j++) covariance[i * width + j]! += (centred[i]! * centred[j]!) / (rows - 1);
  }
  for (let i = 0; i < width; i++) for (let j = 0; j < i; j++) covariance[i * width + j] = covariance[j * width + i]!;
  return { mean, covariance };
}

/**
 * |m_a - m_b|^2 + tr(A + B - 2 (A B)^(1/2)). The eigenvalues of A B are those of L^T B L with A = L L^T, which is symmetric.
 * @throws FlowCompressError `internal` for distributions of different widths
 */
export function frechetDistance(a: Gaussian, b: Gaussian): number {
  const n = a.mean.length;
  if (b.mean.length !== n) throw new FlowCompressError('internal', 'The distributions have different widths.');
  let distance = 0;
  for (let i = 0; i < n; i++)
    distance += (a.mean[i]! - b.mean[i]!) ** 2 + a.covariance[i * n + i]! + b.covariance[i * n + i]!;
  const l = factor(a.covariance, n);
  const eigenvalues = symmetricEigenvalues(sandwich(l, b.covariance, n), n);
  for (const value of eigenvalues) distance -= 2 * Math.sqrt(Math.max(0, value));
  return Math.max(0, distance);
}

/** L of A = L L^T, lower triangular, of a positive semidefinite matrix: where a pivot vanishes, so does its column. */
function factor(matrix: Float64Array, n: number): Float64Array {
  const l = new Float64Array(n * n);
  let largest = 0;
  for (let i = 0; i < n; i++) largest = Math.max(largest, matrix[i * n + i]!);
  const floor = n * Number.EPSILON * largest;
  for (let j = 0; j < n; j++) {
    const rest = (i: number): number => {
      let sum = matrix[i * n + j]!;
      for (let k = 0; k < j; k++) sum -= l[i * n + k]! * l[j * n + k]!;
      return sum;
    };
    const pivot = rest(j);
    if (pivot <= floor) continue;
    const root = Math.sqrt(pivot);
    l[j * n + j] = root;
    for (let i = j + 1; i < n; i++) l[i * n + j] = rest(i) / root;
  }
  return l;
}

/** L^T B L. */
function sandwich(l: Float64Array, b: Float64Array, n: number): Float64Array {
  const right = new Float64Array(n * n);
  for (let i = 0; i < n; i++)
    for (let k = 0; k < n; k++) {
      const factor = b[i * n + k]!;
      if (factor !== 0) for (let j = 0; j <= k; j++) right[i * n + j]! += factor * l[k * n + j]!;
    }
  const result = new Float64Array(n * n);
  for (let k = 0; k < n; k++)
    for (let i = 0; i <= k; i++) {
      const factor = l[k * n + i]!;
      if (factor !== 0) for (let j = 0; j < n; j++) result[i * n + j]! += factor * right[k * n + j]!;
    }
  return result;
}
