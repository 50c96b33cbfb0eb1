import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { addToHistogram, emptyHistogram } from '../flow/histogram.js';
import { normals } from '../testing/tiny-models.js';
import { chooseRange, quantizerOf, tieQuantizers } from './activation-range.js';

describe('quantizerOf', () => {
  it('represents 0 exactly and covers the range to half a step', () => {
    const bound = fc.float({ min: Math.fround(-50), max: 50, noNaN: true });
    fc.assert(
      fc.property(bound, bound, (a, b) => {
        const range = { min: Math.min(a, b), max: Math.max(a, b) };
        const { scale, zeroPoint } = quantizerOf(range);
        expect(Number.isInteger(zeroPoint)).toBe(true);
        expect(zeroPoint).toBeGreaterThanOrEqual(0);
        expect(zeroPoint).toBeLessThanOrEqual(255);
        expect((255 - zeroPoint) * scale).toBeGreaterThanOrEqual(Math.max(0, range.max) - scale * 0.51);
        expect(-zeroPoint * scale).toBeLessThanOrEqual(Math.min(0, range.min) + scale * 0.51);
      }),
    );
  });

  it('puts the zero point at 0 behind a Relu', () => {
    expect(quantizerOf({ min: 0, max: 6 }).zeroPoint).toBe(0);
  });

  it.each([[{ min: 0, max: 0 }], [{ min: Infinity, max: -Infinity }]])('gives a usable quantizer for %j', (range) => {
    expect(quantizerOf(range)).toEqual({ scale: 1, zeroPoint: 0 });
  });
});

describe('chooseRange', () => {
  const filled = (
    values: Float32Array,
  ): { range: { min: number; max: number }; histogram: ReturnType<typeof emptyHistogram> } => {
    const histogram = emptyHistogram();
    let [min, max] = [0, 0];
    for (const v of values) {
      min = Math.min(min, v);
      max = Math.max(max, v);
    }
    addToHistogram(histogram, values, min, max);
    return { range: { min, max }, histogram };
  };

  it('clips thin tails where that pays, and not when clipping is forbidden', () => {
    const { range, histogram } = filled(normals(200_000, 1));
    expect(chooseRange(range, histogram).scale).toBeLessThan(0.95 * quantizerOf(range).scale);
    expect(chooseRange(range, histogram, 0)).toEqual(quantizerOf(range));
  });

  it('has no larger error on the data than min-max', () => {
    for (const seed of [1, 2, 3]) {
      const values = normals(4000, seed).map((v) => v ** 3);
      const { range, histogram } = filled(values);
      const error = ({ scale, zeroPoint }: { scale: number; zeroPoint: number }): number =>
        values.reduce((sum, v) => {
          const q = Math.min(255, Math.max(0, Math.round(v / scale) + zeroPoint));
          return sum + (v - (q - zeroPoint) * scale) ** 2;
        }, 0);
      expect(error(chooseRange(range, histogram))).toBeLessThanOrEqual(error(quantizerOf(range)) * 1.02);
    }
  });
});

describe('tieQuantizers', () => {
  it('gives a group one quantizer that covers all members, and leaves others alone', () => {
    const quantizers = new Map([
      ['a', quantizerOf({ min: 0, max: 4 })],
      ['b', quantizerOf({ min: -2, max: 1 })],
      ['c', quantizerOf({ min: 0, max: 9 })],
    ]);
    const tied = tieQuantizers(quantizers, [['a', 'b', 'unknown']]);
    expect(tied.get('a')).toEqual(tied.get('b'));
    expect(tied.get('unknown')).toEqual(tied.get('a'));
    const { scale, zeroPoint } = tied.get('a')!;
    expect((255 - zeroPoint) * scale).toBeCloseTo(4, 1);
    expect(-zeroPoint * scale).toBeCloseTo(-2, 1);
    expect(tied.get('c')).toEqual(quantizers.get('c'));
  });
});
