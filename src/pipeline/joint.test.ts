import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { jointCost, type RoundedPoint } from './joint.js';

/** A file of `beside` bytes and 1000 weights, whose rounding to b bits harms by harm(b). */
const roundedBy = (harm: (bits: number) => number, beside = 50): RoundedPoint[] =>
  [1, 2, 3, 4, 6, 8].map((bits) => ({ bits, bytes: beside + 125 * bits, divergence: harm(bits) }));
const steps = [1000, 900, 780, 640, 500, 380, 250, 120];
const cutBy = (harms: readonly number[]) => steps.map((cost, i) => ({ cost, damage: harms[i]! }));

describe('the cost at which cuts stop', () => {
  it('is that of least harm together, for bits that fall off exponentially', () => {
    fc.assert(
      fc.property(
        fc.array(fc.double({ min: 0, max: 0.5, noNaN: true }), { minLength: 7, maxLength: 7 }),
        fc.double({ min: 0.1, max: 3, noNaN: true }),
        fc.integer({ min: 200, max: 1100 }),
        (more, rate, bytes) => {
          const harms = more.reduce<number[]>((sum, one) => [...sum, sum.at(-1)! + one], [0]);
          const harm = (bits: number): number => Math.exp(-rate * Math.min(bits, 8));
          // The logarithm of this harm is a straight line, so that what lies between the widths is known, too.
          const losses = steps.map((cost, i) => {
            const bits = (8 * (bytes - 50)) / cost;
            return bits < 1 ? Infinity : harms[i]! + harm(bits);
          });
          const stopped = jointCost(cutBy(harms), roundedBy(harm), bytes);
          expect(losses[steps.indexOf(stopped)]).toBeLessThanOrEqual(Math.min(...losses) * (1 + 1e-9));
        },
      ),
    );
  });

  it('is the whole where cuts do harm and bits do not, the least where cuts are free', () => {
    const free = cutBy(steps.map(() => 0));
    const dear = cutBy(steps.map((_, i) => i));
    expect(
      jointCost(
        dear,
        roundedBy(() => 0.01),
        500,
      ),
    ).toBe(1000);
    expect(
      jointCost(
        free,
        roundedBy((bits) => 2 ** -bits),
        180,
      ),
    ).toBe(120);
  });

  it('is the least of all where nothing else leaves the bits that there are at least', () => {
    const dear = cutBy(steps.map((_, i) => i));
    // 60 bytes of codes are one bit for 480 weights.
    expect(
      jointCost(
        dear,
        roundedBy((bits) => 2 ** -bits),
        110,
      ),
    ).toBe(380);
    expect(
      jointCost(
        dear,
        roundedBy((bits) => 2 ** -bits),
        55,
      ),
    ).toBe(120);
  });
});
