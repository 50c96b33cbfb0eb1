import { describe, expect, it } from 'vitest';
import type { HostTensor } from '../runtime/engine.js';
import { normals } from '../testing/tiny-models.js';
import { closeness } from './closeness.js';

const tensor = (rows: readonly (readonly number[])[]): HostTensor => ({
  ...{ type: 'float32', dims: [rows.length, rows[0]!.length] },
  data: Float32Array.from(rows.flat()),
});
/** Logits of two classes with that probability of class 1. */
const sure = (p: number): number[] => [0, Math.log(p / (1 - p))];
/** [12][3]. */
const random = (seed: number): number[][] => {
  const values = normals(36, seed);
  return Array.from({ length: 12 }, (_, n) => [...values.subarray(3 * n, 3 * n + 3)]);
};
const target = tensor([
  [0, 1],
  [0, 1],
  [0, 1],
  [1, 0],
]);

describe('closeness', () => {
  // The teacher is right on the first three; probabilities of the right class 0.9, 0.8, 0.6, 0.2.
  const teacher = tensor([sure(0.9), sure(0.8), sure(0.6), sure(0.8)]);

  it('weighs agreement on right answers with confidence in the right class', () => {
    // Right class 0.8, 0.3, 0.6, 0.9: two of three agree; the mean is 0.65 where the teacher's is 0.625.
    const student = tensor([sure(0.8), sure(0.3), sure(0.6), sure(0.1)]);
    expect(closeness({ teacher, student, target })).toBeCloseTo((0.4 * (2 / 3) + 0.3 * (1 - 0.025)) / 0.7, 6);
  });

  it('goes by confidence alone where the teacher is never right', () => {
    const wrong = tensor([sure(0.1), sure(0.2), sure(0.4), sure(0.8)]);
    expect(closeness({ teacher: wrong, student: wrong, target })).toBeCloseTo(1, 6);
    const unlike = tensor([sure(0.9), sure(0.9), sure(0.9), sure(0.1)]);
    expect(closeness({ teacher: wrong, student: unlike, target })).toBeCloseTo(1 - (0.9 - 0.225), 5);
  });

  it('is 1 for a twin whose features are turned and scaled, and less for others', () => {
    const rows = random(20);
    const turned = rows.map(([a, b, c]) => [2 * b!, -2 * a!, 2 * c!, 0]);
    const scores = tensor(rows.map((_, n) => sure(n % 3 === 0 ? 0.95 : 0.75)));
    const ones = tensor(rows.map(() => [0, 1]));
    const features = { teacher: tensor(rows), student: tensor(turned) };
    expect(closeness({ teacher: scores, student: scores, target: ones, features })).toBeCloseTo(1, 6);
    const other = { teacher: tensor(rows), student: tensor(random(60)) };
    expect(closeness({ teacher: scores, student: scores, target: ones, features: other })).toBeLessThan(0.9);
  });

  it('compares features where the teacher is right and sure only', () => {
    const rows = random(20);
    // Spoiled where the teacher is unsure (row 3) or wrong (row 5).
    const spoiled = rows.map((row, n) => (n === 3 || n === 5 ? row.map((v) => -9 * v) : row));
    const scores = tensor(rows.map((_, n) => sure(n === 3 ? 0.6 : n === 5 ? 0.1 : 0.9)));
    const ones = tensor(rows.map(() => [0, 1]));
    const features = { teacher: tensor(rows), student: tensor(spoiled) };
    expect(closeness({ teacher: scores, student: scores, target: ones, features })).toBeCloseTo(1, 6);
  });
});
