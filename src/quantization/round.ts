/**
 * Rounding of rows of weights to integer codes so that the rounding errors cancel in the layer's output (GPTQ), refined
 * by scale refits and coordinate descent on the same objective. The loops are kernels (kernels/round.ts, refine.ts).
 *
 * Objective per row: (w - wq)^T H (w - wq), H = E[x x^T] over calibration inputs, wq = scale * (code + offset).
 * With H = L L^T and e = w - wq the objective is ||L^T e||^2; going from the last column to the first, each code is
 * chosen so that its own component of L^T e is least given the errors already made. This is the GPTQ update without the
 * inverse of H. Rows are worked on sixteen at a time: they share every load of the factor.
 */
import { choleskyWork } from '../linalg/cholesky.js';
import { kernelArrays, type KernelArrays } from '../linalg/kernels.js';
import type { Grid } from './grid.js';

/** Rows that one call works on. */
export const ROWS = 16;
/** Levels of a codebook of 8 bits. */
const MOST_LEVELS = 256;
/** Rows of a vector. */
const LANES = 4;

/** Factorized input statistics of one group of rows, reused for every width. */
export interface RoundingBasis {
  readonly n: number;
  /** Damped H in processing order, row-major [n, n]. */
  readonly h: Float32Array;
  /** L^T with H = L L^T, row-major; below the diagonal zero. */
  readonly upper: Float32Array;
  /** order[i] = column of the matrix at place i; places are processed from last to first. */
  readonly order: Int32Array;
}

/**
 * A basis and `ROWS` rows in the memory of the kernels. Arrays of n elements per row hold element i of row r at
 * `blockIndex(n, r, i)`. Valid until the next computation of a kernel that is not on this block.
 */
export interface RowBlock {
  readonly n: number;
  readonly kernels: KernelArrays['kernels'];
  /** [n, n] each, of the loaded basis. */
  readonly h: Float32Array;
  readonly upper: Float32Array;
  /** Weights in processing order. */
  readonly w: Float32Array;
  /** One per row; rows with scale 0 get codes 0. */
  readonly scales: Float32Array;
  /** Integers. */
  readonly codes: Float32Array;
  /** w - wq. */
  readonly errors: Float32Array;
  readonly hw: Float32Array;
  readonly gradient: Float32Array;
  /** Objective per row. */
  readonly energies: Float32Array;
  /** Of a codebook, and behind them the midpoints of neighbours. */
  readonly levels: Float32Array;
}

export function openBlock(n: number): RowBlock {
  const { kernels, float32 } = kernelArrays((2 * n * n + 5 * ROWS * n + 2 * ROWS + 2 * MOST_LEVELS) * 4 + 1024);
  const rows = (): Float32Array => float32(ROWS * n);
  return {
    ...{ n, kernels, h: float32(n * n), upper: float32(n * n) },
    ...{ w: rows(), codes: rows(), errors: rows(), hw: rows(), gradient: rows() },
    ...{ scales: float32(ROWS), energies: float32(ROWS), levels: float32(2 * MOST_LEVELS) },
  };
}

export function blockIndex(n: number, row: number, i: number): number {
  return (Math.floor(row / LANES) * n + i) * LANES + (row % LANES);
}

export function loadBasis(block: RowBlock, basis: RoundingBasis): void {
  block.h.set(basis.h);
  block.upper.set(basis.upper);
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
  const { matrix, factor } = choleskyWork(n);
  for (let i = 0; i < n; i++) {
    const from = order[i]! * n;
    for (let j = 0; j < n; j++) matrix[i * n + j] = gram[from + order[j]!]!;
    matrix[i * n + i]! += add;
  }
  const h = new Float32Array(matrix);
  factor();
  const upper = new Float32Array(n * n);
  for (let i = 0; i < n; i++) for (let j = 0; j <= i; j++) upper[j * n + i] = matrix[i * n + j]!;
  return { n, h, upper, order };
}

/** Error-compensating rounding of the block's rows with its scales; sets codes, errors and energies. */
export function roundRows({ n, kernels, ...block }: RowBlock, grid: Grid): void {
  const { upper, w, scales, codes, errors, energies } = block;
  const { low, high, offset } = grid;
  kernels.roundBlock(
    ...([n, upper.byteOffset, w.byteOffset, scales.byteOffset, codes.byteOffset, errors.byteOffset] as const),
    ...([energies.byteOffset, low, high, offset, ...loadLevels(block, grid)] as const),
  );
}

/**
 * Alternates the best scale for the codes (w^T H q / q^T H q) with coordinate descent on the codes, from the result of
 * `roundRows`. The energy never grows by more than float rounding.
 */
export function refineRows({ n, kernels, ...block }: RowBlock, grid: Grid, rounds: number): void {
  const { low, high, offset } = grid;
  const { h, w, scales, codes, errors, hw, gradient, energies } = block;
  kernels.symmetricProduct(n, h.byteOffset, w.byteOffset, hw.byteOffset);
  kernels.symmetricProduct(n, h.byteOffset, errors.byteOffset, gradient.byteOffset);
  kernels.refineBlock(
    ...([n, h.byteOffset, w.byteOffset, scales.byteOffset, codes.byteOffset, hw.byteOffset] as const),
    ...([gradient.byteOffset, energies.byteOffset, low, high, offset, ...loadLevels(block, grid), rounds] as const),
  );
}

/** Puts a codebook where the kernels read it. @returns its address and the number of levels, 0 without one */
function loadLevels({ levels: held }: Pick<RowBlock, 'levels'>, { levels }: Grid): [number, number] {
  if (!levels) return [0, 0];
  levels.forEach((level, k) => {
    held[k] = level;
    if (k > 0) held[levels.length + k - 1] = (levels[k - 1]! + level) / 2;
  });
  return [held.byteOffset, levels.length];
}

/** w^T H w summed over the block's rows. */
export function energyOfRows({ n, kernels, h, w, hw }: RowBlock): number {
  kernels.symmetricProduct(n, h.byteOffset, w.byteOffset, hw.byteOffset);
  let total = 0;
  for (let k = 0; k < w.length; k++) total += w[k]! * hw[k]!;
  return total;
}
