import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { FlowCompressError } from '../errors.js';
import { allocateBits, type AllocationItem } from './allocate.js';

const item = (params: number, sensitivity: number, floor = 2, reason?: string): AllocationItem<number> => ({
  name: `layer of ${String(params)}`,
  choices: [2, 3, 4, 5, 6, 7, 8].filter((b) => b >= floor),
  bits: (bits) => bits,
  cost: (bits) => (params * bits) / 8,
  damage: (bits) => sensitivity * 4 ** -bits,
  floorReason: reason,
});

const spent = (items: readonly AllocationItem<number>[], bits: readonly number[]): number =>
  items.reduce((sum, it, i) => sum + it.cost(bits[i]!), 0);
const damage = (items: readonly AllocationItem<number>[], bits: readonly number[]): number =>
  items.reduce((sum, it, i) => sum + it.damage(bits[i]!), 0);

describe('allocateBits', () => {
  it('matches brute force within one bucket per layer, and never passes the budget', () => {
    const layer = fc.record({
      params: fc.integer({ min: 8, max: 4000 }),
      s: fc.double({ min: 0.01, max: 10, noNaN: true }),
    });
    fc.assert(
      fc.property(
        fc.array(layer, { minLength: 1, maxLength: 4 }),
        fc.double({ min: 2.05, max: 8, noNaN: true }),
        (layers, target) => {
          const items = layers.map((l) => item(l.params, l.s));
          const budget = (layers.reduce((sum, l) => sum + l.params, 0) * target) / 8;
          const bits = allocateBits(items, { budget });
          expect(spent(items, bits)).toBeLessThanOrEqual(budget + 1e-9);
          // The solver rounds costs up to buckets: with one bucket per layer less it cannot be beaten.
          const slack =
            ((budget -
              spent(
                items,
                items.map(() => 2),
              )) /
              4096) *
            items.length;
          expect(damage(items, bits)).toBeLessThanOrEqual(bruteForce(items, budget - slack) * (1 + 1e-9));
        },
      ),
      { numRuns: 60 },
    );
  });

  it('gives equal layers equal widths when the budget allows it', () => {
    const items = [item(1000, 1), item(1000, 1), item(1000, 1)];
    expect(allocateBits(items, { budget: (3000 * 4) / 8 })).toEqual([4, 4, 4]);
  });

  it('holds floors', () => {
    const items = [item(100, 1e-6, 8, 'first or last layer'), item(1000, 1)];
    expect(allocateBits(items, { budget: 100 + (1000 * 3) / 8 })).toEqual([8, 3]);
  });

  it('names the floors that make a budget infeasible', () => {
    const items = [item(1000, 1, 8, 'first or last layer'), item(100, 1)];
    const error = catchError(() => allocateBits(items, { budget: 500 }));
    expect(error.code).toBe('infeasible');
    expect(error.message).toContain(
      'Binding floors: layer of 1000 >= 8 bits (first or last layer); all other layers >= 2 bits.',
    );
  });

  it('names the least width of all layers where no floor of a single one binds', () => {
    const error = catchError(() => allocateBits([item(1000, 1, 4), item(100, 1, 3)], { budget: 300 }));
    expect(error.message).toContain('the floors alone need 538 bytes');
    expect(error.message).toContain('Binding floors: every layer >= 3 bits.');
  });

  it('names the five floors that cost most, largest first', () => {
    const items = [1, 2, 3, 4, 5, 6].map((k) => item(1000 * k, 1, 8, 'embedding'));
    const { message } = catchError(() => allocateBits(items, { budget: 500 }));
    const named = [...message.matchAll(/layer of (\d)000 >= 8 bits \(embedding\)/g)].map((match) => match[1]);
    expect(named).toEqual(['6', '5', '4', '3', '2']);
    expect(message).not.toContain('every layer');
    expect(message).not.toContain('other layers');
  });

  it('smooths jumps between neighbours when asked to', () => {
    const items = [item(1000, 1), item(1000, 1e4), item(1000, 1)];
    const budget = (3000 * 4) / 8;
    const rough = allocateBits(items, { budget });
    const smooth = allocateBits(items, { budget, smoothness: 100 });
    const jumps = (bits: number[]): number => Math.abs(bits[0]! - bits[1]!) + Math.abs(bits[1]! - bits[2]!);
    expect(jumps(smooth)).toBeLessThan(jumps(rough));
  });
});

function bruteForce(items: readonly AllocationItem<number>[], budget: number): number {
  let best = Infinity;
  const walk = (at: number, cost: number, sum: number): void => {
    if (cost > budget) return;
    if (at === items.length) {
      best = Math.min(best, sum);
      return;
    }
    for (const b of items[at]!.choices) walk(at + 1, cost + items[at]!.cost(b), sum + items[at]!.damage(b));
  };
  walk(0, 0, 0);
  return best;
}

function catchError(run: () => unknown): FlowCompressError {
  try {
    run();
  } catch (error) {
    if (error instanceof FlowCompressError) return error;
  }
  throw new Error('expected a FlowCompressError');
}
