/**
 * FAAQ: per-layer widths from information flow, checked against the measured divergence of the model's outputs, solved
 * under an exact byte budget, then rounded so that errors cancel.
 */
import { Graph } from '../onnx/graph.js';
import { pause } from '../progress.js';
import { chooseQuantizers } from './activation-range.js';
import { allocateBits, type AllocationItem } from './allocate.js';
import { correctedBias } from './bias-correction.js';
import type { DivergenceModel } from './divergence-model.js';
import { edgeLayers, layerFloors, type FloorMarks } from './floors.js';
import type { Gram } from '../flow/gram-probe.js';
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
import { packedBytes } from './pack.js';
import { COMPENSATED_WIDTHS, LayerRounder } from './rounder.js';
import { agreementWith, flowSensitivity, steepLayers, strongLayers, type SensitivityInput } from './sensitivity.js';
import { gatherStatistics } from './statistics.js';
import { weightUnits, type WeightUnit } from './units.js';

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
  const graph = new Graph(context.model);
  const units = weightUnits(context.layers);
  const flow = context.flow();
  const statistics = await gatherStatistics(context, {
    ranges: true,
    histograms: true,
    grams: true,
    extra: flow.probes,
  });
  const flows = flow.result();
  const rounder = new LayerRounder(graph, statistics.grams, settings.rounding);
  // They take as long as several forward passes: only where they may decide.
  const gradients = flowMayDecide(context, units) ? await gradientNorms(context) : undefined;
  const inputs = units.map(({ layer: { name } }) => ({ ...flows.get(name)!, gradient: gradients?.get(name) }));
  const study: Study = {
    context,
    graph,
    units,
    rounder,
    inputs,
    sensitivity: flowSensitivity(inputs, settings),
    ...(await judge(context, units, rounder, inputs)),
    grams: statistics.grams,
    activations: chooseQuantizers(statistics.ranges, statistics.histograms),
  };
  return { quantize: (budget) => quantize(study, budget) };
}

/** Everything about the model that does not depend on the budget. */
interface Study extends Pick<QuantizationOutcome, 'activations' | 'agreement'> {
  readonly context: QuantizationContext;
  readonly graph: Graph;
  readonly units: readonly WeightUnit[];
  readonly rounder: LayerRounder;
  /** Per unit: flow, gradient and weights, and the sensitivity that follows from them. */
  readonly inputs: readonly SensitivityInput[];
  readonly sensitivity: readonly number[];
  readonly measured: ReadonlyMap<string, DivergenceModel>;
  readonly grams: ReadonlyMap<string, Gram>;
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
  const { context, graph, units, rounder, inputs, sensitivity, measured } = study;
  const { settings, control } = context;
  const bits = allocate(study, budget);
  const outcome: QuantizationOutcome = {
    weights: new Map(),
    activations: study.activations,
    findings: [],
    agreement: study.agreement,
  };
  for (const [i, { layer, readers }] of units.entries()) {
    await pause(control.signal);
    control.onProgress?.({ stage: 'round weights', done: i, total: units.length, detail: layer.name });
    const rounded = rounder.final(layer, bits[i]!);
    const error = rounder.relativeErrorOf(layer, rounded);
    for (const { name, ...reader } of readers) {
      const bias =
        settings.rounding === 'nearest' || bits[i]! > COMPENSATED_WIDTHS
          ? undefined
          : correctedBias(graph, { name, ...reader }, rounded, study.grams.get(name));
      outcome.weights.set(name, { ...rounded, bias });
      outcome.findings.push({
        name,
        bits: bits[i]!,
        sensitivity: sensitivity[i]!,
        flow: inputs[i]!.flow,
        gradient: inputs[i]!.gradient,
        divergence: measured.get(layer.name)?.measured,
        sqnrDb: error > 0 ? -10 * Math.log10(error) : undefined,
      });
    }
  }
  control.onProgress?.({ stage: 'round weights', done: units.length, total: units.length });
  return outcome;
}

function allocate(study: Study, budget: CodeBudget): number[] {
  const { context, units, rounder, useFlow, sensitivity, measured } = study;
  const options = { ...context.settings, minBits: budget.minBits ?? context.settings.minBits };
  const floors = layerFloors(
    units.map((u) => u.layer),
    floorMarks(study),
    options,
  );
  const widths = Array.from({ length: options.maxBits - options.minBits + 1 }, (_, i) => options.minBits + i);
  const items = units.map(({ layer }, i): AllocationItem => {
    const floor = floors.get(layer.name)!;
    return {
      name: layer.name,
      widths: widths.filter((b) => b >= floor.bits),
      floorReason: floor.reason,
      cost: (bits) => packedBytes(layer.params, bits),
      damage: useFlow
        ? (bits) => sensitivity[i]! ** 2 * rounder.relativeError(layer, bits)
        : (bits) => measured.get(layer.name)!.at(rounder.relativeError(layer, bits)),
    };
  });
  const smallest = items.map((item) => item.widths[0]!);
  if (budget.orSmallest && items.reduce((sum, item, i) => sum + item.cost(smallest[i]!), 0) > budget.codeBytes)
    return smallest;
  return allocateBits(items, { budget: budget.codeBytes, smoothness: useFlow ? SMOOTHNESS : 0 });
}

/** What was measured needs no rule of thumb: only the edge rule holds without the flow sensitivity. */
function floorMarks({ context, graph, units, inputs, useFlow }: Study): FloorMarks {
  const { layers, attentionLayers: attention, settings } = context;
  const namesOf = (marked: readonly boolean[]): Set<string> =>
    new Set(units.flatMap(({ layer }, i) => (marked[i] ? [layer.name] : [])));
  const byFlow = useFlow ? { attention, steep: namesOf(steepLayers(inputs, settings)) } : {};
  if (useFlow && settings.sensitivityMode === 'reference') return { ...byFlow, strong: namesOf(strongLayers(inputs)) };
  const edges = edgeLayers(layers, new Set(graph.inputs.map((v) => v.name)), new Set(graph.outputs.map((v) => v.name)));
  return { ...byFlow, edges };
}

function evenly<T>(all: readonly T[], count: number): T[] {
  if (all.length <= count) return [...all];
  return Array.from({ length: count }, (_, i) => all[Math.floor((i * (all.length - 1)) / (count - 1))]!);
}
