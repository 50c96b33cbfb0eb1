import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { allocateBits } from '../allocate.js';
import { packedBytes } from '../pack.js';
import type { WidthChoice } from '../widths.js';
import { searchWidths } from './haq-lite.js';

const choicesFor = (params: readonly number[], widths: readonly number[] = [2, 3, 4, 5, 6, 7, 8]): WidthChoice[] =>
  params.map((n, i) => ({
    name: `layer ${String(i)}`,
    choices: widths,
    bits: (bits) => bits,
    cost: (bits) => packedBytes(n, bits),
  }));

const bytesOf = (choices: readonly WidthChoice[], bits: readonly number[]): number =>
  choices.reduce((sum, { cost }, i) => sum + cost(bits[i]!), 0);

/** e_l 4^-b summed: every layer counts by itself, some a thousand times what others do. */
const damage =
  (sensitivity: readonly number[]) =>
  (bits: readonly number[]): Promise<number> =>
    Promise.resolve(bits.reduce((sum, b, i) => sum + sensitivity[i]! * 4 ** -b, 0));

describe('searchWidths', () => {
  it('keeps to the bytes and the widths, leaves no room for another bit, and is no worse than the even choice', async () => {
    const layer = fc.record({
      params: fc.integer({ min: 8, max: 5000 }),
      weight: fc.double({ min: 0.01, max: 100, noNaN: true }),
    });
    await fc.assert(
      fc.asyncProperty(
        fc.array(layer, { minLength: 1, maxLength: 8 }),
        fc.double({ min: 2.1, max: 8, noNaN: true }),
        async (layers, bits) => {
          const params = layers.map((one) => one.params);
          const choices = choicesFor(params);
          const codeBytes = Math.floor((params.reduce((a, b) => a + b, 0) * bits) / 8) + params.length;
          const judge = damage(layers.map(({ weight }) => weight));
          const tried: number[] = [];
          const found = await searchWidths(
            choices,
            params,
            { codeBytes },
            async (one) => {
              const value = await judge(one);
              tried.push(value);
              return value;
            },
            0,
          );
          expect(bytesOf(choices, found)).toBeLessThanOrEqual(codeBytes);
          for (const [i, b] of found.entries()) {
            expect(choices[i]!.choices).toContain(b);
            if (b < 8) expect(bytesOf(choices, found.with(i, b + 1))).toBeGreaterThan(codeBytes);
          }
          // The even choice is the first.
          expect(await judge(found)).toBe(Math.min(...tried));
          expect(tried.length).toBeLessThanOrEqual(160);
        },
      ),
      { numRuns: 20 },
    );
  });

  it('learns which layers matter: nearer to the optimum than as many draws that learn nothing', async () => {
    const params = new Array<number>(14).fill(400);
    const sensitivity = params.map((_, i) => 10 ** ((i * 5) % 4));
    const judge = damage(sensitivity);
    const choices = choicesFor(params);
    const codeBytes = (14 * 400 * 4) / 8;
    const found = await searchWidths(choices, params, { codeBytes }, judge, 3);
    const items = choices.map((choice, i) => ({ ...choice, damage: (bits: number) => sensitivity[i]! * 4 ** -bits }));
    const least = await judge(allocateBits(items, { budget: codeBytes }));
    expect(await judge(params.map(() => 4))).toBeGreaterThan(5 * least);
    expect(await judge(found)).toBeLessThan(2 * least);
    expect(await searchWidths(choices, params, { codeBytes }, judge, 3)).toEqual(found);
  });

  it('refuses bytes that the lowest widths exceed', async () => {
    await expect(searchWidths(choicesFor([800]), [800], { codeBytes: 100 }, damage([1]), 0)).rejects.toMatchObject({
      code: 'infeasible',
      message: expect.stringContaining('every layer >= 2 bits') as string,
    });
  });
});
