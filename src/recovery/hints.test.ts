import { describe, expect, it } from 'vitest';
import type { HostTensor } from '../runtime/engine.js';
import { hintFactors, spreadOut, type TaughtValue } from './hints.js';

const named = (count: number): TaughtValue[] =>
  Array.from({ length: count }, (_, i) => ({ student: String(i), teacher: String(i) }));
const namesOf = (values: readonly TaughtValue[]): string[] => values.map(({ student }) => student);

describe('hints', () => {
  it('lie as far apart as can be, and end at the last', () => {
    expect(namesOf(spreadOut(named(12)))).toEqual(['1', '3', '5', '7', '9', '11']);
    expect(namesOf(spreadOut(named(3)))).toEqual(['0', '1', '2']);
    expect(spreadOut([])).toEqual([]);
    for (let count = 6; count < 40; count++) {
      const places = namesOf(spreadOut(named(count))).map(Number);
      expect(places).toHaveLength(6);
      expect(places.at(-1)).toBe(count - 1);
      const gaps = places.map((place, i) => place - (places[i - 1] ?? -1));
      expect(Math.max(...gaps) - Math.min(...gaps)).toBeLessThanOrEqual(1);
    }
  });

  it('weigh squared errors by the size of what they are held against', () => {
    const tensor = (...data: number[]): HostTensor => ({
      ...{ type: 'float32', dims: [data.length] },
      data: Float32Array.from(data),
    });
    const values = [tensor(3, -3, 3), tensor(0, 0), tensor(0.5)];
    const factors = hintFactors(values, 6);
    expect(factors[0]).toBeCloseTo(6 / 9 / 3, 6);
    // Nothing is relative to nothing.
    expect(factors[1]).toBe(0);
    expect(factors[2]).toBeCloseTo(6 / 0.25 / 3, 6);
  });
});
