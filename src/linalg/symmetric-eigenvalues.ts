/** Eigenvalues of symmetric matrices: Householder reflections to a tridiagonal matrix, then bisection by Sturm counts. */

/**
 * All eigenvalues, largest first, each within some 1e-15 of the largest magnitude. A matrix of 512 takes a few tenths of a second.
 * @param matrix row-major [n, n], symmetric
 */
export function symmetricEigenvalues(matrix: ArrayLike<number>, n: number): Float64Array {
  if (n === 0) return new Float64Array(0);
  const { diagonal, squares } = tridiagonal(Float64Array.from(matrix), n);
  let [low, high] = [Infinity, -Infinity];
  for (let i = 0; i < n; i++) {
    const radius = Math.sqrt(squares[i]) + Math.sqrt(squares[i + 1]);
    low = Math.min(low, diagonal[i] - radius);
    high = Math.max(high, diagonal[i] + radius);
  }
  const resolution = Math.max(Math.abs(low), Math.abs(high)) * Number.EPSILON;
  const values = new Float64Array(n);
  // Where the eigenvalues larger than this one ended, none of the rest can lie above.
  let top = high;
  for (let k = 0; k < n; k++) {
    let [from, to] = [low, top];
    while (to - from > resolution) {
      const middle = from + (to - from) / 2;
      if (middle <= from || middle >= to) break;
      if (countBelow(diagonal, squares, middle) < n - k) from = middle;
      else to = middle;
    }
    values[k] = from + (to - from) / 2;
    top = to;
  }
  return values;
}

interface Tridiagonal {
  readonly diagonal: Float64Array;
  /** Squared off-diagonals: element i is left of diagonal i; 0 at both ends. */
  readonly squares: Float64Array;
}

/** Overwrites `a`. */
function tridiagonal(a: Float64Array, n: number): Tridiagonal {
  const squares = new Float64Array(n + 1);
  const v = new Float64Array(n);
  const w = new Float64Array(n);
  for (let k = 0; k + 1 < n; k++) {
    const first = k + 1;
    let length = 0;
    for (let i = first; i < n; i++) length += a[i * n + k] ** 2;
    squares[first] = length;
    const norm = Math.sqrt(length);
    if (first + 1 === n || norm === 0) continue;
    for (let i = first; i < n; i++) v[i] = a[i * n + k] / norm;
    // The sign that cancels nothing; |v|^2 = 2 |v_first| then.
    v[first] += v[first] < 0 ? -1 : 1;
    const half = Math.abs(v[first]);
    let along = 0;
    for (let i = first; i < n; i++) {
      let sum = 0;
      for (let j = first, at = i * n + first; j < n; j++, at++) sum += a[at] * v[j];
      w[i] = sum / half;
      along += w[i] * v[i];
    }
    for (let i = first; i < n; i++) w[i] -= (along / (2 * half)) * v[i];
    for (let i = first; i < n; i++) {
      const [vi, wi] = [v[i], w[i]];
      for (let j = first, at = i * n + first; j < n; j++, at++) a[at] -= vi * w[j] + wi * v[j];
    }
  }
  return { diagonal: Float64Array.from({ length: n }, (_, i) => a[i * n + i]), squares };
}

/** Eigenvalues below `x`: negative pivots of the factorization of T - x. */
function countBelow(diagonal: Float64Array, squares: Float64Array, x: number): number {
  let count = 0;
  let pivot = 1;
  for (let i = 0; i < diagonal.length; i++) {
    pivot = diagonal[i] - x - squares[i] / pivot;
    if (pivot === 0) pivot = Number.MIN_VALUE;
    if (pivot < 0) count++;
  }
  return count;
}
