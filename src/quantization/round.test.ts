import { describe, expect, it } from 'vitest';
import { normals } from '../testing/tiny-models.js';
import { codebookGrid, gridOf, nearestCode, roundHalfEven, type Grid } from './grid.js';
import {
  blockIndex,
  energyOfRows,
  loadBasis,
  openBlock,
  refineRows,
  roundingBasis,
  roundRows,
  ROWS,
  type RoundingBasis,
  type RowBlock,
} from './round.js';

const N = 6;

/** Mean of x x^T over correlated rows. */
function gramOf(seed: number, n = N): Float64Array {
  const rows = 40;
  const x = normals(rows * n, seed);
  const mixed = Float64Array.from(x, (v, i) => v + 0.8 * (x[i - (i % n)] ?? 0));
  const gram = new Float64Array(n * n);
  for (let r = 0; r < rows; r++)
    for (let i = 0; i < n; i++)
      for (let j = 0; j < n; j++) gram[i * n + j]! += (mixed[r * n + i]! * mixed[r * n + j]!) / rows;
  return gram;
}

/** Each code, from the last column to the first, at the best value given the errors already made: from the definition. */
function plainRounding({ n, upper }: RoundingBasis, w: Float32Array, scale: number, grid: Grid): number[] {
  const codes = new Array<number>(n);
  const errors = new Float64Array(n);
  for (let k = n - 1; k >= 0; k--) {
    let carried = 0;
    for (let j = k + 1; j < n; j++) carried += errors[j]! * upper[k * n + j]!;
    codes[k] = nearestCode((w[k]! + carried / upper[k * n + k]!) / scale, grid) + 0;
    errors[k] = w[k]! - scale * (codes[k] + grid.offset);
  }
  return codes;
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

/** A block with the given rows, as they are (in processing order), and one scale for all. */
function blockOf(basis: RoundingBasis, rows: readonly Float32Array[], scale: number): RowBlock {
  const block = openBlock(basis.n);
  loadBasis(block, basis);
  block.w.fill(0);
  block.scales.fill(0);
  rows.forEach((row, r) => {
    row.forEach((v, i) => (block.w[blockIndex(basis.n, r, i)] = v));
    block.scales[r] = scale;
  });
  return block;
}

function codesOf(block: RowBlock, row: number): Int8Array {
  return Int8Array.from({ length: block.n }, (_, i) => block.codes[blockIndex(block.n, row, i)]!);
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
      const block = blockOf(basis, rows, 0.25);
      roundRows(block, grid);
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
    const block = blockOf(basis, rows, 0.35);
    roundRows(block, grid);
    const before = [...block.energies];
    rows.forEach((w, r) => {
      const codes = codesOf(block, r);
      expect(block.energies[r]).toBeCloseTo(energyOf(basis, w, 0.35, 0.5, codes), 4);
    });

    refineRows(block, grid, 2);
    rows.forEach((w, r) => {
      const codes = codesOf(block, r);
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
    const rounded = (factor: number): { codes: Int8Array[]; energy: number } => {
      const block = blockOf(
        basis,
        rowsOf(6).map((row) => row.map((v) => v * factor)),
        0.2 * factor,
      );
      roundRows(block, grid);
      return { codes: Array.from({ length: ROWS }, (_, r) => codesOf(block, r)), energy: block.energies[0]! };
    };
    const [small, large] = [rounded(1), rounded(10)];
    expect(large.codes).toEqual(small.codes);
    expect(large.energy / small.energy).toBeCloseTo(100, 1);
  });

  it.each([1, 3, 8, 21])('gives the codes of the plain algorithm with %i columns', (n) => {
    const basis = roundingBasis(gramOf(n, n), n);
    const rows = Array.from({ length: ROWS - 3 }, (_, r) => normals(n, 100 + r, 0.4));
    const grid = gridOf(3, 0.5);
    const block = blockOf(basis, rows, 0.2);
    roundRows(block, grid);
    rows.forEach((w, r) => expect([...codesOf(block, r)]).toEqual(plainRounding(basis, w, 0.2, grid)));
    expect([...codesOf(block, ROWS - 1)].every((code) => code === 0)).toBe(true);
  });

  it.each([4, 13])('rounds to the levels of a codebook as the plain algorithm does (%i levels)', (count) => {
    const n = 8;
    const basis = roundingBasis(gramOf(n, n), n);
    const rows = Array.from({ length: ROWS }, (_, r) => normals(n, 300 + r, 0.4));
    // Far from even.
    const levels = Int8Array.from({ length: count }, (_, k) =>
      Math.round(63 * Math.sin((Math.PI * (k / (count - 1) - 0.5)) ** 3 / 3.9)),
    );
    const grid = codebookGrid(4, levels);
    const block = blockOf(basis, rows, 0.01);
    roundRows(block, grid);
    rows.forEach((w, r) => expect([...codesOf(block, r)]).toEqual(plainRounding(basis, w, 0.01, grid)));
  });

  it.each([1, 2, 3])(
    'refines codes within a codebook, each to the best level with the others fixed (seed %i)',
    (seed) => {
      const basis = roundingBasis(gramOf(seed), N);
      const rows = rowsOf(seed);
      const levels = Int8Array.of(-63, -20, 5, 40);
      const block = blockOf(basis, rows, 0.015);
      roundRows(block, codebookGrid(2, levels));
      const before = [...block.energies];
      refineRows(block, codebookGrid(2, levels), 2);
      let gained = 0;
      rows.forEach((w, r) => {
        const codes = codesOf(block, r);
        expect([...levels]).toEqual(expect.arrayContaining([...codes]));
        const scale = block.scales[r]!;
        const energy = energyOf(basis, w, scale, 0, codes);
        expect(block.energies[r]).toBeCloseTo(energy, 3);
        expect(energy).toBeLessThanOrEqual(before[r]! + 1e-4);
        gained += before[r]! - energy;
      });
      expect(gained).toBeGreaterThan(0.01 * before.reduce((a, b) => a + b, 0));
    },
  );

  it('sums the energies of rows under H', () => {
    const basis = roundingBasis(gramOf(4), N);
    const rows = rowsOf(4);
    const expected = rows.reduce((sum, w) => sum + energyOf(basis, w, 0, 0, new Int8Array(N)), 0);
    expect(energyOfRows(blockOf(basis, rows, 1))).toBeCloseTo(expected, 4);
  });

  it('leaves rows without a scale at zero error growth', () => {
    const basis = roundingBasis(gramOf(3), N);
    const block = blockOf(basis, [new Float32Array(N)], 0);
    roundRows(block, gridOf(4, 0));
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
