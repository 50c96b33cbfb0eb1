import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { flowNetwork } from './max-flow.js';

interface Edge {
  from: number;
  to: number;
  capacity: number;
}

const SIZE = 6;
const edgesArbitrary = fc.array(
  fc.record({
    from: fc.integer({ min: 0, max: SIZE - 1 }),
    to: fc.integer({ min: 0, max: SIZE - 1 }),
    capacity: fc.oneof(fc.integer({ min: 0, max: 9 }), fc.double({ min: 0, max: 9, noNaN: true })),
  }),
  { maxLength: 20 },
);

function cutOf(edges: Edge[]) {
  const network = flowNetwork();
  for (let i = 0; i < SIZE; i++) network.addVertex();
  for (const { from, to, capacity } of edges) network.addEdge(from, to, capacity);
  return network.minimumCut(0, SIZE - 1);
}

const cutValue = (edges: Edge[], side: (v: number) => boolean): number =>
  edges.reduce((sum, e) => sum + (side(e.from) && !side(e.to) ? e.capacity : 0), 0);

describe('flowNetwork', () => {
  it('finds the least of all cuts, and the sides it returns cost that much', () => {
    fc.assert(
      fc.property(edgesArbitrary, (edges) => {
        let best = Infinity;
        for (let mask = 0; mask < 1 << (SIZE - 2); mask++) {
          const side = (v: number): boolean => v === 0 || (v < SIZE - 1 && ((mask >> (v - 1)) & 1) === 1);
          best = Math.min(best, cutValue(edges, side));
        }
        const { value, sourceSide } = cutOf(edges);
        expect(value).toBeCloseTo(best, 9);
        expect(sourceSide[0]).toBe(true);
        expect(sourceSide[SIZE - 1]).toBe(false);
        expect(cutValue(edges, (v) => sourceSide[v]!)).toBeCloseTo(best, 9);
      }),
      { numRuns: 300 },
    );
  });

  it('never cuts an infinite edge when another cut exists, and says so when none does', () => {
    expect(
      cutOf([
        { from: 0, to: 1, capacity: Infinity },
        { from: 1, to: 5, capacity: 3 },
      ]).value,
    ).toBe(3);
    expect(
      cutOf([
        { from: 0, to: 1, capacity: Infinity },
        { from: 1, to: 5, capacity: Infinity },
      ]).value,
    ).toBe(Infinity);
  });

  it('handles a chain of many vertices without recursion', () => {
    const network = flowNetwork();
    const count = 50_000;
    for (let i = 0; i < count; i++) network.addVertex();
    for (let i = 0; i + 1 < count; i++) network.addEdge(i, i + 1, 2 + (i % 7));
    expect(network.minimumCut(0, count - 1).value).toBe(2);
  });

  it('refuses negative and missing capacities', () => {
    const network = flowNetwork();
    network.addVertex();
    network.addVertex();
    expect(() => network.addEdge(0, 1, -1)).toThrow(RangeError);
    expect(() => network.addEdge(0, 1, NaN)).toThrow(RangeError);
  });
});
