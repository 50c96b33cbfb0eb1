/**
 * Rounding of rows of weights to integer codes so that the rounding errors cancel in the layer's output (GPTQ), refined
 * by scale refits and coordinate descent on the same objective.
 *
 * Objective per row: (w - wq)^T H (w - wq), H = E[x x^T] over calibration inputs, wq = scale * (code + offset).
 * With H = L L^T and e = w - wq the objective is ||L^T e||^2; going from the last column to the first, each code is
 * chosen so that its own component of L^T e is least given the errors already made. This is the GPTQ update without the
 * inverse of H. Rows are worked on four at a time: they share every load of the factor.
 */
import { cholesky } from '../linalg/cholesky.js';
import type { Grid } from './grid.js';

/** Rows that one call works on. */
export const ROWS = 4;

/** Factorized input statistics of one group of rows, reused for every width. */
export interface RoundingBasis {
  readonly n: number;
  /** Damped H in processing order, row-major [n, n]. */
  readonly h: Float32Array;
  /** L with H = L L^T, row-major. */
  readonly lower: Float32Array;
  /** L^T, row-major. */
  readonly upper: Float32Array;
  /** order[i] = column of the matrix at place i; places are processed from last to first. */
  readonly order: Int32Array;
}

/** Buffers of `ROWS` rows of n elements each, reused from call to call. */
export interface RowBlock {
  /** Weights in processing order. */
  readonly w: Float32Array;
  readonly scales: Float64Array;
  readonly codes: Int8Array;
  /** w - wq. */
  readonly errors: Float32Array;
  /** L^T (w - wq). */
  readonly residuals: Float32Array;
  /** H w, filled by `prepareRefinement`. */
  readonly hw: Float32Array;
  /** H (w - wq). */
  readonly gradients: Float32Array;
  /** Objective per row. */
  readonly energies: Float64Array;
}

export function rowBlock(n: number): RowBlock {
  const rows = (): Float32Array => new Float32Array(ROWS * n);
  return {
    w: rows(),
    scales: new Float64Array(ROWS),
    codes: new Int8Array(ROWS * n),
    errors: rows(),
    residuals: rows(),
    hw: rows(),
    gradients: rows(),
    energies: new Float64Array(ROWS),
  };
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
  const h = new Float64Array(n * n);
  for (let i = 0; i < n; i++) {
    const from = order[i]! * n;
    for (let j = 0; j < n; j++) h[i * n + j] = gram[from + order[j]!]!;
    h[i * n + i]! += add;
  }
  const l = cholesky(h, n);
  const upper = new Float32Array(n * n);
  for (let i = 0; i < n; i++) for (let j = 0; j <= i; j++) upper[j * n + i] = l[i * n + j]!;
  return { n, h: Float32Array.from(h), lower: Float32Array.from(l), upper, order };
}

/** Error-compensating rounding of the block's rows with its scales; sets codes, errors, residuals and energies. */
export function roundRows(basis: RoundingBasis, block: RowBlock, grid: Grid): void {
  const { n, upper } = basis;
  const { w, scales, codes, errors, residuals, energies } = block;
  const { low, high, offset } = grid;
  const [n1, n2, n3] = [n, 2 * n, 3 * n];
  energies.fill(0);
  for (let k = n - 1; k >= 0; k--) {
    const row = k * n;
    let a0 = 0;
    let a1 = 0;
    let a2 = 0;
    let a3 = 0;
    for (let j = k + 1; j < n; j++) {
      const u = upper[row + j]!;
      a0 += errors[j]! * u;
      a1 += errors[n1 + j]! * u;
      a2 += errors[n2 + j]! * u;
      a3 += errors[n3 + j]! * u;
    }
    const diagonal = upper[row + k]!;
    for (let r = 0; r < ROWS; r++) {
      const carried = r === 0 ? a0 : r === 1 ? a1 : r === 2 ? a2 : a3;
      const at = r * n + k;
      const scale = scales[r]!;
      const target = w[at]! + carried / diagonal;
      let code = scale > 0 ? roundHalfEven(target / scale - offset) : 0;
      if (code < low) code = low;
      else if (code > high) code = high;
      codes[at] = code;
      const error = w[at]! - scale * (code + offset);
      errors[at] = error;
      const residual = carried + error * diagonal;
      residuals[at] = residual;
      energies[r]! += residual * residual;
    }
  }
}

