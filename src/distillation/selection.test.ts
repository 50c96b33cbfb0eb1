import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { mostCapable, probeRounds, profileDistance, ranked, showingScore, worstExcess } from './selection.js';

describe('worstExcess', () => {
  it('names the limit that is exceeded most, and none where all is within', () => {
    const cost = { bytes: 300, macs: 90, ms: 2 };
    expect(worstExcess(cost, {})).toBeUndefined();
    expect(worstExcess(cost, { bytes: 300, macs: 90, ms: 2 })).toBeUndefined();
    expect(worstExcess(cost, { bytes: 200, macs: 30, ms: 1 })).toEqual({ of: 'macs', ratio: 3 });
    expect(worstExcess({ bytes: 300 }, { bytes: 301, macs: 1, ms: 1 })).toBeUndefined();
  });
});

describe('probeRounds', () => {
  it('halves the candidates and doubles the updates', () => {
    // 8 + 2 * 4 + 4 * 2 = 24 units within a quarter of 9600.
    expect(probeRounds(12, 9600)).toEqual([
      { candidates: 8, amount: 100 },
      { candidates: 4, amount: 200 },
      { candidates: 2, amount: 400 },
    ]);
    expect(probeRounds(2, 1000)).toEqual([{ candidates: 2, amount: 50 }]);
    expect(probeRounds(1, 1000)).toEqual([]);
  });

  it('stays within 5 % each and a quarter together, and tries at least two where that is possible', () => {
    fc.assert(
      fc.property(fc.nat(40), fc.nat(3000), (candidates, whole) => {
        const rounds = probeRounds(candidates, whole);
        const spent = rounds.reduce((sum, { candidates: count, amount }) => sum + count * amount, 0);
        expect(spent).toBeLessThanOrEqual(0.25 * whole);
        expect(rounds[0]?.amount ?? 0).toBeLessThanOrEqual(0.05 * whole);
        expect(rounds.length > 0).toBe(candidates > 1 && whole >= 20);
        rounds.forEach((round, i) => {
          expect(round.amount).toBeGreaterThanOrEqual(1);
          if (i > 0) expect(round.candidates).toBe(Math.ceil(rounds[i - 1]!.candidates / 2));
        });
        if (rounds.length > 0) expect(Math.ceil(rounds.at(-1)!.candidates / 2)).toBe(1);
      }),
    );
  });
});

describe('profileDistance', () => {
  const flow = fc.double({ min: 0.01, max: 3, noNaN: true });
  const profile = fc.array(flow, { minLength: 1, maxLength: 9 }).map((flows) => ({
    flows,
    depths: flows.map((_, i) => (flows.length > 1 ? i / (flows.length - 1) : 1)),
  }));

  it('is the symmetric divergence of the shares along the depth', () => {
    // Constant profiles of different length are the same one; a ramp from 1 to 3 is not.
    const flat = { depths: [0, 0.5, 1], flows: [2, 2, 2] };
    expect(profileDistance(flat, { depths: [1], flows: [0.1] })).toBeCloseTo(0, 6);
    const ramp = Array.from({ length: 64 }, (_, g) => 1 + (2 * g) / 63);
    const sum = ramp.reduce((a, b) => a + b, 0);
    const expected = ramp.reduce((d, r) => d + 0.5 * (1 / 64 - r / sum) * Math.log(1 / 64 / (r / sum)), 0);
    expect(profileDistance(flat, { depths: [0, 1], flows: [1, 3] })).toBeCloseTo(expected, 6);
    expect(expected).toBeGreaterThan(0.04);
  });

  it('is symmetric, and 0 for multiples', () => {
    fc.assert(
      fc.property(profile, profile, flow, (a, b, factor) => {
        expect(profileDistance(a, b)).toBeCloseTo(profileDistance(b, a), 9);
        expect(profileDistance(a, b)).toBeGreaterThanOrEqual(0);
        expect(profileDistance(a, { ...a, flows: a.flows.map((d) => factor * d) })).toBeLessThan(1e-4);
      }),
    );
  });
});

describe('scores', () => {
  it('weigh alignment, likeness and quality', () => {
    expect(showingScore({ alignment: 0, cka: 1, quality: 1 })).toBeCloseTo(1, 9);
    expect(showingScore({ alignment: 0.25, cka: 0.5, quality: 0.75 })).toBeCloseTo(0.3 + 0.2 + 0.15, 9);
    expect(showingScore({ alignment: 7, cka: 0, quality: 1.4 })).toBeCloseTo(0.2, 9);
  });

  it('rank the best first, and the cheaper of those that are alike', () => {
    const of = (name: string, score: number, macs: number, bytes = 1) => ({ name, score, cost: { macs, bytes } });
    const all = [
      of('dear', 0.712, 9),
      of('cheap', 0.708, 4),
      of('best', 0.8, 20),
      of('worst', 0.2, 1),
      of('small', 0.71, 4, 0),
    ];
    expect(ranked(all).map(({ name }) => name)).toEqual(['best', 'small', 'cheap', 'dear', 'worst']);
    expect(mostCapable(all, 2).map(({ name }) => name)).toEqual(['best', 'dear']);
  });
});
