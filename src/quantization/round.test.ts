import { describe, expect, it } from 'vitest';
import { normals } from '../testing/tiny-models.js';
import { gridOf } from './grid.js';
import { descendRow, refitScale, roundHalfEven, roundingBasis, roundRow } from './round.js';

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

describe('compensated rounding', () => {
  it('beats round-to-nearest over many rows', () => {
    const grid = gridOf(3, 0.5);
    let compensated = 0;
    let nearest = 0;
    for (let seed = 1; seed <= 40; seed++) {
      const basis = roundingBasis(gramOf(seed), N);
      const w = normals(N, seed + 100, 0.4);
      const codes = new Int8Array(N);
      compensated += roundRow(basis, w, 0.25, grid, codes, new Float32Array(N));
      const plain = Int8Array.from(w, (v) => Math.min(grid.high, Math.max(grid.low, roundHalfEven(v / 0.25 - 0.5))));
      nearest += energyOf(basis, w, 0.25, 0.5, plain);
    }
    expect(compensated).toBeLessThan(0.97 * nearest);
  });

  it.each([1, 2, 3, 4])('reports its energy, descends, and stays above the brute-force optimum (seed %i)', (seed) => {
    const basis = roundingBasis(gramOf(seed), N);
    const w = normals(N, seed + 100, 0.4);
    const grid = gridOf(2, 0.5);
    const scale = 0.35;
    const scratch = new Float32Array(N);
    const codes = new Int8Array(N);
    const reported = roundRow(basis, w, scale, grid, codes, scratch);
    const compensated = energyOf(basis, w, scale, 0.5, codes);
    expect(reported).toBeCloseTo(compensated, 4);

    const before = compensated;
    const after = descendRow(basis, w, scale, grid, codes, scratch, 10);
    expect(after).toBeCloseTo(energyOf(basis, w, scale, 0.5, codes), 4);
    expect(after).toBeLessThanOrEqual(before + 1e-6);

    let best = Infinity;
    const trial = new Int8Array(N);
    for (let k = 0; k < 4 ** N; k++) {
      for (let i = 0; i < N; i++) trial[i] = grid.low + (Math.floor(k / 4 ** i) % 4);
      best = Math.min(best, energyOf(basis, w, scale, 0.5, trial));
    }
    expect(after).toBeGreaterThanOrEqual(best - 1e-6);
  });

  it('refits the scale to the least energy for given levels', () => {
    const basis = roundingBasis(gramOf(9), N);
    const w = normals(N, 5, 0.4);
    const codes = Int8Array.of(1, -2, 0, 1, -1, 0);
    const levels = Float32Array.from(codes, (c) => c + 0.5);
    const scale = refitScale(basis, w, levels);
    const at = (s: number): number => energyOf(basis, w, s, 0.5, codes);
    expect(at(scale)).toBeLessThanOrEqual(Math.min(at(scale * 1.01), at(scale * 0.99)));
  });

  it('scales with the weights: ten times the weights, the same codes', () => {
    const basis = roundingBasis(gramOf(2), N);
    const w = normals(N, 6, 0.4);
    const grid = gridOf(3, 0.5);
    const [a, b] = [new Int8Array(N), new Int8Array(N)];
    const small = roundRow(basis, w, 0.2, grid, a, new Float32Array(N));
    const large = roundRow(
      basis,
      w.map((v) => v * 10),
      2,
      grid,
      b,
      new Float32Array(N),
    );
    expect(b).toEqual(a);
    expect(large / small).toBeCloseTo(100, 2);
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
