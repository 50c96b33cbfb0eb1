import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { normals } from '../testing/tiny-models.js';
import { frechetDistance, gaussianOf, type Gaussian } from './frechet.js';

const gaussian = (mean: readonly number[], covariance: readonly number[]): Gaussian => ({
  mean: Float64Array.from(mean),
  covariance: Float64Array.from(covariance),
});
const diagonal = (mean: readonly number[], deviations: readonly number[]): Gaussian =>
  gaussian(
    mean,
    deviations.flatMap((s, i) => deviations.map((_, j) => (i === j ? s * s : 0))),
  );
const number = fc.double({ min: -3, max: 3, noNaN: true });
const deviation = fc.oneof(fc.constant(0), fc.double({ min: 0.01, max: 3, noNaN: true }));

describe('frechetDistance', () => {
  it('of independent elements adds the squared differences of means and deviations, those of 0 too', () => {
    const element = fc.tuple(number, number, deviation, deviation);
    fc.assert(
      fc.property(fc.array(element, { minLength: 1, maxLength: 6 }), (elements) => {
        const side = (m: 0 | 1): Gaussian =>
          diagonal(
            elements.map((e) => e[m]),
            elements.map((e) => e[m + 2]!),
          );
        const expected = elements.reduce((sum, [a, b, s, t]) => sum + (a - b) ** 2 + (s - t) ** 2, 0);
        expect(frechetDistance(side(0), side(1))).toBeCloseTo(expected, 4);
      }),
    );
  });

  it('of two dimensions is the closed form tr (AB)^(1/2) = sqrt(tr AB + 2 sqrt det AB), whatever the axes', () => {
    const root = fc.tuple(number, number, number);
    fc.assert(
      fc.property(root, root, ([a, b, c], [d, e, f]) => {
        // L L^T of lower triangles.
        const spd = ([p, q, r]: readonly [number, number, number]): [number, number, number] => [
          p * p,
          p * q,
          q * q + r * r,
        ];
        const [A, B] = [spd([a, b, c]), spd([d, e, f])];
        const trace = A[0] * B[0] + 2 * A[1] * B[1] + A[2] * B[2];
        const determinant = (a * c * d * f) ** 2;
        const cross = Math.sqrt(Math.max(0, trace + 2 * Math.sqrt(determinant)));
        const expected = A[0] + A[2] + B[0] + B[2] - 2 * cross;
        const found = frechetDistance(
          gaussian([1, 2], [A[0], A[1], A[1], A[2]]),
          gaussian([1, 2], [B[0], B[1], B[1], B[2]]),
        );
        expect(found).toBeCloseTo(Math.max(0, expected), 4);
      }),
    );
  });

  it('is 0 for equal distributions, and the same both ways', () => {
    const [a, b] = [gaussianOf(normals(40 * 6, 1), 6), gaussianOf(normals(40 * 6, 2), 6)];
    expect(frechetDistance(a, a)).toBeLessThan(1e-9);
    expect(frechetDistance(a, b)).toBeGreaterThan(0.01);
    expect(frechetDistance(a, b)).toBeCloseTo(frechetDistance(b, a), 9);
  });

  it('takes fewer vectors than elements, and elements that never vary', () => {
    const few = Float32Array.from(normals(3 * 8, 4), (v, i) => (i % 8 === 2 ? 0 : v));
    const moved = few.map((v) => v + 1);
    expect(frechetDistance(gaussianOf(few, 8), gaussianOf(moved, 8))).toBeCloseTo(8, 4);
  });
});

describe('gaussianOf', () => {
  it('is the mean and the unbiased covariance', () => {
    const { mean, covariance } = gaussianOf([1, 2, 3, 6, 5, 1], 2);
    expect([...mean]).toEqual([3, 3]);
    expect([...covariance]).toEqual([4, -1, -1, 7]);
  });

  it('refuses single vectors', () => {
    expect(() => gaussianOf([1, 2], 2)).toThrow(/two vectors/);
  });
});
