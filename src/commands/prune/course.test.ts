import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { tinyResNet } from '../../testing/tiny-models.js';
import type { PruningState } from '../../pruning/step.js';
import { judged } from './course.js';

describe('fits behind a cut', () => {
  it('are kept as far as VAL finds the model nearer with each', async () => {
    const [cut, refitted, normalized, aligned] = [tinyResNet(), tinyResNet(), tinyResNet(), tinyResNet()];
    const divergence = fc.double({ min: 0, max: 10, noNaN: true });
    await fc.assert(
      fc.asyncProperty(divergence, divergence, divergence, divergence, fc.boolean(), async (...drawn) => {
        const [ofCut, ofRefitted, ofNormalized, ofAligned, hasNorms] = drawn;
        const divergences = new Map([
          [cut, ofCut],
          [refitted, ofRefitted],
          [normalized, ofNormalized],
          [aligned, ofAligned],
        ]);
        const before = { kept: new Map(), model: aligned } as unknown as PruningState;
        const { qualities, state } = await judged(
          { qualityOf: (model) => Promise.resolve({ divergence: divergences.get(model)! }) },
          { cut, refitted, normalized: hasNorms ? normalized : undefined, state: before },
        );
        const fits = [refitted, ...(hasNorms ? [normalized] : []), aligned];
        expect(divergences.get(state.model)).toBe(Math.min(...fits.map((model) => divergences.get(model)!)));
        expect({ ...state, model: undefined }).toEqual({ ...before, model: undefined });
        // What is not kept is not told either, so that the last of them is what the model has.
        const told = [qualities.refitted, qualities.normalized, qualities.aligned].filter((quality) => quality);
        expect(told.at(-1)).toEqual({ divergence: divergences.get(state.model) });
        expect(qualities.cut).toEqual({ divergence: ofCut });
      }),
    );
  });

  it('are none where nothing was fitted', async () => {
    const model = tinyResNet();
    const state = { model } as unknown as PruningState;
    const found = await judged(
      { qualityOf: () => Promise.resolve({ divergence: 2 }) },
      { cut: undefined, refitted: undefined, normalized: undefined, state },
    );
    expect(found).toEqual({ qualities: { cut: { divergence: 2 } }, state });
  });
});
