import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { addToHistogram, binWidth, emptyHistogram, quantile } from './histogram.js';

describe('histogram', () => {
  it('keeps every value within its range while the range grows', () => {
    const batch = fc.array(fc.float({ min: -1000, max: 1000, noNaN: true }), { minLength: 1, maxLength: 50 });
    fc.assert(
      fc.property(fc.array(batch, { minLength: 1, maxLength: 6 }), (batches) => {
        const histogram = emptyHistogram();
        for (const values of batches) {
          addToHistogram(histogram, Float32Array.from(values), Math.min(...values), Math.max(...values));
        }
        const all = batches.flat();
        expect(histogram.total).toBe(all.length);
        expect(histogram.counts.reduce((a, b) => a + b, 0)).toBe(all.length);
        expect(histogram.low).toBeLessThanOrEqual(Math.min(...all));
        expect(histogram.high).toBeGreaterThanOrEqual(Math.max(...all));
      }),
    );
  });

  it('finds quantiles to the width of a bin', () => {
    const histogram = emptyHistogram();
    const values = Float32Array.from({ length: 10000 }, (_, i) => i / 10000);
    addToHistogram(histogram, values, 0, 0.9999);
    expect(quantile(histogram, 0.99)).toBeCloseTo(0.99, 2);
    expect(Math.abs(quantile(histogram, 0.5) - 0.5)).toBeLessThan(2 * binWidth(histogram));
  });
});
