import { describe, expect, it } from 'vitest';
import { normals } from '../testing/tiny-models.js';
import { quadraticForm } from './quadratic-form.js';

describe('quadraticForm', () => {
  it.each([1, 3, 4, 9])('sums x^T G x over %i rows', (count) => {
    const n = 6;
    const half = normals(n * n, 1);
    const g = Float64Array.from(half, (_, k) => half[k]! + half[(k % n) * n + Math.floor(k / n)]!);
    const rows = normals(count * n, 2);
    let expected = 0;
    for (let r = 0; r < count; r++)
      for (let i = 0; i < n; i++)
        for (let j = 0; j < n; j++) expected += rows[r * n + i]! * g[i * n + j]! * rows[r * n + j]!;
    expect(quadraticForm(g, n, rows)).toBeCloseTo(expected, 6);
  });
});
