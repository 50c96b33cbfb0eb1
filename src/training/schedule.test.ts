import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { learningRateAt, observePlateau, PLATEAU_START, SCHEDULES, type ScheduleName } from './schedule.js';

const options = (schedule: ScheduleName, warmup = 0) => ({ schedule, learningRate: 0.4, warmup });
const share = (max = 0.9999): fc.Arbitrary<number> => fc.double({ min: 0, max, noNaN: true });

describe('learningRateAt', () => {
  it('is above 0 and at most the given rate, in every schedule', () => {
    fc.assert(
      fc.property(
        fc.constantFrom(...SCHEDULES),
        share(),
        fc.constantFrom(0, 1e-6, 0.05, 0.3, 0.9),
        (schedule, progress, warmup) => {
          const rate = learningRateAt(progress, options(schedule, warmup));
          expect(rate).toBeGreaterThan(0);
          expect(rate).toBeLessThanOrEqual(0.4);
        },
      ),
    );
  });

  it('rises in a straight line while warming up, to the full rate', () => {
    fc.assert(
      fc.property(
        fc.constantFrom(...SCHEDULES),
        fc.double({ min: 0.01, max: 0.5, noNaN: true }),
        share(),
        (s, w, x) => {
          expect(learningRateAt(w * x, options(s, w))).toBeCloseTo(0.4 * Math.max(x, 1e-3), 9);
        },
      ),
    );
    expect(learningRateAt(0.1, options('cosine', 0.1))).toBeCloseTo(0.4, 12);
  });

  it('constant stays', () => {
    for (const progress of [0, 0.5, 0.999]) expect(learningRateAt(progress, options('constant'))).toBe(0.4);
  });

  it('cosine falls from the rate over its half to almost 0', () => {
    expect(learningRateAt(0, options('cosine'))).toBe(0.4);
    expect(learningRateAt(0.5, options('cosine'))).toBeCloseTo(0.2, 12);
    expect(learningRateAt(0.55, options('cosine', 0.1))).toBeCloseTo(0.2, 12);
    expect(learningRateAt(0.9999, options('cosine', 0.1))).toBeLessThan(1e-7);
    fc.assert(
      fc.property(share(), share(), (a, b) => {
        const [first, second] = [Math.min(a, b), Math.max(a, b)];
        expect(learningRateAt(second, options('cosine'))).toBeLessThanOrEqual(learningRateAt(first, options('cosine')));
      }),
    );
  });

  it('step divides by ten at one half and at three quarters', () => {
    const rates = [0, 0.4999, 0.5, 0.7499, 0.75, 0.999].map((progress) => learningRateAt(progress, options('step')));
    const expected = [0.4, 0.4, 0.04, 0.04, 0.004, 0.004];
    rates.forEach((rate, i) => {
      expect(rate).toBeCloseTo(expected[i]!, 12);
    });
  });
});

describe('observePlateau', () => {
  const factors = (scores: readonly number[]): number[] => {
    let state = PLATEAU_START;
    return scores.map((score) => (state = observePlateau(state, score)).factor);
  };

  it('lowers the rate after every third evaluation without progress', () => {
    const found = factors([1, 2, 2, 1, 1.5, 2, 2, 2, 3, 0, 0, 4, 0, 0, 0]);
    const expected = [1, 1, 1, 1, 0.3, 0.3, 0.3, 0.09, 0.09, 0.09, 0.09, 0.09, 0.09, 0.09, 0.027];
    found.forEach((factor, i) => {
      expect(factor).toBeCloseTo(expected[i]!, 12);
    });
  });

  it('never raises the rate, and keeps the best score', () => {
    fc.assert(
      fc.property(fc.array(fc.double({ min: -1, max: 1, noNaN: true }), { minLength: 1 }), (scores) => {
        const found = factors(scores);
        expect(found.every((factor, i) => factor <= (found[i - 1] ?? 1))).toBe(true);
        expect(scores.reduce(observePlateau, PLATEAU_START).best).toBe(Math.max(...scores));
      }),
    );
  });

  it('is a factor on the rate', () => {
    expect(learningRateAt(0.2, options('plateau'), 0.3)).toBeCloseTo(0.12, 12);
  });
});
