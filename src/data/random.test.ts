import { describe, expect, it } from 'vitest';
import { randomStream, seedOf, shuffled } from './random.js';

describe('random numbers', () => {
  it('are the same for the same seed and differ between seeds', () => {
    expect(shuffled(100, 7)).toEqual(shuffled(100, 7));
    expect(shuffled(100, 7)).not.toEqual(shuffled(100, 8));
  });

  it('shuffle to a permutation in which every element reaches every place', () => {
    expect(Array.from(shuffled(50, 3)).sort((a, b) => a - b)).toEqual(Array.from({ length: 50 }, (_, i) => i));
    const places = new Set(Array.from({ length: 60 }, (_, seed) => shuffled(3, seed).join()));
    expect(places.size).toBe(6);
  });

  it('have the mean and variance of their distributions', () => {
    const random = randomStream(1);
    const normals = Array.from({ length: 20000 }, () => random.normal());
    const mean = normals.reduce((sum, x) => sum + x, 0) / normals.length;
    const variance = normals.reduce((sum, x) => sum + (x - mean) ** 2, 0) / normals.length;
    expect(Math.abs(mean)).toBeLessThan(0.03);
    expect(Math.abs(variance - 1)).toBeLessThan(0.05);
    const integers = Array.from({ length: 6000 }, () => random.int(6));
    for (let side = 0; side < 6; side++) {
      expect(Math.abs(integers.filter((x) => x === side).length - 1000)).toBeLessThan(150);
    }
  });
});

describe('seedOf', () => {
  it('gives other seeds for other numbers, in other orders too', () => {
    const seeds = new Set<number>();
    for (let a = 0; a < 40; a++) for (let b = 0; b < 40; b++) for (let c = 0; c < 10; c++) seeds.add(seedOf(a, b, c));
    expect(seeds.size).toBeGreaterThan(15990);
    expect(seedOf(1, 2)).not.toBe(seedOf(2, 1));
    expect(Number.isInteger(seedOf(1, 2))).toBe(true);
  });
});
