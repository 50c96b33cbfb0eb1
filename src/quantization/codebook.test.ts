import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { normals } from '../testing/tiny-models.js';
import { CODEBOOK_WIDTHS, fitCodebook, kMeans, LARGEST_LEVEL } from './codebook.js';
import { gridOf, nearestCode, type Grid } from './grid.js';

/** sum h (w - s q)^2 with q the nearest level by trying all of them. */
function errorOf(
  weights: Float32Array,
  channels: number,
  levels: ArrayLike<number>,
  scales: ArrayLike<number>,
  importance: (i: number) => number = () => 1,
): number {
  const own = weights.length / channels;
  return weights.reduce((sum, w, i) => {
    const distances = Array.from(levels, (level) => (w - scales[Math.floor(i / own)]! * level) ** 2);
    return sum + importance(i) * Math.min(...distances);
  }, 0);
}

describe('kMeans', () => {
  it('finds the best two levels of a few numbers, as trying every split does, where it begins with them', () => {
    const numbers = fc.array(fc.double({ min: -5, max: 5, noNaN: true }), { minLength: 2, maxLength: 9 });
    fc.assert(
      fc.property(
        numbers,
        fc.array(fc.double({ min: 0.1, max: 3, noNaN: true }), { minLength: 9, maxLength: 9 }),
        (xs, h) => {
          const x = Float64Array.from(xs).sort();
          const mass = Float64Array.from(h).slice(0, x.length);
          const meanOf = (from: number, to: number): number => {
            let [sum, total] = [0, 0];
            for (let i = from; i < to; i++) [sum, total] = [sum + mass[i]! * x[i]!, total + mass[i]!];
            return sum / total;
          };
          const cost = (levels: ArrayLike<number>): number =>
            x.reduce((sum, v, i) => sum + mass[i]! * Math.min(...Array.from(levels, (l) => (v - l) ** 2)), 0);
          let best = Float64Array.of(x[0]!, x[0]!);
          for (let split = 1; split < x.length; split++) {
            const levels = Float64Array.of(meanOf(0, split), meanOf(split, x.length));
            if (cost(levels) < cost(best)) best = levels;
          }
          expect(cost(kMeans(x, mass, 2, best))).toBeLessThanOrEqual(cost(best) * (1 + 1e-9) + 1e-12);
          // From quantiles it ends where each level is the mean of what is nearest to it.
          const found = kMeans(x, mass, 2);
          const middle = (found[0]! + found[1]!) / 2;
          const split = x.filter((v) => v <= middle).length;
          if (split > 0 && split < x.length) {
            expect(found[0]).toBeCloseTo(meanOf(0, split), 9);
            expect(found[1]).toBeCloseTo(meanOf(split, x.length), 9);
          }
        },
      ),
    );
  });

  it('comes to the optimal quantizer of a normal distribution', () => {
    const x = Float64Array.from(normals(60000, 3));
    const levels = kMeans(x, new Float64Array(x.length).fill(1), 4);
    // Max 1960: the quantizer of least error with four levels.
    [-1.51, -0.4528, 0.4528, 1.51].forEach((level, k) => expect(Math.abs(levels[k]! - level)).toBeLessThan(0.02));
  });
});

describe('fitCodebook', () => {
  it.each(CODEBOOK_WIDTHS)(
    'gives ascending integers of seven bits, and less error than any clipped grid of %i bits',
    (bits) => {
      const channels = 6;
      const sizes = [1, 3, 0.2, 10, 1, 2];
      const weights = normals(channels * 400, 11).map((w, i) => w * sizes[Math.floor(i / 400)]!);
      const { grid, scales } = fitCodebook({ weights, channels, bits });
      const levels = [...grid.levels!];
      expect(levels).toHaveLength(2 ** bits);
      expect(levels).toEqual([...new Set(levels)].sort((a, b) => a - b));
      expect(Math.max(...levels.map(Math.abs))).toBe(LARGEST_LEVEL);
      const uniform = gridOf(bits, 0.5);
      const even = Array.from({ length: 2 ** bits }, (_, k) => uniform.low + k + 0.5);
      for (const clip of [1.5, 2, 2.5, 3, 3.5]) {
        const steps = sizes.map((size) => (size * clip) / 2 ** (bits - 1));
        expect(errorOf(weights, channels, levels, scales)).toBeLessThan(errorOf(weights, channels, even, steps));
      }
    },
  );

  it('puts levels where errors count', () => {
    const weights = Float32Array.from({ length: 200 }, (_, i) =>
      i % 2 === 0 ? 1 + (i / 200) * 0.2 : -1 - (i / 200) * 3,
    );
    const heavy = (i: number): number => (i % 2 === 0 ? 1000 : 0.001);
    const plain = fitCodebook({ weights, channels: 1, bits: 2 });
    const aimed = fitCodebook({ weights, channels: 1, bits: 2, importance: heavy });
    const error = ({ grid, scales }: typeof plain): number => errorOf(weights, 1, grid.levels!, scales, heavy);
    expect(error(aimed)).toBeLessThan(0.5 * error(plain));
  });

  it('gives every channel the scale that is best where errors count', () => {
    const weights = normals(3 * 600, 21).map((w, i) => w * (i % 2 === 0 ? 1 : 1.6) * (1 + Math.floor(i / 600)));
    const importance = (i: number): number => (i % 2 === 0 ? 1 : 0.02);
    const { grid, scales } = fitCodebook({ weights, channels: 3, bits: 2, importance });
    const error = errorOf(weights, 3, grid.levels!, scales, importance);
    for (const factor of [0.96, 1.04])
      for (let c = 0; c < 3; c++)
        expect(errorOf(weights, 3, grid.levels!, scales.with(c, scales[c]! * factor), importance)).toBeGreaterThan(
          error,
        );
  });

  it('takes zeros, channels of zeros and fewer weights than levels', () => {
    const dead = fitCodebook({ weights: Float32Array.of(0, 0, 0, 1, -2, 0.5), channels: 2, bits: 3 });
    expect(dead.scales[0]).toBe(0);
    expect(errorOf(Float32Array.of(1, -2, 0.5), 1, dead.grid.levels!, [dead.scales[1]!])).toBeLessThan(1e-3);
    const none = fitCodebook({ weights: new Float32Array(4), channels: 2, bits: 2 });
    expect([...none.scales]).toEqual([0, 0]);
    expect(none.grid.levels!.length).toBeGreaterThan(0);
  });

  it('is the same in every run', () => {
    const weights = normals(5000, 8);
    expect(fitCodebook({ weights, channels: 5, bits: 4 })).toEqual(fitCodebook({ weights, channels: 5, bits: 4 }));
  });
});

describe('nearestCode', () => {
  it('is the nearest level of all, on grids and in codebooks', () => {
    const levels = fc.uniqueArray(fc.integer({ min: -63, max: 63 }), { minLength: 1, maxLength: 32 });
    fc.assert(
      fc.property(levels, fc.double({ min: -90, max: 90, noNaN: true }), (given, x) => {
        const ascending = Int8Array.from(given).sort();
        const grid: Grid = { bits: 5, low: ascending[0]!, high: ascending.at(-1)!, offset: 0, levels: ascending };
        const least = Math.min(...given.map((level) => Math.abs(level - x)));
        expect(given).toContain(nearestCode(x, grid));
        expect(Math.abs(nearestCode(x, grid) - x)).toBe(least);
        expect(Math.abs(nearestCode(x, gridOf(8, 0)) - Math.min(127, Math.max(-127, x)))).toBeLessThanOrEqual(0.5);
      }),
    );
  });
});
