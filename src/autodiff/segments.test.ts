import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Graph } from '../onnx/graph.js';
import { info, op, tinyModel } from '../testing/graph-writing.js';
import { planSegments } from './segments.js';

/** v1, v2, ... each a sum of two earlier values (v0 is the input), with a size of its own. */
function network(reads: readonly (readonly [number, number])[]) {
  const model = tinyModel({
    inputs: [info('v0', ['N'])],
    outputs: [info(`v${String(reads.length)}`, ['N'])],
    nodes: reads.map(([a, b], i) => op(`Add v${String(a)} v${String(b)} -> v${String(i + 1)}`)),
  });
  return new Graph(model).nodes;
}

const networks = fc
  .array(fc.tuple(fc.nat(), fc.nat(), fc.integer({ min: 1, max: 50 })), { minLength: 1, maxLength: 40 })
  .map((rows) => ({
    // Mostly the value just before.
    reads: rows.map(([a, b], i) => [i, a % 3 === 0 ? b % (i + 1) : i] as const),
    sizes: [0, ...rows.map(([, , size]) => size)],
  }));

describe('planSegments', () => {
  it('follow on each other, keep what is read across a cut, and take less than everything', () => {
    fc.assert(
      fc.property(networks, ({ reads, sizes }) => {
        const nodes = network(reads);
        const numberOf = (name: string): number => Number(name.slice(1));
        const segments = planSegments(nodes, (value) => sizes[numberOf(value.name)]!);
        let next = 0;
        let [kept, largest] = [0, 0];
        const sizeOf = (from: number, to: number): number =>
          nodes.slice(from, to).reduce((sum, { outputs }) => sum + sizes[numberOf(outputs[0]!.name)]!, 0);
        for (const { first, last, crossing } of segments) {
          expect(first).toBe(next);
          expect(last).toBeGreaterThanOrEqual(first);
          const later = new Set(nodes.slice(last + 1).flatMap(({ inputs }) => inputs.map((value) => value!.name)));
          const earlier = nodes.slice(0, last + 1).map(({ outputs }) => outputs[0]!.name);
          expect(crossing.map(({ name }) => name)).toEqual(earlier.filter((name) => later.has(name)));
          kept += crossing.reduce((sum, { name }) => sum + sizes[numberOf(name)]!, 0);
          largest = Math.max(largest, sizeOf(first, last + 1));
          next = last + 1;
        }
        largest = Math.max(largest, sizeOf(next, nodes.length));
        if (segments.length > 0) expect(kept + largest).toBeLessThan(sizeOf(0, nodes.length));
      }),
    );
  });

  it('take about the square root of a chain', () => {
    const nodes = network(Array.from({ length: 100 }, (_, i) => [i, i]));
    const segments = planSegments(nodes, () => 10);
    expect(segments.length + 1).toBeGreaterThan(6);
    expect(segments.length + 1).toBeLessThan(16);
    expect(segments.every(({ crossing }) => crossing.length === 1)).toBe(true);
  });
});
