import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { Gram } from '../flow/gram-probe.js';
import { refitLoss } from '../testing/refit-loss.js';
import { normals } from '../testing/tiny-models.js';
import { canEliminate, eliminationOrder, type Reader } from './elimination.js';
import { refit } from './refit.js';

/** Moments of 60 rows whose columns depend on each other. */
function gramOf(cols: number, seed: number): Gram {
  const mix = normals(cols * cols, seed);
  const raw = normals(60 * cols, seed + 1);
  const data = new Float64Array(cols * cols);
  const mean = new Float64Array(cols);
  for (let s = 0; s < 60; s++) {
    const x = Array.from({ length: cols }, (_, i) => {
      let sum = i / 3;
      for (let j = 0; j < cols; j++) sum += mix[i * cols + j]! * raw[s * cols + j]!;
      return sum;
    });
    for (let i = 0; i < cols; i++) {
      mean[i]! += x[i]! / 60;
      for (let j = 0; j < cols; j++) data[i * cols + j]! += (x[i]! * x[j]!) / 60;
    }
  }
  return { groups: 1, cols, data, mean, count: 60 };
}

function readerOf(units: number, taps: number, rows: number, seed: number, both = false): Reader {
  const gram = gramOf(units * taps * (both ? 2 : 1), seed);
  const from = (start: number): number[] => Array.from({ length: taps }, (_, t) => start * taps + t);
  const columns = Array.from({ length: units }, (_, u) => (both ? [...from(u), ...from(units + u)] : from(u)));
  return { weights: normals(rows * gram.cols, seed + 2), rows, gram, columns };
}

/** What a reader's output is off by, relative to its variance, once these units are gone and the rest is fitted. */
function loss({ weights, gram, columns }: Reader, gone: readonly number[]): number {
  const lost = new Set(gone.flatMap((unit) => columns[unit]!));
  const kept = Array.from({ length: gram.cols }, (_, i) => i).filter((i) => !lost.has(i));
  return refitLoss(weights, gram, kept, refit(weights, gram, kept, 1e-9)).after;
}

describe('the order of elimination', () => {
  const cases = fc.record({
    units: fc.integer({ min: 2, max: 5 }),
    taps: fc.integer({ min: 1, max: 3 }),
    rows: fc.integer({ min: 1, max: 3 }),
    readers: fc.integer({ min: 1, max: 2 }),
    both: fc.boolean(),
    seed: fc.integer({ min: 1, max: 1e5 }),
  });

  it('takes the unit whose loss after least squares on all others is least, every time', () => {
    fc.assert(
      fc.property(cases, ({ units, taps, rows, readers, both, seed }) => {
        const all = Array.from({ length: readers }, (_, i) =>
          readerOf(units, taps, rows, seed + 10 * i, both && i === 0),
        );
        const order = eliminationOrder(all, units);
        expect([...order].sort()).toEqual(Array.from({ length: units }, (_, i) => i));
        const total = (gone: readonly number[]): number => all.reduce((sum, reader) => sum + loss(reader, gone), 0);
        for (let step = 0; step + 1 < units; step++) {
          const gone = order.slice(0, step);
          const chosen = total([...gone, order[step]!]);
          for (const other of order.slice(step + 1)) expect(chosen).toBeLessThan(total([...gone, other]) * 1.05 + 0.01);
        }
      }),
      { numRuns: 60 },
    );
  });

  it('starts with a unit that the others can make up for, however large it is', () => {
    const reader = readerOf(4, 1, 3, 7);
    const { data, mean, cols } = reader.gram;
    // Unit 2 becomes ten times unit 0.
    const copy = (i: number): number => (i === 2 ? 0 : i);
    const factor = (i: number): number => (i === 2 ? 10 : 1);
    const twin = Float64Array.from(data, (_, at) => {
      const [i, j] = [Math.floor(at / cols), at % cols];
      return factor(i) * factor(j) * data[copy(i) * cols + copy(j)]!;
    });
    const gram = { ...reader.gram, data: twin, mean: mean.map((_, i) => factor(i) * mean[copy(i)]!) };
    const weights = new Float32Array(reader.weights.length).fill(1);
    expect([0, 2]).toContain(eliminationOrder([{ ...reader, weights, gram }], 4)[0]);
  });

  it('is not tried without readers or where it would take minutes', () => {
    expect(canEliminate([])).toBe(false);
    const reader = readerOf(4, 1, 3, 7);
    expect(canEliminate([reader])).toBe(true);
    expect(canEliminate([{ ...reader, gram: { ...reader.gram, cols: 4000 } }])).toBe(false);
  });
});
