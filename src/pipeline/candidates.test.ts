import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  fitting,
  goesOn,
  nearest,
  nextCandidate,
  rungBetween,
  type Candidate,
  type CutShare,
  type Tried,
} from './candidates.js';
import { excess, missed, type Figures, type Limits } from './limits.js';

const positive = fc.double({ min: 1e-3, max: 10, noNaN: true });
const anyCandidate: fc.Arbitrary<Candidate> = fc.record({
  rung: fc.nat(4),
  bits: fc.integer({ min: 1, max: 8 }),
  bytes: fc.integer({ min: 1, max: 1000 }),
  timeRatio: fc.option(positive, { nil: undefined }),
  divergence: positive,
  drop: fc.double({ min: -0.1, max: 0.9, noNaN: true }),
});
const anyLimits: fc.Arbitrary<Limits> = fc.record({
  bytes: fc.option(fc.integer({ min: 1, max: 1000 }), { nil: undefined }),
  timeRatio: fc.option(positive, { nil: undefined }),
  drop: fc.option(fc.double({ min: 0.001, max: 0.5, noNaN: true }), { nil: undefined }),
});
const some = fc.array(anyCandidate, { minLength: 1, maxLength: 12 });
const figuresOf = ({ bytes, timeRatio, drop }: Candidate): Figures => ({ bytes, timeRatio, drop });

const candidate = (more: Partial<Candidate>): Candidate => ({
  ...{ rung: 0, bits: 4, bytes: 100, timeRatio: undefined, divergence: 0.1, drop: 0.01, ...more },
});

describe('the first candidate', () => {
  it('keeps to the limits on size and speed whenever any does, and is then the one of least loss', () => {
    fc.assert(
      fc.property(some, anyLimits, fc.boolean(), (candidates, limits, learns) => {
        const chosen = nextCandidate(candidates, limits, learns)!;
        const inside = candidates.filter(
          ({ bytes, timeRatio }) =>
            bytes <= (limits.bytes ?? Infinity) && !((timeRatio ?? 0) > (limits.timeRatio ?? Infinity) * 1.005),
        );
        expect(fitting(candidates, limits)).toEqual(inside);
        const safe = inside.filter((one) => !((one.timeRatio ?? 0) > 0.95 * (limits.timeRatio ?? Infinity) * 1.005));
        const eligible = safe.length > 0 ? safe : inside;
        if (inside.length === 0) {
          expect(chosen).toBe(nearest(candidates, limits));
          const far = (one: Candidate): number => excess(limits, { ...figuresOf(one), drop: undefined });
          expect(far(chosen)).toBe(Math.min(...candidates.map(far)));
          return;
        }
        expect(eligible).toContain(chosen);
        if (limits.bytes !== undefined || limits.drop === undefined)
          expect(chosen.divergence).toBe(Math.min(...eligible.map((one) => one.divergence)));
      }),
    );
  });

  it('is the smallest whose drop there is hope for, where only the drop says how small', () => {
    const candidates = [
      candidate({ bytes: 100, drop: 0.05 }),
      candidate({ bytes: 200, drop: 0.035 }),
      candidate({ bytes: 300, drop: 0.009 }),
      candidate({ bytes: 400, drop: 0 }),
    ];
    const limits = { drop: 0.01 };
    expect(nextCandidate(candidates, limits, true)?.bytes).toBe(200);
    // Nothing brings it back where nothing learns.
    expect(nextCandidate(candidates, limits, false)?.bytes).toBe(300);
  });
});

