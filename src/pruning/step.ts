/** One step of pruning: what is worth least goes, and the rest is fitted in closed form to what the original gives. */
import type { ModelProto } from 'onnx-buf';
import type { Batch } from '../data/dataset.js';
import { FlowCompressError } from '../errors.js';
import { gatherGrams } from '../flow/gather-grams.js';
import type { Gram } from '../flow/gram-probe.js';
import { Graph } from '../onnx/graph.js';
import type { RunControl } from '../progress.js';
import type { Engine, Feeds } from '../runtime/engine.js';
import { traceDims, traceShapes, type TracedValues } from '../runtime/trace.js';
import { alignLayers } from './align.js';
import { applyChoice, type Choosable } from './apply-choice.js';
import { removableBranches, type Branch } from './branches.js';
import { checkCut } from './check-cut.js';
import { costModel, type Cost } from './cost.js';
import { measureDamage } from './damage.js';
import { dependencyGroups, type Dependencies, type DependencyGroup } from './groups.js';
import { keptChannels, layerUnits, type LayerUnits } from './layer-units.js';
import type { StructuredMethod } from './methods.js';
import type { CutModel } from './places.js';
import { planCuts, type PlanGoal } from './plan.js';
import { gradientScores } from './gradient-scores.js';
import { keptScales } from './norm-scales.js';
import { restoreNormStatistics } from './norm-statistics.js';
import { removalOrders, type Order, type RemovalOrder } from './removal-order.js';
import { pruningScore, readsActivations } from './scores.js';
import { cutRanked, cutUniformly } from './share-out.js';
import { findSites, takenBy, type Choice, type Guards, type Site } from './sites.js';

/** A model on its way from the original to the pruned one. */
export interface PruningState {
  readonly model: ModelProto;
  /** Dims of every value for one sample (or the rows that the model insists on). */
  readonly shapes: TracedValues;
  /** Output channels of the original that every layer has left, by its name. */
  readonly kept: ReadonlyMap<string, readonly number[]>;
  /** Names of the branches that are gone. */
  readonly gone: readonly string[];
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
  /** Of a model's outputs from the original's, on a few samples of CALIB. */
  readonly divergenceOf: (model: ModelProto) => Promise<number>;
}

export interface Step {
  readonly state: PruningState;
  /** Right after the cut; absent where nothing is fitted. */
  readonly cut: ModelProto | undefined;
  /** With the readers of removed channels fitted to what they read before; absent where nothing is fitted. */
  readonly refitted: ModelProto | undefined;
  /** The same with the statistics of its normalizations taken anew; absent where there are none, or where that brought it no nearer. */
  readonly normalized: ModelProto | undefined;
  readonly units: number;
  readonly branches: readonly RemovedBranch[];
  readonly cost: Cost;
  /** Of the cut model from the original with zeros, relative. */
  readonly difference: number;
}

