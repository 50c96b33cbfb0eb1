import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { ModelProto } from 'onnx-buf';
import { tinyResNet } from '../testing/tiny-models.js';
import { keepFits, type Fit, type FitName } from './fits.js';

const NAMES: readonly FitName[] = ['refitted', 'normalized', 'aligned'];
const cut = tinyResNet();
const models = NAMES.map(() => tinyResNet());

const divergence = fc.oneof(
  { weight: 3, arbitrary: fc.double({ min: 0, max: 10, noNaN: true }) },
  fc.constantFrom(NaN, Infinity),
);

describe('fits behind a cut', () => {
  it('are kept as far as VAL finds the model nearer with each, and finite answers never given away', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(divergence, { minLength: 4, maxLength: 4 }),
        fc.array(fc.boolean(), { minLength: 3, maxLength: 3 }),
        async ([ofCut, ...ofFits], exist) => {
          const known = new Map([[cut, ofCut!], ...models.map((model, i) => [model, ofFits[i]!] as const)]);
          const starts: ModelProto[] = [];
          const fits = NAMES.map((name, i): Fit => {
            return {
              name,
              make(from) {
                starts.push(from);
                return Promise.resolve(exist[i] ? models[i] : undefined);
              },
            };
          });
          const { model, qualities, quality } = await keepFits(cut, fits, (one) =>
            Promise.resolve({ divergence: known.get(one)! }),
          );
          // Every fit is looked at, whatever came of the ones before it.
          expect(starts).toHaveLength(3);
          const tried = [ofCut!, ...ofFits.filter((_, i) => exist[i])];
          const finite = tried.filter(Number.isFinite);
          expect(quality.divergence).toBe(known.get(model));
          if (finite.length > 0) expect(quality.divergence).toBe(Math.min(...finite));
          else expect(quality.divergence).toBe(tried.at(-1));
          // What is not kept is not told either, so that the last of them is what the model has.
          expect(Object.values(qualities).at(-1)).toEqual(quality);
          expect(qualities.cut).toEqual({ divergence: ofCut });
          // Each starts from what was kept before it.
          const kept = (count: number): ModelProto =>
            NAMES.slice(0, count).reduce((last, name, i) => (qualities[name] ? models[i]! : last), cut);
          expect(starts.map((start, i) => start === kept(i))).toEqual([true, true, true]);
        },
      ),
    );
  });

  it('are none where nothing was fitted', async () => {
    const found = await keepFits(cut, [], () => Promise.resolve({ divergence: 2 }));
    expect(found).toEqual({ model: cut, qualities: { cut: { divergence: 2 } }, quality: { divergence: 2 } });
  });
});
