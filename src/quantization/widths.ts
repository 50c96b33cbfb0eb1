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
import { codebookCodes, storedBytes, uniformCodes, type StorageFormat } from './format.js';
import { CODEBOOK_WIDTHS } from './codebook.js';
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
  const { rounding, formats } = context.settings;
  const statistics = await gatherStatistics(context, {
    ...{ ranges: true, histograms: true, grams: true },
    ...(extra && { extra }),
  });
  return {
    ...{ context, graph, units: weightUnits(context.layers), grams: statistics.grams },
    rounder: new LayerRounder(graph, statistics.grams, rounding, formats.includes('codebook') ? 1 : 0),
    activations: chooseQuantizers(statistics.ranges, statistics.histograms),
  };
}

/** The widths that every unit may take and what they cost in bytes of codes. */
export type WidthChoice = Omit<AllocationItem<number>, 'damage'>;
/** The same with codebooks. */
export type FormatChoice = Omit<AllocationItem<StorageFormat>, 'damage'>;

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
      choices: widths.filter((b) => b >= floor.bits),
      bits: (bits) => bits,
      floorReason: floor.reason,
      cost: (bits) => storedBytes(layer.params, uniformCodes(bits)),
    };
  });
}

/** The widths of every unit as uniform codes, and in codebooks where these are allowed. */
export function formatChoices(study: WidthStudy, widths: readonly WidthChoice[]): FormatChoice[] {
  const { units, context } = study;
  const inCodebooks = (bits: number): boolean =>
    context.settings.formats.includes('codebook') && CODEBOOK_WIDTHS.includes(bits);
  return widths.map(({ name, floorReason, choices }, i) => {
    const cost = (format: StorageFormat): number => storedBytes(units[i]!.layer.params, format);
    const formats = [...choices.map(uniformCodes), ...choices.filter(inCodebooks).map(codebookCodes)];
    return { name, floorReason, choices: formats.sort((a, b) => cost(a) - cost(b)), bits: ({ bits }) => bits, cost };
  });
}

export function edgeMarks({ context, graph }: Pick<WidthStudy, 'context' | 'graph'>): FloorMarks {
  const names = (values: readonly { readonly name: string }[]): Set<string> => new Set(values.map((v) => v.name));
  return { edges: edgeLayers(context.layers, names(graph.inputs), names(graph.outputs)) };
}

export function bytesOf<Choice>(
  items: readonly Omit<AllocationItem<Choice>, 'damage'>[],
  picked: readonly Choice[],
): number {
  return items.reduce((sum, { cost }, i) => sum + cost(picked[i]!), 0);
}

/**
 * The cheapest choices where the budget does not even reach for these and the smallest outcome will do.
 * @returns undefined where there is something to choose
 */
export function smallestInstead<Choice>(
  items: readonly Omit<AllocationItem<Choice>, 'damage'>[],
  { orSmallest, codeBytes }: CodeBudget,
): Choice[] | undefined {
  const smallest = items.map(({ choices }) => choices[0]!);
  return orSmallest && bytesOf(items, smallest) > codeBytes ? smallest : undefined;
}

/**
 * The choice of every unit that does least damage within the bytes.
 * @param damage by unit @throws FlowCompressError `infeasible` as `allocateBits`
 */
export function leastDamage<Choice>(
  given: readonly Omit<AllocationItem<Choice>, 'damage'>[],
  budget: CodeBudget,
  damage: (unit: number, choice: Choice) => number,
  smoothness = 0,
): Choice[] {
  const items = given.map((item, i) => ({ ...item, damage: (choice: Choice) => damage(i, choice) }));
  return smallestInstead(given, budget) ?? allocateBits(items, { budget: budget.codeBytes, smoothness });
}

/**
 * Rounds every unit to its format.
 * @param findingOf what the report is to say of a unit beside its width
 */
export async function roundedTo(
  { context, graph, units, rounder, grams, activations }: WidthStudy,
  formats: readonly StorageFormat[],
  findingOf: (unit: number) => Partial<LayerFinding>,
): Promise<QuantizationOutcome> {
  const { settings, control } = context;
  const outcome: QuantizationOutcome = { weights: new Map(), activations, findings: [] };
  for (const [i, { layer, readers }] of units.entries()) {
    await pause(control.signal);
    control.onProgress?.({ stage: 'round weights', done: i, total: units.length, detail: layer.name });
    const { bits } = formats[i]!;
    const rounded = rounder.final(layer, formats[i]!);
    const error = rounder.relativeErrorOf(layer, rounded);
    for (const reader of readers) {
      const bias =
        settings.rounding === 'nearest' || bits > COMPENSATED_WIDTHS
          ? undefined
          : correctedBias(graph, reader, rounded, grams.get(reader.name));
      outcome.weights.set(reader.name, { ...rounded, bias });
      outcome.findings.push({
        ...findingOf(i),
        ...{ name: reader.name, bits, sqnrDb: error > 0 ? -10 * Math.log10(error) : undefined },
      });
    }
  }
  control.onProgress?.({ stage: 'round weights', done: units.length, total: units.length });
  return outcome;
}
