import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { countClasses, f1Macro, f1OfClass, type ClassCounts } from './f1.js';

/** By the definition: precision and recall of one class, from all pairs. */
function bruteForce(pairs: readonly (readonly [predicted: number, label: number])[], each: number): number {
  const hits = pairs.filter(([p, l]) => p === each && l === each).length;
  if (hits === 0) return 0;
  const precision = hits / pairs.filter(([p]) => p === each).length;
  const recall = hits / pairs.filter(([, l]) => l === each).length;
  return (2 * precision * recall) / (precision + recall);
}

const pairsOf = fc.array(fc.tuple(fc.integer({ min: -1, max: 4 }), fc.nat(4)), { minLength: 1, maxLength: 30 });

function countsOf(pairs: readonly (readonly [number, number])[], pieces = 3): ClassCounts {
  const counts: ClassCounts = new Map();
  const size = Math.ceil(pairs.length / pieces);
  for (let from = 0; from < pairs.length; from += size) {
    const piece = pairs.slice(from, from + size);
    const column = (k: 0 | 1): Int32Array => Int32Array.from(piece, (pair) => pair[k]);
    countClasses(counts, column(0), column(1));
  }
  return counts;
}

describe('F1', () => {
  it('of a class is the harmonic mean of precision and recall, batch by batch', () => {
    fc.assert(
      fc.property(pairsOf, fc.nat(5), (pairs, each) => {
        expect(f1OfClass(countsOf(pairs), each)).toBeCloseTo(bruteForce(pairs, each), 12);
      }),
    );
  });

  it('macro is its mean over the classes that occur; samples without a class count as wrong', () => {
    fc.assert(
      fc.property(pairsOf, (pairs) => {
        const classes = [...new Set(pairs.flat())].filter((each) => each >= 0);
        const expected = classes.reduce((sum, each) => sum + bruteForce(pairs, each), 0) / classes.length;
        expect(f1Macro(countsOf(pairs))).toBeCloseTo(expected, 12);
      }),
    );
  });
});
