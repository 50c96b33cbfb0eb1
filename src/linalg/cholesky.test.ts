import { describe, expect, it } from 'vitest';
import { normals } from '../testing/tiny-models.js';
import { cholesky, solveCholesky } from './cholesky.js';

function randomSpd(n: number, seed: number): Float64Array {
  const b = normals(n * (n + 3), seed);
  const a = new Float64Array(n * n);
  for (let i = 0; i < n; i++)
    for (let j = 0; j < n; j++)
      for (let k = 0; k < n + 3; k++) a[i * n + j]! += b[i * (n + 3) + k]! * b[j * (n + 3) + k]!;
  return a;
}

describe('cholesky', () => {
  it.each([1, 2, 5, 17])('factors a matrix of size %i', (n) => {
    const a = randomSpd(n, n);
    const l = cholesky(a, n);
    for (let i = 0; i < n; i++) {
      for (let j = 0; j < n; j++) {
        let sum = 0;
        for (let k = 0; k < n; k++) sum += l[i * n + k]! * l[j * n + k]!;
        expect(sum).toBeCloseTo(a[i * n + j]!, 8);
        if (j > i) expect(l[i * n + j]).toBe(0);
      }
    }
  });

  it('solves a linear system', () => {
    const n = 7;
    const a = randomSpd(n, 3);
    const x = Float64Array.from({ length: n }, (_, i) => i - 2);
    const b = new Float64Array(n);
    for (let i = 0; i < n; i++) for (let j = 0; j < n; j++) b[i]! += a[i * n + j]! * x[j]!;
    solveCholesky(cholesky(a, n), n, b);
    b.forEach((v, i) => {
      expect(v).toBeCloseTo(x[i]!, 8);
    });
  });

  it('refuses a matrix that is not positive definite', () => {
    expect(() => cholesky([1, 2, 2, 1], 2)).toThrow(/positive definite/);
  });
});