describe('further candidates', () => {
  const tried = (one: Candidate, figures: Partial<Figures>): Tried => ({
    candidate: one,
    figures: { ...figuresOf(one), ...figures },
  });

  it('are never the same again, and end', () => {
    fc.assert(
      fc.property(some, anyLimits, fc.boolean(), (candidates, limits, learns) => {
        const all: Tried[] = [];
        for (let next; (next = nextCandidate(candidates, limits, learns, all));) {
          expect(all.map((one) => one.candidate)).not.toContain(next);
          all.push(tried(next, { drop: 1 }));
          expect(all.length).toBeLessThanOrEqual(3);
        }
      }),
    );
  });

  it('hope for less with every try where only the drop says how small', () => {
    const candidates = [0.09, 0.036, 0.018, 0.008].map((drop, i) => candidate({ bytes: 100 * (i + 1), drop }));
    const all: Tried[] = [];
    for (let next; (next = nextCandidate(candidates, { drop: 0.01 }, true, all));) all.push(tried(next, { drop: 1 }));
    expect(all.map((one) => one.candidate.bytes)).toEqual([200, 300, 400]);
  });

  it('are faster ones when one turned out too slow', () => {
    const candidates = [
      candidate({ rung: 0, timeRatio: 0.45, divergence: 0.1 }),
      candidate({ rung: 1, timeRatio: 0.45, divergence: 0.2 }),
      candidate({ rung: 2, timeRatio: 0.4, divergence: 0.3 }),
    ];
    const limits = { timeRatio: 0.5 };
    const first = nextCandidate(candidates, limits, true)!;
    expect(first.rung).toBe(0);
    expect(nextCandidate(candidates, limits, true, [tried(first, { timeRatio: 0.6 })])?.rung).toBe(2);
    expect(nextCandidate(candidates, { ...limits, drop: 0.1 }, true, [tried(first, { drop: 1 })])).toBeDefined();
  });
});

describe('the ladder', () => {
  const limits = { bytes: 100 };
  it('is climbed until a candidate fits, and on until the loss is far above the best', () => {
    const large = [candidate({ bytes: 200 })];
    expect(goesOn(large, large, limits, true)).toBe(true);
    const good = [candidate({ rung: 1, divergence: 0.1 })];
    const worse = [candidate({ rung: 2, divergence: 0.19 })];
    const bad = [candidate({ rung: 3, divergence: 0.21 })];
    expect(goesOn([...good, ...worse], worse, limits, true)).toBe(true);
    expect(goesOn([...good, ...worse, ...bad], bad, limits, true)).toBe(false);
  });

  it('is climbed further where the time would be met by a hair', () => {
    const at = (timeRatio: number): [Candidate, Candidate] => [
      candidate({ timeRatio, divergence: 0.1 }),
      candidate({ rung: 1, timeRatio, divergence: 1 }),
    ];
    const [hair, deeper] = at(0.49);
    expect(goesOn([hair, deeper], [deeper], { timeRatio: 0.5 }, true)).toBe(true);
    expect(nextCandidate([hair, deeper], { timeRatio: 0.5 }, true)).toBe(hair);
    expect(nextCandidate([hair, candidate({ timeRatio: 0.4, divergence: 1 })], { timeRatio: 0.5 }, true)).not.toBe(
      hair,
    );
    const [, last] = at(0.47);
    expect(goesOn(at(0.47), [last], { timeRatio: 0.5 }, true)).toBe(false);
  });

  it('ends where no width could keep to the drop', () => {
    const at = (drop: number): Candidate[] => [
      candidate({ divergence: 0.5, drop: 0.9 }),
      candidate({ divergence: 0.1, drop }),
    ];
    expect(goesOn(at(0.039), at(0.039), { drop: 0.01 }, true)).toBe(true);
    expect(goesOn(at(0.041), at(0.041), { drop: 0.01 }, true)).toBe(false);
    expect(goesOn(at(0.011), at(0.011), { drop: 0.01 }, false)).toBe(false);
  });
});

