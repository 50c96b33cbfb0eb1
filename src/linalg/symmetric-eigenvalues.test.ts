import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { normals } from '../testing/tiny-models.js';
import { symmetricEigenvalues } from './symmetric-eigenvalues.js';

/** Q diag(values) Q^T, Q a product of reflections. */
function withSpectrum(values: readonly number[], seed: number): Float64Array {
  const n = values.length;
  let a: Float64Array = Float64Array.from({ length: n * n }, (_, i) => (i % (n + 1) === 0 ? values[i / (n + 1)] : 0));
  for (let round = 0; round < 3; round++) {
    const u = normals(n, seed + round);
    const square = u.reduce((sum, x) => sum + x * x, 0);
    const reflect = (m: Float64Array, byRows: boolean): Float64Array =>
      m.map((x, at) => {
        const [i, j] = [Math.floor(at / n), at % n];
        let sum = 0;
        for (let k = 0; k < n; k++) sum += byRows ? u[k] * m[k * n + j] : u[k] * m[i * n + k];
        return x - (2 * u[byRows ? i : j] * sum) / square;
      });
    a = reflect(reflect(a, true), false);
  }
  return a;
}

describe('symmetricEigenvalues', () => {
  it('finds the spectrum that a matrix was made from, repeated and zero values too', () => {
    const value = fc.oneof(fc.integer({ min: -3, max: 3 }), fc.double({ min: -10, max: 10, noNaN: true }));
    fc.assert(
      fc.property(fc.array(value, { minLength: 1, maxLength: 9 }), fc.integer({ min: 0, max: 999 }), (values, seed) => {
        const found = symmetricEigenvalues(withSpectrum(values, seed), values.length);
        const wanted = [...values].sort((a, b) => b - a);
        wanted.forEach((v, i) => {
          expect(found[i]).toBeCloseTo(v, 9);
        });
      }),
    );
  });

  it('takes diagonal matrices and those of one number as they are', () => {
    expect([...symmetricEigenvalues([7], 1)]).toEqual([expect.closeTo(7, 12)]);
    const found = symmetricEigenvalues([1, 0, 0, 0, -2, 0, 0, 0, 1e-9], 3);
    [1, 1e-9, -2].forEach((v, i) => {
      expect(found[i]).toBeCloseTo(v, 14);
    });
    expect([...symmetricEigenvalues(new Float64Array(16), 4)].every((v) => v === 0)).toBe(true);
  });

  it('takes a matrix that is tridiagonal already: 2 - 2 cos(k pi / (n + 1)) of second differences', () => {
    for (const [n, sign] of [
      [3, 1],
      [8, -1],
    ] as const) {
      const a = Array.from({ length: n * n }, (_, at) => {
        const apart = Math.abs(Math.floor(at / n) - (at % n));
        return apart === 0 ? 2 : apart === 1 ? sign : 0;
      });
      symmetricEigenvalues(a, n).forEach((v, k) => {
        expect(v).toBeCloseTo(2 - 2 * Math.cos(((n - k) * Math.PI) / (n + 1)), 12);
      });
    }
  });

  it('keeps trace and sum of squares of a large matrix of small and large values', () => {
    const n = 200;
    const x = normals(n * 20, 5);
    const gram = new Float64Array(n * n);
    for (let i = 0; i < n; i++)
      for (let j = 0; j < n; j++)
        for (let k = 0; k < 20; k++) gram[i * n + j] += x[i * 20 + k] * x[j * 20 + k] * 10 ** (k % 4);
    const values = symmetricEigenvalues(gram, n);
    const trace = gram.reduce((sum, v, at) => sum + (at % (n + 1) === 0 ? v : 0), 0);
    expect(values.reduce((a, b) => a + b, 0) / trace).toBeCloseTo(1, 10);
    const square = gram.reduce((sum, v) => sum + v * v, 0);
    expect(values.reduce((sum, v) => sum + v * v, 0) / square).toBeCloseTo(1, 10);
    // Rank 20: the rest is rounding.
    expect(values[19]).toBeGreaterThan(1e-4 * values[0]);
    expect(Math.abs(values[20])).toBeLessThan(1e-12 * values[0]);
  });
});
