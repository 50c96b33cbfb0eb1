/** One step of pruning: what is worth least goes, and the rest is fitted in closed form to what the original gives. */
import type { ModelProto } from 'onnx-buf';
import type { ChannelSums } from '../flow/channel-map.js';
import type { Batch } from '../data/dataset.js';
import { FlowCompressError } from '../errors.js';
import { gatherGrams } from '../flow/gather-grams.js';
import type { Gram } from '../flow/gram-probe.js';
import { Graph } from '../onnx/graph.js';
import type { RunControl } from '../progress.js';
import type { Quality } from '../recovery/validate.js';
import type { Engine, Feeds } from '../runtime/engine.js';
import { traceDims, traceShapes, type TracedValues } from '../runtime/trace.js';
import { alignLayers } from './align.js';
import { applyChoice, type Choosable } from './apply-choice.js';
import { removableBranches } from './branches.js';
import { compareCut } from './check-cut.js';
import { costModel, type Cost } from './cost.js';
import { maskedModel } from './cut.js';
import { measureDamage } from './damage.js';
import { keepFits, type Fit, type Fitted } from './fits.js';
import { dependencyGroups, type Dependencies, type DependencyGroup } from './groups.js';
import { keptChannels, layerUnits, type LayerUnits } from './layer-units.js';
import type { StructuredMethod } from './methods.js';
import type { CutModel } from './places.js';
import { planCuts, type PlanGoal } from './plan.js';
import { projectionSums, withMaskedProjections, withProjections } from './project.js';
import { findProjections, type Projection } from './projections.js';
import { gradientScores } from './gradient-scores.js';
import { keptScales } from './norm-scales.js';
import { restoreNormStatistics } from './norm-statistics.js';
import { removalOrders, type Order, type RemovalOrder } from './removal-order.js';
import { pruningScore, readsActivations } from './scores.js';
import { cutRanked, cutUniformly } from './share-out.js';
import { findSites, takenBy, type Choice, type Guards, type LayerUnit, type Site, type Taken } from './sites.js';
import { placesLeft } from './units.js';

/** A model on its way from the original to the pruned one. */
export interface PruningState {
  readonly model: ModelProto;
  /** Dims of every value for one sample (or the rows that the model insists on). */
  readonly shapes: TracedValues;
  /** Output channels of the original that every layer has left, by its name. */
  readonly kept: ReadonlyMap<string, readonly number[]>;
  /** Names of the branches that are gone. */
  readonly gone: readonly string[];
  /** Names of the layers that are projections now, each with those of the original that went with it, in topological order. */
  readonly projected: ReadonlyMap<string, readonly string[]>;
  /** Units that groups had in the original, by {@link groupKey}. */
  readonly firstUnits: ReadonlyMap<string, number>;
}

export interface StepRequest {
  readonly engine: Engine;
  readonly original: PruningState;
  readonly state: PruningState;
  readonly method: StructuredMethod;
  readonly guards: Guards;
  /** What may be taken. */
  readonly allowed: { readonly filters: boolean; readonly layers: boolean };
  /** What the model may cost; methods that measure cuts can be asked where on the way to stop. */
  readonly goal: PlanGoal;
  readonly costOf: (cost: Cost) => number;
  /** What cuts are priced by, where that is another cost; undefined for a model whose cost is not known. */
  readonly worthOf?: ((cost: Cost) => number | undefined) | undefined;
  /** Channels that convolution kernels of the machine compute at a time. */
  readonly block: number;
  /** Whether what scores lowest goes first, or highest. */
  readonly order: Order;
  /** Of the original, by layer name and channel; for the score of normalization scales. */
  readonly normScales?: ReadonlyMap<string, Float64Array> | undefined;
  /** Name of the output with one score per class, if the model has one. */
  readonly scores: string | undefined;
  readonly seed: number;
  /** Feeds of a few real samples. */
  readonly feedsFor: (rows: number) => Feeds;
  /** Rows that the model insists on. */
  readonly fixedBatch: number | undefined;
  /** A fresh pass over CALIB. */
  readonly batches: (wide: boolean) => AsyncIterable<Batch>;
  /** The first samples of CALIB in batches of so many rows, for scores from gradients. */
  readonly gradientBatches: (samples: number, rows: number) => AsyncIterable<Batch>;
  readonly samples: number;
  /** Of a model's outputs from the original's, on a few samples of CALIB: what single cuts do. */
  readonly divergenceOf: (model: ModelProto) => Promise<number>;
  /** On VAL: which fits are kept. */
  readonly qualityOf: (model: ModelProto) => Promise<Quality>;
}

