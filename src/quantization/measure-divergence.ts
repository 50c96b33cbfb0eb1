/** Rounds layers at a few widths and measures what each of them alone does to the model's outputs. */
import { fromMatrix } from '../onnx/layers.js';
import type { RunControl } from '../progress.js';
import { DivergenceModel, type DivergencePoint } from './divergence-model.js';
import { uniformCodes } from './format.js';
import type { KlProbe } from './kl-probe.js';
import { dequantize } from './round-layer.js';
import type { LayerRounder } from './rounder.js';
import type { WeightUnit } from './units.js';

/** Widths at which layers are measured by default: low enough to be seen in the outputs. */
export const ANCHOR_WIDTHS: readonly number[] = [2, 4];

/** What an earlier run measured, by layer name, and where new measurements are kept. */
export interface DivergenceRecord {
  readonly known: ReadonlyMap<string, readonly DivergencePoint[]>;
  readonly keep: (measured: ReadonlyMap<string, readonly DivergencePoint[]>) => Promise<void>;
}

/**
 * @param record groups of layers that it knows at these widths are not measured again
 * @returns by layer name
 */
export async function measureDivergence(
  units: readonly WeightUnit[],
  rounder: LayerRounder,
  probe: KlProbe,
  widths: readonly number[],
  control: RunControl,
  record?: DivergenceRecord,
): Promise<Map<string, DivergenceModel>> {
  const models = new Map<string, DivergenceModel>();
  const isKnown = (points: readonly DivergencePoint[] | undefined): points is readonly DivergencePoint[] =>
    points?.length === widths.length && points.every(({ bits }, w) => bits === widths[w]);
  for (const layers of probe.groups(units.map((unit) => unit.layer))) {
    // Whole groups, so that a resumed run forms the same ones: the last digits depend on them.
    const known = layers.map((layer) => record?.known.get(layer.name));
    if (known.every(isKnown)) {
      layers.forEach((layer, l) => models.set(layer.name, new DivergenceModel(known[l]!)));
      continue;
    }
    const [first] = layers;
    control.onProgress?.({ stage: 'measure divergence', done: models.size, total: units.length, detail: first?.name });
    const candidates = layers.map((layer) => widths.map((bits) => rounder.quick(layer, uniformCodes(bits))));
    const requests = layers.map((layer, l) => ({
      layer,
      variants: candidates[l]!.map((rounded) => fromMatrix(layer, dequantize(layer, rounded))),
    }));
    const divergences = await probe.measure(requests, control.signal);
    const measured = new Map<string, readonly DivergencePoint[]>();
    layers.forEach((layer, l) => {
      const points = widths.map((bits, w) => ({
        bits,
        error: rounder.relativeErrorOf(layer, candidates[l]![w]!),
        divergence: divergences[l]![w]!,
      }));
      measured.set(layer.name, points);
      models.set(layer.name, new DivergenceModel(points));
    });
    await record?.keep(measured);
  }
  control.onProgress?.({ stage: 'measure divergence', done: units.length, total: units.length });
  return models;
}
