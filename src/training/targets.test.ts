import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { balancedWeights, binaryTargets, classTargets } from './targets.js';

const labelled = fc
  .integer({ min: 2, max: 6 })
  .chain((classes) => fc.tuple(fc.constant(classes), fc.array(fc.nat(classes - 1), { minLength: 1, maxLength: 12 })));
const rows = (data: ArrayLike<number>, size: number): number[][] =>
  Array.from({ length: data.length / size }, (_, n) => Array.from(data).slice(n * size, (n + 1) * size));

describe('classTargets', () => {
  it('is one-hot without smoothing', () => {
    const { dims, data } = classTargets([2, 0], 3);
    expect(dims).toEqual([2, 3]);
    expect([...data]).toEqual([0, 0, 1, 1, 0, 0]);
  });

  it('spreads a share evenly, and every row sums to 1', () => {
    fc.assert(
      fc.property(labelled, fc.double({ min: 0, max: 0.9, noNaN: true }), ([classes, labels], labelSmoothing) => {
        const { data } = classTargets(labels, classes, labelSmoothing);
        rows(data as Float32Array, classes).forEach((row, n) => {
          const label = labels[n]!;
          row.forEach((value, c) => {
            const p = (c === label ? 1 - labelSmoothing : 0) + labelSmoothing / classes;
            expect(value).toBeCloseTo(p, 5);
          });
        });
      }),
    );
  });

  it.each([3, -1, NaN])('refuses the label %s of three classes', (label) => {
    expect(() => classTargets([0, label], 3)).toThrow(expect.objectContaining({ code: 'bad-input' }));
  });
});

describe('binaryTargets', () => {
  it('is the probability of class 1', () => {
    expect(binaryTargets([1, 0, 1])).toEqual({ type: 'float32', dims: [3], data: Float32Array.of(1, 0, 1) });
    expect([...binaryTargets([0, 1], 0.5).data]).toEqual([0.25, 0.75]);
    expect(() => binaryTargets([0, 2])).toThrow(expect.objectContaining({ code: 'bad-input' }));
  });
});

describe('balancedWeights', () => {
  it('makes all classes that occur count alike, with mean 1 over the samples', () => {
    fc.assert(
      fc.property(labelled, ([classes, labels]) => {
        const weights = balancedWeights(labels, classes);
        const totals = weights.map((weight, c) => weight * labels.filter((label) => label === c).length);
        const present = totals.filter((total) => total > 0);
        for (const total of present) expect(total).toBeCloseTo(present[0]!, 9);
        expect(present.reduce((a, b) => a + b, 0) / labels.length).toBeCloseTo(1, 9);
      }),
    );
  });
});