export interface Step extends Pick<Fitted, 'qualities' | 'quality'> {
  readonly state: PruningState;
  readonly units: number;
  /** Branches that went, projections that came. */
  readonly layers: readonly RemovedLayers[];
  readonly cost: Cost;
  /** Of the cut model from the original with zeros, relative. */
  readonly difference: number;
}

export interface RemovedLayers {
  readonly unit: LayerUnit;
  /** What it costs in answers to do this alone. */
  readonly divergence?: number;
}

/** The state of a model of which nothing has gone. */
export async function startState(
  engine: Engine,
  model: ModelProto,
  feedsFor: (rows: number) => Feeds,
  fixedBatch: number | undefined,
): Promise<PruningState> {
  const shapes = await traceShapes(engine, model, feedsFor(fixedBatch ?? 1));
  const dependencies = await dependenciesOf(engine, model, feedsFor, fixedBatch);
  const layers = layerUnits(new Graph(model), dependencies);
  return {
    ...{ model, shapes, gone: [], projected: new Map() },
    kept: keptChannels(layers, new Uint8Array(dependencies.units.classOf.length)),
    firstUnits: new Map(dependencies.groups.map((group) => [groupKey(group), group.units.length])),
  };
}

/** Two rows: an axis of length 1 could be confused with others. */
export async function dependenciesOf(
  engine: Engine,
  model: ModelProto,
  feedsFor: (rows: number) => Feeds,
  fixedBatch: number | undefined,
): Promise<Dependencies> {
  return dependencyGroups(model, await traceDims(engine, model, feedsFor(fixedBatch ?? 2)));
}

export function groupKey({ kind, layers, members }: DependencyGroup): string {
  return `${kind} ${layers.join(' ') || members.map(({ initializer }) => initializer).join(' ')}`;
}

/**
 * @returns undefined when nothing can be removed
 * @throws FlowCompressError as `gradientScores`, before anything is cut; `unsupported` where costs cannot be counted; `internal` when the cut model does not compute what the
 *   original computes with zeros; `aborted`
 */
export async function pruneStep(request: StepRequest, control: RunControl = {}): Promise<Step | undefined> {
  const { engine, state, method, feedsFor, fixedBatch, samples } = request;
  const { model, shapes } = state;
  const graph = new Graph(model);
  const dependencies = await dependenciesOf(engine, model, feedsFor, fixedBatch);
  const layers = layerUnits(graph, dependencies);
  const measured = await measuredScores(request, graph, dependencies, layers, control);
  const probed = { engine, model, shapes, samples, batches: request.batches, layers: layers.map(({ layer }) => layer) };
  const grams =
    method.fit || readsActivations(pruningScore(method.score))
      ? await gatherGrams(probed, control)
      : new Map<string, Gram>();
  const wanted = method.sharing === 'measured' && method.layers && request.allowed.layers;
  const sums = wanted ? await sumsOf(request, graph, control) : new Map<Projection, ChannelSums>();
  const units = [...removableBranches(graph, shapes), ...sums.keys()];
  const chosen = await chooseCuts(request, { dependencies, layers, grams, graph, units, sums, measured }, control);
  if (!chosen || (chosen.choice.widths.size === 0 && chosen.choice.layers.size === 0)) return undefined;
  const { choice, base, damages } = chosen;
  const applied = applyChoice({ ...base, grams: method.fit ? grams : new Map() }, choice);
  const { removed, gone, added } = takenBy(choice, base.sites, dependencies.units.classOf.length);
  const difference =
    applied.cut === model
      ? 0
      : await compareCut(
          engine,
          withMaskedProjections(maskedModel(model, applied.selection), applied.projections),
          withProjections(applied.cut, applied.projections),
          feedsFor(fixedBatch ?? CHECKED_ROWS),
        );
  const left = keptChannels(layers, removed);
  const kept = new Map(
    [...state.kept].map(([name, rows]) => [name, left.get(name)?.map((place) => rows[place]!) ?? rows]),
  );
  const next: PruningState = {
    model: applied.plain,
    shapes: await traceShapes(engine, applied.plain, feedsFor(fixedBatch ?? 1)),
    ...{ kept, firstUnits: state.firstUnits, projected: projectedBy(added, state.projected) },
    gone: [
      ...state.gone,
      ...units.flatMap(({ kind, name }) => (kind === 'branch' && choice.layers.has(name) ? [name] : [])),
    ],
  };
  const fits: Fit[] = [
    { name: 'refitted', make: () => Promise.resolve(applied.model) },
    {
      name: 'normalized',
      make: (from) => withStatistics(request, { ...next, model: from }, dependencies, removed, control),
    },
    { name: 'aligned', make: (from) => align(request, { ...next, model: from }, control) },
  ];
  const fitted = await keepFits(applied.plain, method.fit ? fits : [], request.qualityOf);
  return {
    state: { ...next, model: fitted.model },
    ...{ qualities: fitted.qualities, quality: fitted.quality },
    units: removed.reduce((sum, one) => sum + one, 0),
    layers: units
      .filter(({ name }) => choice.layers.has(name))
      .map((unit) => ({ unit, ...(damages.has(unit.name) && { divergence: damages.get(unit.name)! }) })),
    cost: costModel(graph, shapes, dependencies, fixedBatch ?? 1)(removed, gone, added),
    difference,
  };
}

