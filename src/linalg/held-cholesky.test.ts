import fc from 'fast-check';
import { expect, it } from 'vitest';
import { cholesky } from './cholesky.js';
import { heldCholesky } from './held-cholesky.js';

/** Covariance of values near `mean`, from moments that were rounded to float32. */
function roundedCovariance(n: number, mean: number, deviations: readonly number[]): Float64Array {
  const a = new Float64Array(n * n);
  for (let i = 0; i < n; i++)
    for (let j = 0; j < n; j++) {
      const [x, y] = [deviations[i % deviations.length]!, deviations[j % deviations.length]!];
      a[i * n + j] = Math.fround(mean * mean + x * y * (1 + 1e-7 * (i + j))) - mean * mean;
    }
  return a;
}

it('factors what rounding left indefinite, with no more than that takes', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 2, max: 9 }),
      fc.double({ min: 10, max: 1e4, noNaN: true }),
      fc.array(fc.double({ min: -1e-2, max: 1e-2, noNaN: true }), { minLength: 1, maxLength: 9 }),
      (n, mean, deviations) => {
        const a = roundedCovariance(n, mean, deviations);
        const trace = a.reduce((sum, v, i) => sum + (i % (n + 1) === 0 ? Math.max(v, 0) : 0), 0);
        const least = (1e-3 * (trace || 1)) / n;
        const { factor, hold } = heldCholesky(a, n, least);
        for (let i = 0; i < n; i++)
          for (let j = 0; j <= i; j++) {
            let sum = 0;
            for (let k = 0; k <= j; k++) sum += factor[i * n + k]! * factor[j * n + k]!;
            expect(sum).toBeCloseTo(a[i * n + j]! + (i === j ? hold : 0), 9 - Math.ceil(Math.log10(1 + hold)));
          }
        if (hold > least) {
          const raised = a.map((v, i) => v + (i % (n + 1) === 0 ? hold / 10 : 0));
          expect(() => cholesky(raised, n)).toThrow('not positive definite');
        }
      },
    ),
  );
});

it('gives up on what is not finite', () => {
  expect(() => heldCholesky(new Float64Array([NaN, 0, 0, 1]), 2, 1e-3)).toThrow('not positive definite');
});
