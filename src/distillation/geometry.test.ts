import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { normals } from '../testing/tiny-models.js';
import type { Gram } from './cka.js';
import { geometryOf, informationKept } from './geometry.js';

type Rows = number[][];

const rowsOf = (samples: number, width: number, seed: number): Rows => {
  const values = normals(samples * width, seed);
  return Array.from({ length: samples }, (_, i) => [...values.subarray(i * width, (i + 1) * width)]);
};
const dot = (a: readonly number[], b: readonly number[]): number => a.reduce((sum, v, k) => sum + v * b[k], 0);
const gramOf = (rows: Rows): Gram => ({
  size: rows.length,
  values: Float64Array.from(rows.flatMap((a) => rows.map((b) => dot(a, b)))),
});
const meanOf = (rows: Rows): number[] => rows[0].map((_, k) => rows.reduce((sum, r) => sum + r[k], 0) / rows.length);
const minus = (a: readonly number[], b: readonly number[]): number[] => a.map((v, k) => v - b[k]);
const square = (a: readonly number[]): number => dot(a, a);

describe('geometryOf', () => {
  it('has the rank of points on as many axes as they lie on, equally or not', () => {
    const axes = (scales: readonly number[], offset = 5): Rows =>
      scales.flatMap((s, k) => [1, -1].map((sign) => scales.map((_, j) => offset + (j === k ? sign * s : 0))));
    expect(geometryOf(gramOf(axes([2, 2, 2])), 3).effectiveRank).toBeCloseTo(3, 8);
    expect(geometryOf(gramOf(axes([2, 2, 0])), 3).effectiveRank).toBeCloseTo(2, 8);
    // p = 3/4 and 1/4.
    expect(geometryOf(gramOf(axes([3, 1])), 2).effectiveRank).toBeCloseTo(
      Math.exp(0.75 * Math.log(4 / 3) + 0.25 * Math.log(4)),
      8,
    );
    const twelve = axes(Array.from({ length: 12 }, () => 1));
    expect(geometryOf(gramOf(twelve), 12)).toMatchObject({
      features: 12,
      topShare: expect.closeTo(10 / 12, 8) as number,
    });
    expect(geometryOf(gramOf(axes([3, 1])), 2).topShare).toBeCloseTo(1, 12);
  });

  it('has 0 directions where nothing varies', () => {
    const flat = Array.from({ length: 6 }, () => [0.1, 0.7]);
    const geometry = geometryOf(gramOf(flat), 2, [0, 1, 0, 1, 0, 1]);
    expect(geometry).toMatchObject({ effectiveRank: 0, topShare: 0 });
    expect(geometry.diversity).toBeCloseTo(0, 6);
    expect(geometry.separability).toBeUndefined();
  });

  it('has the diversity and separability of their definitions, within bounds of the rank', () => {
    const cases = fc.tuple(
      fc.integer({ min: 3, max: 20 }),
      fc.integer({ min: 1, max: 9 }),
      fc.integer({ min: 0, max: 9999 }),
    );
    fc.assert(
      fc.property(cases, ([n, d, seed]) => {
        const rows = rowsOf(n, d, seed).map((row, i) => row.map((v) => v + (i % 3)));
        const labels = rows.map((_, i) => i % 3);
        const geometry = geometryOf(gramOf(rows), d, labels);
        const units = rows.map((row) => row.map((v) => v / Math.sqrt(square(row))));
        const distances = units.flatMap((a, i) => units.slice(0, i).map((b) => Math.sqrt(square(minus(a, b)))));
        expect(geometry.diversity).toBeCloseTo(distances.reduce((a, b) => a + b, 0) / distances.length, 6);
        const mean = meanOf(rows);
        let [between, within] = [0, 0];
        for (const label of new Set(labels)) {
          const members = rows.filter((_, i) => labels[i] === label);
          between += members.length * square(minus(meanOf(members), mean));
          for (const row of members) within += square(minus(row, meanOf(members)));
        }
        if (n > 3) expect((geometry.separability ?? NaN) / (between / within)).toBeCloseTo(1, 6);
        else expect(geometry.separability).toBeUndefined();
        expect(geometry.effectiveRank).toBeGreaterThanOrEqual(1 - 1e-9);
        expect(geometry.effectiveRank).toBeLessThanOrEqual(Math.min(n - 1, d) + 1e-9);
        expect(geometryOf(gramOf(rows), d).separability).toBeUndefined();
      }),
      { numRuns: 60 },
    );
  });

  it('leaves samples without a direction out of the diversity', () => {
    const rows = [
      [0, 0],
      [3, 0],
      [0, 2],
    ];
    expect(geometryOf(gramOf(rows), 2).diversity).toBeCloseTo(Math.SQRT2, 12);
  });
});

