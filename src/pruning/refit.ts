/**
 * What a layer loses when channels of its input go, given back as far as the channels that stay can tell: least squares from
 * the second moments of the input, in closed form.
 */
import { solveCholesky } from '../linalg/cholesky.js';
import { heldCholesky } from '../linalg/held-cholesky.js';

/** Moments of the rows x that a layer multiplies its weights with. */
export interface InputMoments {
  /** Row-major [cols, cols]: mean of x x^T. */
  readonly data: ArrayLike<number>;
  /** [cols]: mean of x. */
  readonly mean: ArrayLike<number>;
  readonly cols: number;
}

export interface Refit {
  /** Row-major [rows, kept]. */
  readonly weights: Float64Array;
  /** [rows]: to be added to the bias. */
  readonly shift: Float64Array;
}

/** Share of the mean variance of a column by which the weights are held where they were. */
const DAMPING = 1e-3;

/**
 * The W' and b' that minimize E|W x - W' x_K - b'|^2 + d |W' - W_K|^2, with K the columns that stay: with the covariance C of x,
 * W' = (W C[:, K] + d W_K) (C[K, K] + d I)^-1 and b' = W mean - W' mean_K.
 * @param weights row-major [rows, cols]
 * @param kept columns that stay, ascending
 */
export function refit(
  weights: ArrayLike<number>,
  { data, mean, cols }: InputMoments,
  kept: ArrayLike<number>,
  damping = DAMPING,
): Refit {
  const rows = weights.length / cols;
  const k = kept.length;
  const covariance = (i: number, j: number): number => data[i * cols + j]! - mean[i]! * mean[j]!;
  let trace = 0;
  for (let i = 0; i < cols; i++) trace += covariance(i, i);
  // A layer whose input never changes is left as it is.
  const hold = trace > 0 ? (damping * trace) / cols : 1;
  const system = new Float64Array(k * k);
  for (let a = 0; a < k; a++) for (let b = 0; b <= a; b++) system[a * k + b] = covariance(kept[a]!, kept[b]!);
  const { factor } = heldCholesky(system, k, hold);
  const result = new Float64Array(rows * k);
  const shift = new Float64Array(rows);
  const places = new Int32Array(cols).fill(-1);
  for (let a = 0; a < k; a++) places[kept[a]!] = a;
  const lost = Array.from({ length: cols }, (_, i) => i).filter((i) => places[i]! < 0);
  for (let row = 0; row < rows; row++) {
    const own = Float64Array.from({ length: cols }, (_, i) => weights[row * cols + i]!);
    // W' = W_K + change: the change answers for the columns that are lost alone.
    const answer = new Float64Array(k);
    for (let a = 0; a < k; a++) for (const i of lost) answer[a]! += own[i]! * covariance(i, kept[a]!);
    solveCholesky(factor, k, answer);
    let sum = 0;
    for (const i of lost) sum += own[i]! * mean[i]!;
    for (let a = 0; a < k; a++) {
      result[row * k + a] = own[kept[a]!]! + answer[a]!;
      sum -= answer[a]! * mean[kept[a]!]!;
    }
    shift[row] = sum;
  }
  return { weights: result, shift };
}
