import { describe, expect, it } from 'vitest';
import { normals } from '../testing/tiny-models.js';
import { gridOf } from './grid.js';
import {
  prepareRefinement,
  refineRows,
  roundHalfEven,
  roundingBasis,
  roundRows,
  rowBlock,
  ROWS,
  type RowBlock,
} from './round.js';

const N = 6;

/** Mean of x x^T over correlated rows. */
function gramOf(seed: number): Float64Array {
  const rows = 40;
  const x = normals(rows * N, seed);
  const mixed = Float64Array.from(x, (v, i) => v + 0.8 * (x[i - (i % N)] ?? 0));
  const gram = new Float64Array(N * N);
  for (let r = 0; r < rows; r++)
    for (let i = 0; i < N; i++)
      for (let j = 0; j < N; j++) gram[i * N + j]! += (mixed[r * N + i]! * mixed[r * N + j]!) / rows;
  return gram;
}

/** (w - wq)^T H (w - wq) with the damped H, straight from its definition. */
function energyOf(
  basis: ReturnType<typeof roundingBasis>,
  w: Float32Array,
  scale: number,
  offset: number,
  codes: Int8Array,
): number {
  let total = 0;
  for (let i = 0; i < N; i++)
    for (let j = 0; j < N; j++)
      total += (w[i]! - scale * (codes[i]! + offset)) * basis.h[i * N + j]! * (w[j]! - scale * (codes[j]! + offset));
  return total;
}

/** A block with the given rows and one scale for all. */
function blockOf(rows: readonly Float32Array[], scale: number): RowBlock {
  const block = rowBlock(N);
  rows.forEach((row, r) => {
    block.w.set(row, r * N);
    block.scales[r] = scale;
  });
  return block;
}

const rowsOf = (seed: number, scale = 0.4): Float32Array[] =>
  Array.from({ length: ROWS }, (_, r) => normals(N, seed * 10 + r, scale));

describe('compensated rounding', () => {
  it('beats round-to-nearest over many rows', () => {
    const grid = gridOf(3, 0.5);
    let compensated = 0;
    let nearest = 0;
    for (let seed = 1; seed <= 10; seed++) {
      const basis = roundingBasis(gramOf(seed), N);
      const rows = rowsOf(seed);
      const block = blockOf(rows, 0.25);
      roundRows(basis, block, grid);
      compensated += block.energies.reduce((a, b) => a + b, 0);
      for (const w of rows) {
        const ordered = w;
        const plain = Int8Array.from(ordered, (v) =>
          Math.min(grid.high, Math.max(grid.low, roundHalfEven(v / 0.25 - 0.5))),
        );
        nearest += energyOf(basis, ordered, 0.25, 0.5, plain);
      }
    }
    expect(compensated).toBeLessThan(0.97 * nearest);
  });

  it.each([1, 2, 3, 4])('reports its energy, descends, and stays above the brute-force optimum (seed %i)', (seed) => {
    const basis = roundingBasis(gramOf(seed), N);
    const rows = rowsOf(seed);
    const grid = gridOf(2, 0.5);
    const block = blockOf(rows, 0.35);
    roundRows(basis, block, grid);
    const before = [...block.energies];
    rows.forEach((w, r) => {
      const codes = block.codes.subarray(r * N, (r + 1) * N);
      expect(block.energies[r]).toBeCloseTo(energyOf(basis, w, 0.35, 0.5, codes), 4);
    });

    prepareRefinement(basis, block);
    refineRows(basis, block, grid, 2);
    rows.forEach((w, r) => {
      const codes = block.codes.subarray(r * N, (r + 1) * N);
      const scale = block.scales[r]!;
      expect(block.energies[r]).toBeCloseTo(energyOf(basis, w, scale, 0.5, codes), 3);
      expect(block.energies[r]).toBeLessThanOrEqual(before[r]! + 1e-4);
      // The scale is the best one for the codes.
      expect(energyOf(basis, w, scale * 1.02, 0.5, codes)).toBeGreaterThanOrEqual(block.energies[r]! - 1e-4);
      expect(energyOf(basis, w, scale * 0.98, 0.5, codes)).toBeGreaterThanOrEqual(block.energies[r]! - 1e-4);
      let best = Infinity;
      const trial = new Int8Array(N);
      for (let k = 0; k < 4 ** N; k++) {
        for (let i = 0; i < N; i++) trial[i] = grid.low + (Math.floor(k / 4 ** i) % 4);
        best = Math.min(best, energyOf(basis, w, scale, 0.5, trial));
      }
      expect(block.energies[r]).toBeGreaterThanOrEqual(best - 1e-4);
    });
  });

  it('scales with the weights: ten times the weights, the same codes', () => {
    const basis = roundingBasis(gramOf(2), N);
    const grid = gridOf(3, 0.5);
    const small = blockOf(rowsOf(6), 0.2);
    const large = blockOf(
      rowsOf(6).map((row) => row.map((v) => v * 10)),
      2,
    );
    roundRows(basis, small, grid);
    roundRows(basis, large, grid);
    expect(large.codes).toEqual(small.codes);
    expect(large.energies[0]! / small.energies[0]!).toBeCloseTo(100, 1);
  });

  it('leaves rows without a scale at zero error growth', () => {
    const basis = roundingBasis(gramOf(3), N);
    const block = blockOf([new Float32Array(N)], 0);
    roundRows(basis, block, gridOf(4, 0));
    expect(block.energies[0]).toBe(0);
  });
});

describe('roundHalfEven', () => {
  it.each([
    [0.5, 0],
    [1.5, 2],
    [2.5, 2],
    [-0.5, 0],
    [-1.5, -2],
    [2.4999, 2],
    [-2.6, -3],
  ])('rounds %f to %f', (x, expected) => {
    expect(roundHalfEven(x) + 0).toBe(expected);
  });
});
