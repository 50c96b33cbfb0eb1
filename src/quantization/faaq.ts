/**
 * FAAQ: per-layer widths from information flow, checked against the measured divergence of the model's outputs, solved
 * under an exact byte budget, then rounded so that errors cancel.
 */
import type { DivergenceModel } from './divergence-model.js';
import type { StorageFormat } from './format.js';
import type { FloorMarks } from './floors.js';
import { gradientNorms } from './gradient-norms.js';
import { openKlProbe } from './kl-probe.js';
import { ANCHOR_WIDTHS, measureDivergence } from './measure-divergence.js';
import type {
  CodeBudget,
  PreparedMethod,
  QuantizationContext,
  QuantizationMethod,
  QuantizationOutcome,
} from './method.js';
import type { LayerRounder } from './rounder.js';
import { agreementWith, flowSensitivity, steepLayers, strongLayers, type SensitivityInput } from './sensitivity.js';
import type { WeightUnit } from './units.js';
import {
  edgeMarks,
  formatChoices,
  leastDamage,
  openWidthStudy,
  roundedTo,
  widthChoices,
  type WidthStudy,
} from './widths.js';

/** Below this agreement with the measurement the flow sensitivity is not trusted. */
const MIN_TAU = 0.3;
/** Weight of the penalty on width jumps between neighbours (only with the flow sensitivity). */
const SMOOTHNESS = 0.1;
/** With `auto`, networks of up to this many layers are measured whole. */
const MEASURE_ALL = 128;
/** Layers that check the flow sensitivity. */
const CHECKED_LAYERS = 16;

export const faaq: QuantizationMethod = {
  name: 'faaq',
  summary: 'per-layer bits by information flow, packed weights',
  activations: 'static',
  prepare,
};

async function prepare(context: QuantizationContext): Promise<PreparedMethod> {
  const { settings } = context;
  const flow = context.flow();
  const opened = await openWidthStudy(context, flow.probes);
  const { units, rounder } = opened;
  const flows = flow.result();
  // They take as long as several forward passes: only where they may decide.
  const gradients = flowMayDecide(context, units) ? await gradientNorms(context) : undefined;
  const inputs = units.map(({ layer: { name } }) => ({ ...flows.get(name)!, gradient: gradients?.get(name) }));
  const study: Study = {
    ...opened,
    inputs,
    sensitivity: flowSensitivity(inputs, settings),
    ...(await judge(context, units, rounder, inputs)),
  };
  return { quantize: (budget) => quantize(study, budget) };
}

/** Everything about the model that does not depend on the budget. */
interface Study extends WidthStudy, Pick<QuantizationOutcome, 'agreement'> {
  /** Per unit: flow, gradient and weights, and the sensitivity that follows from them. */
  readonly inputs: readonly SensitivityInput[];
  readonly sensitivity: readonly number[];
  readonly measured: ReadonlyMap<string, DivergenceModel>;
  readonly useFlow: boolean;
}

function flowMayDecide({ settings }: QuantizationContext, units: readonly WeightUnit[]): boolean {
  const { sensitivity, sensitivityMode } = settings;
  if (sensitivity === 'auto') return sensitivityMode === 'reference' || units.length > MEASURE_ALL;
  return sensitivity === 'flow';
}

/**
 * Measures the divergence of all layers, or of some to check the flow sensitivity against. Where the flow contradicts
 * what was measured, the rest is measured as well and decides, unless the published sensitivity was asked for.
 */
async function judge(
  context: QuantizationContext,
  units: readonly WeightUnit[],
  rounder: LayerRounder,
  inputs: readonly SensitivityInput[],
): Promise<Pick<Study, 'measured' | 'agreement' | 'useFlow'>> {
  const { settings } = context;
  const sampled = flowMayDecide(context, units);
  const first = sampled ? evenly(units, CHECKED_LAYERS) : units;
  const anchors = ANCHOR_WIDTHS.filter((bits) => bits <= settings.maxBits);
  const batch = await context.probeBatch(settings.probeSamples, units.length * anchors.length);
  const probe = await openKlProbe(context.engine, context.model, batch, context.shapes, context.scores);
  const measured = await measureDivergence(first, rounder, probe, anchors, context.control, context.divergences);
  const divergences = units.map((unit) => measured.get(unit.layer.name)?.atLowestWidth);
  const agreement = agreementWith(divergences, inputs, settings);
  if (!sampled) return { measured, agreement, useFlow: false };
  if (agreement === undefined || agreement.kendallTau >= MIN_TAU) return { measured, agreement, useFlow: true };
  const tau = `The flow sensitivity agrees with the measured divergence only to Kendall tau ${agreement.kendallTau.toFixed(2)}`;
  if (settings.sensitivityMode === 'reference') {
    context.warn(`${tau}.`);
    return { measured, agreement, useFlow: true };
  }
  context.warn(`${tau}: widths follow the measurement.`);
  const others = units.filter((u) => !measured.has(u.layer.name));
  const rest = await measureDivergence(others, rounder, probe, anchors, context.control, context.divergences);
  return { measured: new Map([...measured, ...rest]), agreement, useFlow: false };
}

async function quantize(study: Study, budget: CodeBudget): Promise<QuantizationOutcome> {
  const { units, inputs, sensitivity, measured, agreement } = study;
  const outcome = await roundedTo(study, allocate(study, budget), (i) => ({
    ...{ sensitivity: sensitivity[i]!, flow: inputs[i]!.flow, gradient: inputs[i]!.gradient },
    divergence: measured.get(units[i]!.layer.name)?.measured,
  }));
  return { ...outcome, agreement };
}

function allocate(study: Study, budget: CodeBudget): StorageFormat[] {
  const { units, rounder, useFlow, sensitivity, measured } = study;
  const damage = (i: number, format: StorageFormat): number => {
    const { layer } = units[i]!;
    const error = rounder.relativeError(layer, format);
    return useFlow ? sensitivity[i]! ** 2 * error : measured.get(layer.name)!.at(error);
  };
  const choices = formatChoices(study, widthChoices(study, budget, floorMarks(study)));
  return leastDamage(choices, budget, damage, useFlow ? SMOOTHNESS : 0);
}

/** What was measured needs no rule of thumb: only the edge rule holds without the flow sensitivity. */
function floorMarks({ context, graph, units, inputs, useFlow }: Study): FloorMarks {
  const { attentionLayers: attention, settings } = context;
  const namesOf = (marked: readonly boolean[]): Set<string> =>
    new Set(units.flatMap(({ layer }, i) => (marked[i] ? [layer.name] : [])));
  const byFlow = useFlow ? { attention, steep: namesOf(steepLayers(inputs, settings)) } : {};
  if (useFlow && settings.sensitivityMode === 'reference') return { ...byFlow, strong: namesOf(strongLayers(inputs)) };
  return { ...byFlow, ...edgeMarks({ context, graph }) };
}

function evenly<T>(all: readonly T[], count: number): T[] {
  if (all.length <= count) return [...all];
  return Array.from({ length: count }, (_, i) => all[Math.floor((i * (all.length - 1)) / (count - 1))]!);
}