/** Fills `hw` = H w. Needed once per block of weights, whatever the widths tried. */
export function prepareRefinement(basis: RoundingBasis, block: RowBlock): void {
  multiply(basis.h, basis.n, block.w, block.hw, false);
}

/**
 * Alternates the best scale for the codes (w^T H q / q^T H q) with coordinate descent on the codes, from the result of
 * `roundRows`. The energy never grows by more than float rounding.
 */
export function refineRows(basis: RoundingBasis, block: RowBlock, grid: Grid, rounds: number): void {
  const { n, h } = basis;
  const { w, scales, codes, residuals, hw, gradients, energies } = block;
  multiply(basis.lower, n, residuals, gradients, true);
  for (let r = 0; r < ROWS; r++) {
    if (!(scales[r]! > 0)) continue;
    const from = r * n;
    const gradient = gradients.subarray(from, from + n);
    const own = codes.subarray(from, from + n);
    for (let round = 0; round < rounds; round++) {
      scales[r] = refitScale(own, grid, hw.subarray(from, from + n), gradient, scales[r]!);
      descend(h, n, own, gradient, grid, scales[r]!);
    }
    scales[r] = refitScale(own, grid, hw.subarray(from, from + n), gradient, scales[r]!);
    let energy = 0;
    for (let i = 0; i < n; i++) energy += (w[from + i]! - scales[r]! * (own[i]! + grid.offset)) * gradient[i]!;
    energies[r] = energy;
  }
}

/** The least-squares scale for fixed codes; moves the gradient H (w - s q) to it. */
function refitScale(codes: Int8Array, grid: Grid, hw: Float32Array, gradient: Float32Array, scale: number): number {
  let cross = 0;
  let energy = 0;
  for (let i = 0; i < codes.length; i++) {
    const q = codes[i]! + grid.offset;
    cross += q * hw[i]!;
    energy += (q * (hw[i]! - gradient[i]!)) / scale;
  }
  const refit = Math.fround(cross / energy);
  if (!(refit > 0) || !Number.isFinite(refit)) return scale;
  const ratio = refit / scale;
  for (let i = 0; i < codes.length; i++) gradient[i] = hw[i]! - (hw[i]! - gradient[i]!) * ratio;
  return refit;
}

/** Moves single codes to their best value with the others fixed, until no move helps or a few sweeps are done. */
function descend(
  h: Float32Array,
  n: number,
  codes: Int8Array,
  gradient: Float32Array,
  grid: Grid,
  scale: number,
): void {
  for (let sweep = 0; sweep < SWEEPS; sweep++) {
    let moved = 0;
    for (let i = 0; i < n; i++) {
      const row = i * n;
      const step = Math.round(gradient[i]! / (h[row + i]! * scale));
      if (step === 0) continue;
      const next = Math.min(grid.high, Math.max(grid.low, codes[i]! + step));
      const change = next - codes[i]!;
      if (change === 0) continue;
      codes[i] = next;
      const delta = change * scale;
      for (let j = 0; j < n; j++) gradient[j]! -= delta * h[row + j]!;
      moved++;
    }
    if (moved === 0) return;
  }
}

const SWEEPS = 4;

/** out = m x for the block's rows x; of a lower triangular m only the triangle is read. */
function multiply(m: Float32Array, n: number, x: Float32Array, out: Float32Array, triangular: boolean): void {
  const [n1, n2, n3] = [n, 2 * n, 3 * n];
  for (let i = 0; i < n; i++) {
    const row = i * n;
    const end = triangular ? i + 1 : n;
    let a0 = 0;
    let a1 = 0;
    let a2 = 0;
    let a3 = 0;
    for (let j = 0; j < end; j++) {
      const v = m[row + j]!;
      a0 += x[j]! * v;
      a1 += x[n1 + j]! * v;
      a2 += x[n2 + j]! * v;
      a3 += x[n3 + j]! * v;
    }
    out[i] = a0;
    out[n1 + i] = a1;
    out[n2 + i] = a2;
    out[n3 + i] = a3;
  }
}

/** Nearest integer, halves to the even neighbour: the rounding of ONNX QuantizeLinear. */
export function roundHalfEven(x: number): number {
  const r = Math.round(x);
  return r - x === 0.5 && r % 2 !== 0 ? r - 1 : r;
}