/**
 * What would go, and what would be left to pay for, of a method that measures nothing: neither gradients nor activations nor cuts.
 * @returns undefined when nothing can be removed
 */
export async function plannedChoice(
  request: StepRequest,
  control: RunControl = {},
): Promise<{ choice: Choice; dependencies: Dependencies; cost: Cost } | undefined> {
  const { engine, state, feedsFor, fixedBatch } = request;
  const graph = new Graph(state.model);
  const dependencies = await dependenciesOf(engine, state.model, feedsFor, fixedBatch);
  const layers = layerUnits(graph, dependencies);
  const findings = { dependencies, layers, graph, measured: undefined };
  const nothing = { grams: new Map<string, Gram>(), units: [], sums: new Map<Projection, ChannelSums>() };
  const chosen = await chooseCuts(request, { ...findings, ...nothing }, control);
  if (!chosen) return undefined;
  const { removed, gone } = takenBy(chosen.choice, chosen.base.sites, dependencies.units.classOf.length);
  const cost = costModel(graph, state.shapes, dependencies, fixedBatch ?? 1)(removed, gone);
  return { choice: chosen.choice, dependencies, cost };
}

/**
 * What would be left to pay for at least if all went that may go: told from shapes alone. Projections are for free here, as which of them
 * exclude one another is not looked at.
 * @returns undefined when nothing can be removed
 */
export async function leastCost(
  request: Pick<StepRequest, 'engine' | 'state' | 'method' | 'guards' | 'allowed' | 'feedsFor' | 'fixedBatch'>,
): Promise<Cost | undefined> {
  const { engine, state, feedsFor, fixedBatch } = request;
  const graph = new Graph(state.model);
  const dependencies = await dependenciesOf(engine, state.model, feedsFor, fixedBatch);
  const orders = dependencies.groups.map(({ units }) => ({ units: [...units] }));
  const sites = sitesOf(request, dependencies, orders, layerUnitsIn(graph, state.shapes, fixedBatch));
  if (sites.length === 0) return undefined;
  const all: Choice = {
    widths: new Map(sites.flatMap((site) => (site.kind === 'width' ? [[site.group, site.widths.at(-1)!]] : []))),
    layers: new Set(sites.flatMap((site) => (site.kind === 'layers' ? [site.unit.name] : []))),
  };
  const { removed, gone } = takenBy(all, sites, dependencies.units.classOf.length);
  return costModel(graph, state.shapes, dependencies, fixedBatch ?? 1)(removed, gone);
}

function sitesOf(
  { state, method, guards, allowed }: Pick<StepRequest, 'state' | 'method' | 'guards' | 'allowed'>,
  dependencies: Dependencies,
  orders: readonly (RemovalOrder | undefined)[],
  layers: readonly LayerUnit[],
): Site[] {
  const firstUnits = dependencies.groups.map((group) => state.firstUnits.get(groupKey(group)) ?? group.units.length);
  return findSites(dependencies, orders, firstUnits, layers, guards, {
    filters: allowed.filters,
    layers: allowed.layers && method.layers,
  });
}

/** Everything that the layer stage may take. */
export function layerUnitsIn(graph: Graph, shapes: TracedValues, fixedBatch: number | undefined): LayerUnit[] {
  return [...removableBranches(graph, shapes), ...findProjections(graph, shapes, fixedBatch ?? 1).projections];
}

/** The projections that CALIB has enough samples for. */
async function sumsOf(
  { engine, state: { model, shapes }, batches, samples, fixedBatch }: StepRequest,
  graph: Graph,
  control: RunControl,
): Promise<Map<Projection, ChannelSums>> {
  const { projections } = findProjections(graph, shapes, fixedBatch ?? 1);
  const request = { engine, model, shapes, samples, batches: () => batches(false) };
  const found = await projectionSums(request, projections, control);
  return new Map(projections.flatMap((one) => (found.has(one.name) ? [[one, found.get(one.name)!] as const] : [])));
}

/** What stands for what, once these have been put in: one that takes the place of another takes over what that stood for. */
function projectedBy(added: readonly Projection[], before: PruningState['projected']): Map<string, readonly string[]> {
  const all = new Map(before);
  for (const { layer, layers } of added) {
    const inner = [...layers, layer].flatMap((name) => [...(before.get(name) ?? []), name]);
    for (const name of inner) all.delete(name);
    all.set(layer, inner.slice(0, -1));
  }
  return all;
}

