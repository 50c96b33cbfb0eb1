import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { refitLoss } from '../testing/refit-loss.js';
import { normals } from '../testing/tiny-models.js';
import { refit, type InputMoments } from './refit.js';

interface Case {
  readonly cols: number;
  readonly samples: Float64Array[];
  readonly weights: Float32Array;
  readonly kept: number[];
}

const cases = fc
  .record({
    cols: fc.integer({ min: 2, max: 8 }),
    rows: fc.integer({ min: 1, max: 4 }),
    seed: fc.integer({ min: 1, max: 1e6 }),
    lost: fc.integer({ min: 1, max: 200 }),
  })
  .map(({ cols, rows, seed, lost }): Case => {
    const mix = normals(cols * cols, seed);
    const raw = normals(40 * cols, seed + 1);
    const samples = Array.from({ length: 40 }, (_, s) =>
      Float64Array.from({ length: cols }, (__, i) => {
        let sum = i % 3;
        for (let j = 0; j < cols; j++) sum += mix[i * cols + j]! * raw[s * cols + j]!;
        return sum;
      }),
    );
    const kept = Array.from({ length: cols }, (_, i) => i).filter((i) => i === 0 || ((lost >> i) & 1) === 0);
    return { cols, samples, weights: normals(rows * cols, seed + 2), kept };
  });

function momentsOf({ cols, samples }: Case): InputMoments {
  const data = new Float64Array(cols * cols);
  const mean = new Float64Array(cols);
  for (const x of samples)
    for (let i = 0; i < cols; i++) {
      mean[i]! += x[i]! / samples.length;
      for (let j = 0; j < cols; j++) data[i * cols + j]! += (x[i]! * x[j]!) / samples.length;
    }
  return { data, mean, cols };
}

/** Mean square over the samples of what the outputs differ by. */
function error(each: Case, weights: ArrayLike<number>, shift: ArrayLike<number>): number {
  const { cols, samples, kept } = each;
  let sum = 0;
  for (const x of samples)
    for (let row = 0; row * cols < each.weights.length; row++) {
      let difference = -shift[row]!;
      for (let i = 0; i < cols; i++) difference += each.weights[row * cols + i]! * x[i]!;
      kept.forEach((i, a) => (difference -= weights[row * kept.length + a]! * x[i]!));
      sum += difference ** 2;
    }
  return sum / samples.length;
}

/** The output's variance around its mean. */
function variance(each: Case): number {
  const { mean, cols } = momentsOf(each);
  const centre = Float64Array.from({ length: each.weights.length / cols }, (_, row) => {
    let sum = 0;
    for (let i = 0; i < cols; i++) sum += each.weights[row * cols + i]! * mean[i]!;
    return sum;
  });
  return error({ ...each, kept: [] }, [], centre);
}

describe('refit', () => {
  it('leaves no direction in which the error falls', () => {
    fc.assert(
      fc.property(cases, (each) => {
        const { weights, shift } = refit(each.weights, momentsOf(each), each.kept, 1e-9);
        const least = error(each, weights, shift);
        const step = 1e-4;
        for (const sign of [-1, 1]) {
          for (let i = 0; i < weights.length; i++) {
            const other = weights.slice();
            other[i]! += sign * step;
            expect(error(each, other, shift)).toBeGreaterThanOrEqual(least - 1e-9 * (1 + least));
          }
          for (let i = 0; i < shift.length; i++) {
            const other = shift.slice();
            other[i]! += sign * step;
            expect(error(each, weights, other)).toBeGreaterThanOrEqual(least - 1e-9 * (1 + least));
          }
        }
      }),
      { numRuns: 60 },
    );
  });

  it('tells how far the output moves with and without it', () => {
    fc.assert(
      fc.property(cases, (each) => {
        const found = refit(each.weights, momentsOf(each), each.kept);
        const { weights, shift } = found;
        const { before, after } = refitLoss(each.weights, momentsOf(each), each.kept, found);
        const rows = each.weights.length / each.cols;
        const left = Array.from({ length: rows }, (_, row) => each.kept.map((i) => each.weights[row * each.cols + i]!));
        const whole = variance(each);
        expect(before).toBeCloseTo(error(each, left.flat(), new Float64Array(rows)) / whole, 5);
        expect(after).toBeCloseTo(error(each, weights, shift) / whole, 5);
        expect(after).toBeLessThanOrEqual(before + 1e-9);
      }),
      { numRuns: 60 },
    );
  });

  it('makes good for a column that others add up to', () => {
    const samples = Array.from({ length: 30 }, (_, s) => {
      const [a, b] = normals(2, s + 1) as unknown as [number, number];
      return Float64Array.of(a, b, 2 * a - b + 3);
    });
    const each = { cols: 3, samples, weights: Float32Array.of(1, 1, 1), kept: [0, 1] };
    const found = refit(each.weights, momentsOf(each), each.kept, 1e-9);
    const { weights, shift } = found;
    const { after } = refitLoss(each.weights, momentsOf(each), each.kept, found);
    expect([...weights, ...shift].map((v) => Math.round(v * 1e6) / 1e6)).toEqual([3, 0, 3]);
    expect(after).toBeLessThan(1e-9);
  });

  it('keeps weights as they are where nothing is lost, and where the input never changes', () => {
    const still = { cols: 2, samples: [Float64Array.of(1, 2), Float64Array.of(1, 2)], weights: Float32Array.of(3, 4) };
    expect([...refit(still.weights, momentsOf({ ...still, kept: [0, 1] }), [0, 1]).weights]).toEqual([3, 4]);
    const { weights, shift } = refit(still.weights, momentsOf({ ...still, kept: [0] }), [0]);
    expect([...weights, ...shift]).toEqual([3, 8]);
  });
});
