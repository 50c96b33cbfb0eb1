/**
 * Rounding of one layer's weights to integer codes: to nearest, or so that the rounding errors of a row cancel in the
 * layer's output (GPTQ), refined by coordinate descent on the same objective.
 *
 * Objective per row: (w - wq)^T H (w - wq), H = E[x x^T] over calibration inputs, wq = scale * (offset + code).
 */
import { cholesky } from '../linalg/cholesky.js';
import type { Grid } from './grid.js';

/** Codes and scales of a [rows, cols] matrix: w ~ scale[row] * (code + grid.offset). */
export interface RoundedMatrix {
  readonly codes: Int8Array;
  readonly scales: Float32Array;
}

/** Factorized input statistics of one group of rows, reused for every width. */
export interface RoundingBasis {
  readonly n: number;
  /** Damped H in processing order, row-major [n, n]. */
  readonly h: Float32Array;
  /** Cholesky factor of H in processing order. */
  readonly l: Float32Array;
  /** order[i] = column of the matrix at place i; places are processed from last to first. */
  readonly order: Int32Array;
}

/**
 * @param gram [n, n] mean of x x^T
 * @param damping added to the diagonal, as a share of its mean (0.01 in the GPTQ paper)
 */
export function roundingBasis(gram: Float64Array, n: number, damping = 0.01): RoundingBasis {
  let trace = 0;
  for (let i = 0; i < n; i++) trace += gram[i * n + i]!;
  const add = Math.max((damping * trace) / n, 1e-12);
  // Columns with the most energy are rounded first (they are last in `order`), while the most freedom is left.
  const order = Int32Array.from({ length: n }, (_, i) => i).sort(
    (a, b) => gram[a * n + a]! - gram[b * n + b]! || a - b,
  );
  const h64 = new Float64Array(n * n);
  for (let i = 0; i < n; i++) {
    const from = order[i]! * n;
    for (let j = 0; j < n; j++) h64[i * n + j] = gram[from + order[j]!]!;
    h64[i * n + i]! += add;
  }
  return { n, h: Float32Array.from(h64), l: Float32Array.from(cholesky(h64, n)), order };
}

/** Error-compensating rounding of one row (already in processing order) with a given scale; returns w^T-error energy. */
export function roundRow(
  basis: RoundingBasis,
  w: Float32Array,
  scale: number,
  grid: Grid,
  codes: Int8Array,
  scratch: Float32Array,
): number {
  const { n, l } = basis;
  const { low, high, offset } = grid;
  scratch.fill(0);
  let energy = 0;
  const inverse = scale > 0 ? 1 / scale : 0;
  for (let k = n - 1; k >= 0; k--) {
    const row = k * n;
    const diagonal = l[row + k]!;
    const target = w[k]! + scratch[k]! / diagonal;
    let code = roundHalfEven(target * inverse - offset);
    if (code < low) code = low;
    else if (code > high) code = high;
    codes[k] = code;
    const error = w[k]! - scale * (code + offset);
    const residual = scratch[k]! + error * diagonal;
    energy += residual * residual;
    if (error !== 0) for (let j = 0; j < k; j++) scratch[j]! += error * l[row + j]!;
  }
  return energy;
}

/** Scale that minimises (w - s q)^T H (w - s q) for fixed levels q: w^T H q / q^T H q. */
export function refitScale(basis: RoundingBasis, w: Float32Array, levels: Float32Array): number {
  const { n, h } = basis;
  let cross = 0;
  let energy = 0;
  for (let i = 0; i < n; i++) {
    const q = levels[i]!;
    if (q === 0) continue;
    const row = i * n;
    let hw = 0;
    let hq = 0;
    for (let j = 0; j < n; j++) {
      hw += h[row + j]! * w[j]!;
      hq += h[row + j]! * levels[j]!;
    }
    cross += q * hw;
    energy += q * hq;
  }
  return energy > 0 ? cross / energy : 0;
}

/**
 * Coordinate descent from given codes: each pass moves every code to its best value with the others fixed. The energy
 * never grows. `gradient` is scratch of n elements. Returns the energy reached.
 */
export function descendRow(
  basis: RoundingBasis,
  w: Float32Array,
  scale: number,
  grid: Grid,
  codes: Int8Array,
  gradient: Float32Array,
  passes: number,
): number {
  const { n, h } = basis;
  const { low, high, offset } = grid;
  // gradient = H (w - s q)
  gradient.fill(0);
  for (let i = 0; i < n; i++) {
    const error = w[i]! - scale * (codes[i]! + offset);
    const row = i * n;
    for (let j = 0; j < n; j++) gradient[j]! += error * h[row + j]!;
  }
  if (scale > 0) {
    for (let pass = 0; pass < passes; pass++) {
      let moved = 0;
      for (let i = 0; i < n; i++) {
        const row = i * n;
        const step = roundHalfEven(gradient[i]! / (h[row + i]! * scale));
        if (step === 0) continue;
        const next = Math.min(high, Math.max(low, codes[i]! + step));
        const change = next - codes[i]!;
        if (change === 0) continue;
        codes[i] = next;
        const delta = change * scale;
        for (let j = 0; j < n; j++) gradient[j]! -= delta * h[row + j]!;
        moved++;
      }
      if (moved === 0) break;
    }
  }
  let energy = 0;
  for (let i = 0; i < n; i++) energy += (w[i]! - scale * (codes[i]! + offset)) * gradient[i]!;
  return energy;
}

/** Nearest integer, halves to the even neighbour: the rounding of ONNX QuantizeLinear. */
export function roundHalfEven(x: number): number {
  const r = Math.round(x);
  return r - x === 0.5 && r % 2 !== 0 ? r - 1 : r;
}
