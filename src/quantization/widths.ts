/**
 * What methods with a width per layer have in common, so that only their choice of widths differs: floors and exact bytes before
 * the choice, ranges and rounding behind it.
 */
import type { Gram } from '../flow/gram-probe.js';
import { Graph } from '../onnx/graph.js';
import { pause } from '../progress.js';
import { chooseQuantizers } from './activation-range.js';
import { allocateBits, type AllocationItem } from './allocate.js';
import { correctedBias } from './bias-correction.js';
import { edgeLayers, layerFloors, type FloorMarks } from './floors.js';
import type { CodeBudget, LayerFinding, QuantizationContext, QuantizationOutcome } from './method.js';
import { packedBytes } from './pack.js';
import { COMPENSATED_WIDTHS, LayerRounder } from './rounder.js';
import { gatherStatistics, type StatisticsRequest } from './statistics.js';
import { weightUnits, type WeightUnit } from './units.js';

/** A model with what was seen of it on CALIB. */
export interface WidthStudy {
  readonly context: QuantizationContext;
  readonly graph: Graph;
  readonly units: readonly WeightUnit[];
  /** In the rounding of the settings. */
  readonly rounder: LayerRounder;
  /** By layer name. */
  readonly grams: ReadonlyMap<string, Gram>;
  readonly activations: QuantizationOutcome['activations'];
}

/** One pass over CALIB. @param extra probes that ride on it. Errors as `runProbes` */
export async function openWidthStudy(
  context: QuantizationContext,
  extra?: StatisticsRequest['extra'],
): Promise<WidthStudy> {
  const graph = new Graph(context.model);
  const statistics = await gatherStatistics(context, {
    ...{ ranges: true, histograms: true, grams: true },
    ...(extra && { extra }),
  });
  return {
    ...{ context, graph, units: weightUnits(context.layers), grams: statistics.grams },
    rounder: new LayerRounder(graph, statistics.grams, context.settings.rounding),
    activations: chooseQuantizers(statistics.ranges, statistics.histograms),
  };
}

/** The widths that every unit may take and what they cost in bytes of codes. */
export type WidthChoice = Omit<AllocationItem, 'damage'>;

/** @param marks what has a floor of its own; first and last layers when absent */
export function widthChoices(
  { context, graph, units }: WidthStudy,
  budget: CodeBudget,
  marks: FloorMarks = edgeMarks({ context, graph }),
): WidthChoice[] {
  const options = { ...context.settings, minBits: budget.minBits ?? context.settings.minBits };
  const floors = layerFloors(
    units.map((u) => u.layer),
    marks,
    options,
  );
  const widths = Array.from({ length: options.maxBits - options.minBits + 1 }, (_, i) => options.minBits + i);
  return units.map(({ layer }) => {
    const floor = floors.get(layer.name)!;
    return {
      name: layer.name,
      widths: widths.filter((b) => b >= floor.bits),
      floorReason: floor.reason,
      cost: (bits) => packedBytes(layer.params, bits),
    };
  });
}

export function edgeMarks({ context, graph }: Pick<WidthStudy, 'context' | 'graph'>): FloorMarks {
  const names = (values: readonly { readonly name: string }[]): Set<string> => new Set(values.map((v) => v.name));
  return { edges: edgeLayers(context.layers, names(graph.inputs), names(graph.outputs)) };
}

export function bytesOf(choices: readonly WidthChoice[], bits: readonly number[]): number {
  return choices.reduce((sum, { cost }, i) => sum + cost(bits[i]!), 0);
}

/**
 * The lowest widths where the budget does not even reach for these and the smallest outcome will do.
 * @returns undefined where there is something to choose
 */
export function smallestInstead(
  choices: readonly WidthChoice[],
  { orSmallest, codeBytes }: CodeBudget,
): number[] | undefined {
  const smallest = choices.map(({ widths }) => widths[0]!);
  return orSmallest && bytesOf(choices, smallest) > codeBytes ? smallest : undefined;
}

/**
 * The width of every unit that does least damage within the bytes.
 * @param damage by unit @throws FlowCompressError `infeasible` as `allocateBits`
 */
export function leastDamage(
  choices: readonly WidthChoice[],
  budget: CodeBudget,
  damage: (unit: number, bits: number) => number,
  smoothness = 0,
): number[] {
  const items = choices.map((choice, i): AllocationItem => ({ ...choice, damage: (bits) => damage(i, bits) }));
  return smallestInstead(choices, budget) ?? allocateBits(items, { budget: budget.codeBytes, smoothness });
}

/**
 * Rounds every unit to its width.
 * @param findingOf what the report is to say of a unit beside its width
 */
export async function roundedTo(
  { context, graph, units, rounder, grams, activations }: WidthStudy,
  bits: readonly number[],
  findingOf: (unit: number) => Partial<LayerFinding>,
): Promise<QuantizationOutcome> {
  const { settings, control } = context;
  const outcome: QuantizationOutcome = { weights: new Map(), activations, findings: [] };
  for (const [i, { layer, readers }] of units.entries()) {
    await pause(control.signal);
    control.onProgress?.({ stage: 'round weights', done: i, total: units.length, detail: layer.name });
    const rounded = rounder.final(layer, bits[i]!);
    const error = rounder.relativeErrorOf(layer, rounded);
    for (const reader of readers) {
      const bias =
        settings.rounding === 'nearest' || bits[i]! > COMPENSATED_WIDTHS
          ? undefined
          : correctedBias(graph, reader, rounded, grams.get(reader.name));
      outcome.weights.set(reader.name, { ...rounded, bias });
      outcome.findings.push({
        ...findingOf(i),
        ...{ name: reader.name, bits: bits[i]!, sqnrDb: error > 0 ? -10 * Math.log10(error) : undefined },
      });
    }
  }
  control.onProgress?.({ stage: 'round weights', done: units.length, total: units.length });
  return outcome;
}