describe('a rung between two others', () => {
  const rungs = [1, 0.8, 0.65, 0.5].map((share, index) => ({ index, share }));
  const losses = (...all: number[]): Candidate[] =>
    all.map((divergence, rung) => candidate({ rung, divergence, bytes: 99 }));
  const between = (candidates: Candidate[], limits: Limits): [number, number] | undefined => {
    const found = rungBetween(rungs, candidates, limits);
    return found && [found.gentler.index, Number(found.share.toFixed(6))];
  };
  const mean = (a: number, b: number): number => Number(Math.sqrt(a * b).toFixed(6));

  it('lies between the best two, if they are neighbours', () => {
    expect(between(losses(9, 0.3, 0.2, 0.35), { bytes: 100 })).toEqual([1, mean(0.8, 0.65)]);
    expect(between(losses(9, 0.5, 0.2, 0.3), { bytes: 100 })).toEqual([2, mean(0.65, 0.5)]);
    // Far worse on both sides: the best is where it is.
    expect(between(losses(9, 0.41, 0.2, 0.41), { bytes: 100 })).toBeUndefined();
  });

  it('lies above the best, if that has bytes or time left that the one before has not', () => {
    const [uncut, gentle, ...rest] = losses(0.01, 0.02, 0.2, 0.3);
    const large = [uncut!, gentle!].map((one) => ({ ...one, bytes: 120 }));
    const small = rest.map((one) => ({ ...one, bytes: 90 }));
    expect(between([...large, ...small], { bytes: 100 })).toEqual([1, mean(0.8, 0.65)]);
    expect(between([...large, ...rest], { bytes: 100 })).toEqual([2, mean(0.65, 0.5)]);
    const at = (times: number[]): Candidate[] =>
      losses(0.01, 0.02, 0.2, 9).map((one, i) => ({ ...one, timeRatio: times[i] }));
    expect(between(at([1, 0.8, 0.4, 0.3]), { timeRatio: 0.5 })).toEqual([1, mean(0.8, 0.65)]);
    expect(between(at([1, 0.8, 0.474, 0.3]), { timeRatio: 0.5 })).toBeUndefined();
  });

  it('is none where nothing fits, the original is best, only the drop counts, or the two are near', () => {
    expect(between(losses(1, 2, 3, 4), { bytes: 50 })).toBeUndefined();
    expect(between(losses(0.1, 1, 1, 1), { bytes: 1000 })).toBeUndefined();
    expect(between(losses(9, 0.3, 0.2, 0.35), { drop: 0.01 })).toBeUndefined();
    const near = [1, 0.95].map((share, index) => ({ index, share }));
    expect(rungBetween(near, losses(0.3, 0.2), { bytes: 100 })).toBeUndefined();
  });

  it('has a share between those of two rungs that follow each other, in any order of making', () => {
    fc.assert(
      fc.property(some, anyLimits, fc.integer({ min: 0, max: 3 }), (candidates, limits, turn) => {
        const all: CutShare[] = [1, 0.7, 0.5, 0.3, 0.2].map((share, index) => ({ index, share }));
        const found = rungBetween(all, candidates, limits);
        expect(rungBetween([...all.slice(turn), ...all.slice(0, turn)], candidates, limits)).toEqual(found);
        if (!found) return;
        const next = all[found.gentler.index + 1]!;
        expect(found.share).toBeLessThan(found.gentler.share);
        expect(found.share).toBeGreaterThan(next.share);
        const best = fitting(candidates, limits).reduce((a, b) => (b.divergence < a.divergence ? b : a));
        if (limits.timeRatio === undefined) expect([found.gentler.index, next.index]).toContain(best.rung);
      }),
    );
  });
});

describe('limits', () => {
  it('that are missed are named, and only these count', () => {
    const limits = { bytes: 100, timeRatio: 0.5, drop: 0.01 };
    expect(missed(limits, { bytes: 101, timeRatio: 0.5, drop: 0.02 })).toEqual(['bytes', 'drop']);
    expect(missed(limits, { bytes: 100, timeRatio: 0.52, drop: undefined })).toEqual(['timeRatio']);
    expect(excess(limits, { bytes: 1, timeRatio: 0.1, drop: -1 })).toBe(0);
    expect(excess(limits, { bytes: 200, timeRatio: 1, drop: 0 })).toBeCloseTo(2 * Math.log(2), 12);
  });
});
