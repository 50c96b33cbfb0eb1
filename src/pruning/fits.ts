/**
 * The fits behind a cut, one after another, each kept only where VAL finds the model nearer to the original with it: few samples of
 * CALIB may mislead those that have much to fit.
 */
import type { ModelProto } from 'onnx-buf';
import type { Quality } from '../recovery/validate.js';

/** In the order in which they are made. */
export type FitName = 'refitted' | 'normalized' | 'aligned';

export interface Fit {
  readonly name: FitName;
  /** @returns undefined where there is nothing to fit */
  readonly make: (model: ModelProto) => Promise<ModelProto | undefined>;
}

/** On VAL, right after the cut and behind each fit that was kept. */
export type FitQualities = { readonly cut: Quality } & Readonly<Partial<Record<FitName, Quality>>>;

export interface Fitted {
  readonly model: ModelProto;
  readonly qualities: FitQualities;
  /** Of that model. */
  readonly quality: Quality;
}

/**
 * Each fit starts from the model that has been kept. One that gives answers which are not finite is never kept in place of one that gives
 * finite ones; behind a model without finite answers every fit is worth going on from.
 * @param qualityOf on VAL
 */
export async function keepFits(
  cut: ModelProto,
  fits: readonly Fit[],
  qualityOf: (model: ModelProto) => Promise<Quality>,
): Promise<Fitted> {
  let [model, quality] = [cut, await qualityOf(cut)];
  const qualities: { cut: Quality } & Partial<Record<FitName, Quality>> = { cut: quality };
  for (const { name, make } of fits) {
    const candidate = await make(model);
    if (!candidate || candidate === model) continue;
    const found = await qualityOf(candidate);
    if (!isNearer(found, quality)) continue;
    [model, quality] = [candidate, found];
    qualities[name] = found;
  }
  return { model, qualities, quality };
}

function isNearer(found: Quality, before: Quality): boolean {
  return !Number.isFinite(before.divergence) || found.divergence < before.divergence;
}