export interface RemovedBranch {
  readonly branch: Branch;
  /** What it costs in answers to take out this one alone. */
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
    ...{ model, shapes, gone: [] },
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
  const branches = removableBranches(graph, shapes);
  const chosen = await chooseCuts(request, { dependencies, layers, grams, graph, branches, measured }, control);
  if (!chosen || (chosen.choice.widths.size === 0 && chosen.choice.branches.size === 0)) return undefined;
  const { choice, base, damages } = chosen;
  const applied = applyChoice({ ...base, grams: method.fit ? grams : new Map() }, choice);
  const { removed, gone } = takenBy(choice, base.sites, dependencies.units.classOf.length);
  const difference =
    applied.cut === model
      ? 0
      : await checkCut(engine, model, applied.cut, applied.selection, feedsFor(fixedBatch ?? CHECKED_ROWS));
  const left = keptChannels(layers, removed);
  const kept = new Map(
    [...state.kept].map(([name, rows]) => [name, left.get(name)?.map((place) => rows[place]!) ?? rows]),
  );
  const next: PruningState = {
    model: applied.model,
    shapes: await traceShapes(engine, applied.model, feedsFor(fixedBatch ?? 1)),
    ...{ kept, gone: [...state.gone, ...choice.branches], firstUnits: state.firstUnits },
  };
  const normalized = method.fit ? await withStatistics(request, next, dependencies, removed, control) : undefined;
  const fitted = method.fit ? await nearer(request, normalized ?? next, control) : next;
  return {
    state: fitted,
    cut: method.fit ? applied.plain : undefined,
    refitted: method.fit ? applied.model : undefined,
    normalized: normalized?.model,
    units: removed.reduce((sum, one) => sum + one, 0),
    branches: branches
      .filter(({ name }) => choice.branches.has(name))
      .map((branch) => ({ branch, ...(damages.has(branch.name) && { divergence: damages.get(branch.name)! }) })),
    cost: costModel(graph, shapes, dependencies, fixedBatch ?? 1)(removed, gone),
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
  const findings = { dependencies, layers, graph, grams: new Map<string, Gram>(), branches: [], measured: undefined };
  const chosen = await chooseCuts(request, findings, control);
  if (!chosen) return undefined;
  const { removed, gone } = takenBy(chosen.choice, chosen.base.sites, dependencies.units.classOf.length);
  const cost = costModel(graph, state.shapes, dependencies, fixedBatch ?? 1)(removed, gone);
  return { choice: chosen.choice, dependencies, cost };
}

/**
 * What would be left to pay for if all went that may go: told from shapes alone.
 * @returns undefined when nothing can be removed
 */
export async function leastCost(
  request: Pick<StepRequest, 'engine' | 'state' | 'method' | 'guards' | 'allowed' | 'feedsFor' | 'fixedBatch'>,
): Promise<Cost | undefined> {
  const { engine, state, feedsFor, fixedBatch } = request;
  const graph = new Graph(state.model);
  const dependencies = await dependenciesOf(engine, state.model, feedsFor, fixedBatch);
  const orders = dependencies.groups.map(({ units }) => ({ units: [...units] }));
  const sites = sitesOf(request, dependencies, orders, removableBranches(graph, state.shapes));
  if (sites.length === 0) return undefined;
  const all: Choice = {
    widths: new Map(sites.flatMap((site) => (site.kind === 'width' ? [[site.group, site.widths.at(-1)!]] : []))),
    branches: new Set(sites.flatMap((site) => (site.kind === 'branch' ? [site.branch.name] : []))),
  };
  const { removed, gone } = takenBy(all, sites, dependencies.units.classOf.length);
  return costModel(graph, state.shapes, dependencies, fixedBatch ?? 1)(removed, gone);
}

function sitesOf(
  { state, method, guards, allowed }: Pick<StepRequest, 'state' | 'method' | 'guards' | 'allowed'>,
  dependencies: Dependencies,
  orders: readonly (RemovalOrder | undefined)[],
  branches: readonly Branch[],
): Site[] {
  const firstUnits = dependencies.groups.map((group) => state.firstUnits.get(groupKey(group)) ?? group.units.length);
  return findSites(dependencies, orders, firstUnits, branches, guards, {
    filters: allowed.filters,
    layers: allowed.layers && method.layers,
  });
}

/** Samples on which the cut model is held against the original with zeros. */
const CHECKED_ROWS = 2;

interface Findings {
  readonly dependencies: Dependencies;
  readonly layers: readonly LayerUnits[];
  readonly grams: ReadonlyMap<string, Gram>;
  readonly graph: Graph;
  readonly branches: readonly Branch[];
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
  { dependencies, layers, grams, graph, branches, measured }: Findings,
  control: RunControl,
): Promise<{ choice: Choice; base: Choosable; damages: Map<string, number> } | undefined> {
  const { state, method, goal, costOf, seed, fixedBatch, divergenceOf, block } = request;
  const normScales = request.normScales && keptScales(request.normScales, state.kept);
  const orders = removalOrders({
    ...{ graph, dependencies, layers, grams, score: method.score, order: request.order, seed },
    ...{ normScales, measured },
  });
  const sites = sitesOf(request, dependencies, orders, branches);
  if (sites.length === 0) return undefined;
  const total = costModel(graph, state.shapes, dependencies, fixedBatch ?? 1, block);
  const cost = (...taken: Parameters<typeof total>): number => costOf(total(...taken));
  const base = { model: state.model, dependencies, layers, grams, sites };
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
  const worthOf =
    request.worthOf &&
    ((...taken: Parameters<typeof total>): number => request.worthOf!(total(...taken)) ?? cost(...taken));
  const { choice } = planCuts({ dependencies, sites, damages, costOf: cost, goal, ...(worthOf && { worthOf }) });
  return {
    choice,
    base,
    damages: new Map(damages.flatMap(({ site, of }) => (site.kind === 'branch' ? [[site.branch.name, of(0)]] : []))),
  };
}

/** The state with new statistics of the normalizations in the graph, where these bring it nearer to the original. */
async function withStatistics(
  { engine, state, batches, samples, divergenceOf }: StepRequest,
  next: PruningState,
  { units: { axes, classOf } }: Dependencies,
  removed: Uint8Array,
  control: RunControl,
): Promise<PruningState | undefined> {
  const model = await restoreNormStatistics(
    {
      ...{ engine, original: state.model, originalShapes: state.shapes, model: next.model, shapes: next.shapes },
      ...{ batches: () => batches(false), samples },
      keptOf(scale) {
        const axis = axes.get(scale)?.[0];
        if (!axis) return undefined;
        const channels = Array.from({ length: axis.size }, (_, channel) => channel);
        // Axes of length 1 have no members.
        return axis.size > 1 ? channels.filter((channel) => removed[classOf[axis.start + channel]!] === 0) : channels;
      },
    },
    control,
  );
  if (!model) return undefined;
  const [before, after] = [await divergenceOf(next.model), await divergenceOf(model)];
  return after < before ? { ...next, model } : undefined;
}

/** The state with its layers aligned, where that brings it nearer to the original: few samples may mislead it. */
async function nearer(request: StepRequest, state: PruningState, control: RunControl): Promise<PruningState> {
  const aligned = await align(request, state, control);
  const [before, after] = [await request.divergenceOf(state.model), await request.divergenceOf(aligned.model)];
  return after < before ? aligned : state;
}

async function align(
  { engine, original, batches, samples }: StepRequest,
  state: PruningState,
  control: RunControl,
): Promise<PruningState> {
  const { model } = await alignLayers(
    {
      ...{ ...cutModel(original, state), engine, originalShapes: original.shapes, shapes: state.shapes },
      ...{ samples, batches: () => batches(true) },
    },
    control,
  );
  return { ...state, model };
}

/** A state beside the original that it was cut from. */
export function cutModel(original: PruningState, { model, kept, gone: names }: PruningState): CutModel {
  const branches = removableBranches(new Graph(original.model), original.shapes);
  return { original: original.model, model, kept, gone: branches.filter(({ name }) => names.includes(name)) };
}
