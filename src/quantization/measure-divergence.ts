/** Rounds layers at a few widths and measures what each of them alone does to the model's outputs. */
import { fromMatrix } from '../onnx/layers.js';
import type { RunControl } from '../progress.js';
import { DivergenceModel } from './divergence-model.js';
import type { KlProbe } from './kl-probe.js';
import { dequantize } from './round-layer.js';
import type { LayerRounder } from './rounder.js';
import type { WeightUnit } from './units.js';

/** Widths at which layers are measured by default: low enough to be seen in the outputs. */
export const ANCHOR_WIDTHS: readonly number[] = [2, 4];

/** @returns by layer name */
export async function measureDivergence(
  units: readonly WeightUnit[],
  rounder: LayerRounder,
  probe: KlProbe,
  widths: readonly number[],
  control: RunControl,
): Promise<Map<string, DivergenceModel>> {
  const models = new Map<string, DivergenceModel>();
  for (const layers of probe.groups(units.map((unit) => unit.layer))) {
    const [first] = layers;
    control.onProgress?.({ stage: 'measure divergence', done: models.size, total: units.length, detail: first?.name });
    const candidates = layers.map((layer) => widths.map((bits) => rounder.quick(layer, bits)));
    const requests = layers.map((layer, l) => ({
      layer,
      variants: candidates[l]!.map((rounded) => fromMatrix(layer, dequantize(layer, rounded))),
    }));
    const divergences = await probe.measure(requests, control.signal);
    layers.forEach((layer, l) => {
      const points = widths.map((bits, w) => ({
        bits,
        error: rounder.relativeErrorOf(layer, candidates[l]![w]!),
        divergence: divergences[l]![w]!,
      }));
      models.set(layer.name, new DivergenceModel(points));
    });
  }
  control.onProgress?.({ stage: 'measure divergence', done: units.length, total: units.length });
  return models;
}