/** Samples on which the cut model is held against the original with zeros. */
const CHECKED_ROWS = 2;

interface Findings {
  readonly dependencies: Dependencies;
  readonly layers: readonly LayerUnits[];
  readonly grams: ReadonlyMap<string, Gram>;
  readonly graph: Graph;
  readonly units: readonly LayerUnit[];
  readonly sums: ReadonlyMap<Projection, ChannelSums>;
  readonly measured: Float64Array | undefined;
}

/** By class, where the score takes gradients. */
async function measuredScores(
  { engine, state, method, scores, fixedBatch, samples, seed, gradientBatches }: StepRequest,
  graph: Graph,
  dependencies: Dependencies,
  layers: readonly LayerUnits[],
  control: RunControl,
): Promise<Float64Array | undefined> {
  const score = pruningScore(method.score);
  if (score.kind !== 'gradients') return undefined;
  const source = { engine, shapes: state.shapes, scores, fixedBatch, seed, batches: gradientBatches };
  const { length } = dependencies.units.classOf;
  return gradientScores(graph, layers, length, score, { ...source, available: samples, wanted: samples }, control);
}

async function chooseCuts(
  request: StepRequest,
  { dependencies, layers, grams, graph, units, sums, measured }: Findings,
  control: RunControl,
): Promise<{ choice: Choice; base: Choosable; damages: Map<string, number> } | undefined> {
  const { state, method, goal, costOf, seed, fixedBatch, divergenceOf, block } = request;
  const normScales = request.normScales && keptScales(request.normScales, state.kept);
  const orders = removalOrders({
    ...{ graph, dependencies, layers, grams, score: method.score, order: request.order, seed },
    ...{ normScales, measured },
  });
  const sites = sitesOf(request, dependencies, orders, units);
  if (sites.length === 0) return undefined;
  const total = costModel(graph, state.shapes, dependencies, fixedBatch ?? 1, block);
  const totalOf = ({ removed, gone, added }: Taken): Cost => total(removed, gone, added);
  const cost = (taken: Taken): number => costOf(totalOf(taken));
  const byName = new Map([...sums].map(([{ name }, own]) => [name, own]));
  const base = { model: state.model, dependencies, layers, grams, sites, sums: byName };
  const classes = dependencies.units.classOf.length;
  if (method.sharing !== 'measured') {
    if (typeof goal !== 'number')
      throw new FlowCompressError('internal', `Method ${method.name} measures no cuts that a goal could follow from.`);
    const shared = { sites, orders, classes, goal, costOf: cost };
    return {
      choice: method.sharing === 'ranked' ? cutRanked(shared) : cutUniformly(shared),
      ...{ base, damages: new Map() },
    };
  }
  const damages = await measureDamage(base, divergenceOf, control);
  const worthOf = request.worthOf && ((taken: Taken): number => request.worthOf!(totalOf(taken)) ?? cost(taken));
  const { choice } = planCuts({ dependencies, sites, damages, costOf: cost, goal, ...(worthOf && { worthOf }) });
  return {
    choice,
    base,
    damages: new Map(damages.flatMap(({ site, of }) => (site.kind === 'layers' ? [[site.unit.name, of(0)]] : []))),
  };
}

/** With new statistics of the normalizations in the graph; undefined where there are none. */
function withStatistics(
  { engine, state, batches, samples }: StepRequest,
  next: PruningState,
  { units }: Dependencies,
  removed: Uint8Array,
  control: RunControl,
): Promise<ModelProto | undefined> {
  return restoreNormStatistics(
    {
      ...{ engine, original: state.model, originalShapes: state.shapes, model: next.model, shapes: next.shapes },
      ...{ batches: () => batches(false), samples },
      keptOf(scale) {
        const axis = units.axes.get(scale)?.[0];
        return axis && placesLeft(axis, units, removed);
      },
    },
    control,
  );
}

async function align(
  { engine, original, batches, samples }: StepRequest,
  state: PruningState,
  control: RunControl,
): Promise<ModelProto> {
  const { model } = await alignLayers(
    {
      ...{ ...cutModel(original, state), engine, originalShapes: original.shapes, shapes: state.shapes },
      ...{ samples, batches: () => batches(true) },
    },
    control,
  );
  return model;
}

/** A state beside the original that it was cut from. */
export function cutModel(original: PruningState, { model, kept, gone: names }: PruningState): CutModel {
  const branches = removableBranches(new Graph(original.model), original.shapes);
  return { original: original.model, model, kept, gone: branches.filter(({ name }) => names.includes(name)) };
}