describe('informationKept', () => {
  const mapped = (rows: Rows, width: number, seed: number): Rows => {
    const map = rowsOf(width, rows[0].length, seed);
    return rows.map((row) => map.map((column) => dot(row, column) + 1));
  };

  it('is 1 for what a linear map gives back, and 0 or less for noise', () => {
    const teacher = rowsOf(60, 4, 1);
    expect(informationKept(gramOf(mapped(teacher, 6, 2)), gramOf(teacher))).toBeGreaterThan(0.999);
    expect(informationKept(gramOf(rowsOf(60, 4, 9)), gramOf(teacher))).toBeLessThan(0.05);
    // Wider than there are samples: a ridge keeps it from predicting noise from noise.
    expect(informationKept(gramOf(rowsOf(60, 200, 9)), gramOf(teacher))).toBeGreaterThan(-0.5);
  });

  it('is the share of the variance that half of the directions carry', () => {
    const teacher = rowsOf(400, 4, 3);
    const half = teacher.map((row) => row.slice(0, 2));
    const kept = informationKept(gramOf(half), gramOf(teacher));
    const held = teacher.filter((_, i) => i % 2 === 1);
    const mean = meanOf(held);
    const variance = (k: number): number => held.reduce((sum, row) => sum + (row[k] - mean[k]) ** 2, 0);
    const wanted = (variance(0) + variance(1)) / (variance(0) + variance(1) + variance(2) + variance(3));
    expect(Math.abs(kept! - wanted)).toBeLessThan(0.03);
  });

  it('equals ridge regression in primal form', () => {
    // One feature on each side: with a ridge of r relative to the mean square the slope is sxy / (sxx + r sxx / n).
    const [x, y] = [rowsOf(40, 1, 5).flat(), rowsOf(40, 1, 6).flat()];
    const t = x.map((v, i) => 2 * v + 0.3 * y[i]);
    const fit = x.map((_, i) => i).filter((i) => i % 2 === 0);
    const held = x.map((_, i) => i).filter((i) => i % 2 === 1);
    const mean = (values: number[], at: number[]): number => at.reduce((sum, i) => sum + values[i], 0) / at.length;
    const [mx, mt] = [mean(x, fit), mean(t, fit)];
    const sxx = fit.reduce((sum, i) => sum + (x[i] - mx) ** 2, 0);
    const sxt = fit.reduce((sum, i) => sum + (x[i] - mx) * (t[i] - mt), 0);
    const base = mean(t, held);
    const total = held.reduce((sum, i) => sum + (t[i] - base) ** 2, 0);
    const scores = [1e-4, 1e-3, 1e-2, 1e-1, 1, 10, 100].map((r) => {
      const slope = sxt / (sxx + (r * sxx) / fit.length);
      return 1 - held.reduce((sum, i) => sum + (t[i] - mt - slope * (x[i] - mx)) ** 2, 0) / total;
    });
    const kept = informationKept(gramOf(x.map((v) => [v])), gramOf(t.map((v) => [v])))!;
    expect(Math.min(...scores.map((score) => Math.abs(score - kept)))).toBeLessThan(1e-9);
  });

  it('is absent where the teacher does not vary, and 0 where the student does not', () => {
    const flat = Array.from({ length: 8 }, () => [0.1, 0.7, 0.3]);
    expect(informationKept(gramOf(rowsOf(8, 2, 1)), gramOf(flat))).toBeUndefined();
    expect(informationKept(gramOf(flat), gramOf(rowsOf(8, 2, 1)))).toBe(0);
    expect(informationKept(gramOf(rowsOf(3, 2, 1)), gramOf(rowsOf(3, 2, 2)))).toBeUndefined();
    expect(() => informationKept(gramOf(rowsOf(8, 2, 1)), gramOf(rowsOf(9, 2, 2)))).toThrow(/8 and of 9 samples/);
  });
});
