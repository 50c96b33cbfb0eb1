/** What every part of `prune` looks at: the original in the form that is pruned, and how far other models are from it. */
import type { ModelProto } from 'onnx-buf';
import { batches } from '../../data/loader.js';
import type { Dataset } from '../../data/dataset.js';
import { firstSamples } from '../../data/subset.js';
import { FlowCompressError } from '../../errors.js';
import { Graph } from '../../onnx/graph.js';
import type { RunControl } from '../../progress.js';
import { costModel, type Cost } from '../../pruning/cost.js';
import { layerUnits } from '../../pruning/layer-units.js';
import { dependenciesOf, layerUnitsIn, startState, type PruningState } from '../../pruning/step.js';
import { openValidator, type Quality, type Validator } from '../../recovery/validate.js';
import type { RunDirectory } from '../../node/run-dir.js';
import type { PruneOptions } from './options.js';
import { prepareModel, PRUNED_FORM } from '../prepare.js';
import type { LearningOptions } from '../recover/recovery.js';
import type { RunClock } from '../run-info.js';
import type { Workspace } from '../workspace.js';

export interface PruningStudy {
  readonly original: PruningState;
  readonly warnings: readonly string[];
  /** On a few samples of CALIB. */
  readonly divergenceOf: (model: ModelProto) => Promise<number>;
  /** On VAL. */
  readonly qualityOf: (model: ModelProto) => Promise<Quality>;
  /** Of the original on VAL. */
  readonly quality: Quality;
  /** Of the original. */
  readonly cost: Cost;
  /** What layers are fitted on: CALIB, or a part of it for models that compute much. */
  readonly calib: Dataset;
  readonly close: () => Promise<void>;
}

/** A run of `prune`, as its methods see it. */
export interface PruningRun {
  readonly workspace: Workspace;
  readonly study: PruningStudy;
  readonly settings: PruneOptions;
  /** How the pruned model learns from the original; undefined where it does not. */
  readonly learning: LearningOptions | undefined;
  readonly clock: RunClock;
  readonly control: RunControl;
  readonly run: RunDirectory | undefined;
}

/** Samples per engine call where answers are compared. */
const COMPARED_BATCH = 128;

/** @throws FlowCompressError as the model does not run; `aborted` */
export async function openPruningStudy(
  workspace: Workspace,
  settings: Pick<PruneOptions, 'probeSamples' | 'batchSize'>,
  { signal }: RunControl,
): Promise<PruningStudy> {
  const { engine, opened, feedsFor, fixedBatch, working, scores, batch } = workspace;
  const prepared = await prepareModel(engine, opened.model, feedsFor, { fixedBatch, signal, passes: PRUNED_FORM });
  const original = await startState(engine, prepared.model, feedsFor, fixedBatch);
  const { model, shapes } = original;
  const dependencies = await dependenciesOf(engine, model, feedsFor, fixedBatch);
  const graph = new Graph(model);
  const cost = costModel(
    graph,
    shapes,
    dependencies,
    fixedBatch ?? 1,
  )(new Uint8Array(dependencies.units.classOf.length));
  const sites = 3 * dependencies.groups.length + layerUnitsIn(graph, shapes, fixedBatch).length;
  const layers = layerUnits(graph, dependencies).length;
  const probed = firstSamples(working.calib, affordable(settings.probeSamples, sites, cost, working.calib));
  const size = Math.min(COMPARED_BATCH, settings.batchSize);
  const open = (dataset: Dataset): Promise<Validator> =>
    openValidator(engine, model, scores, () => (fixedBatch === undefined ? batches(dataset, size) : batch(dataset)));
  const probe = await open(probed);
  const val = await open(working.val);
  const quality = await val.measure(model, signal);
  const close = async (): Promise<void> => {
    await probe.release();
    await val.release();
  };
  if (!Number.isFinite(quality.divergence)) {
    await close();
    throw noFiniteAnswers(opened.name);
  }
  return {
    ...{ original, warnings: prepared.warnings },
    divergenceOf: async (candidate) => (await probe.measure(candidate, signal)).divergence,
    qualityOf: (candidate) => val.measure(candidate, signal),
    quality,
    cost,
    // Every layer sees what the layers before it make of the samples.
    calib: firstSamples(working.calib, affordable(working.calib.size, layers / 2, cost, working.calib)),
    close,
  };
}

function noFiniteAnswers(name: string): FlowCompressError {
  return new FlowCompressError('bad-input', 'The model gives answers on VAL that are not finite numbers.', {
    node: name,
    hint: 'Look for NaN in the data, or samples that the model overflows on: nothing can be compared with such answers.',
  });
}

/** Multiply-accumulates that measuring all cuts, or fitting all layers, may take: minutes on two cores. */
const EFFORT = 1e13;
/** Samples that nothing is decided on fewer of, if there are so many. */
const LEAST_SAMPLES = 16;

/** How many samples as many passes may take. */
function affordable(wanted: number, passes: number, { macs }: Cost, { size }: Dataset): number {
  const most = macs === undefined ? wanted : Math.floor(EFFORT / Math.max(macs * passes, 1));
  return Math.min(size, wanted, Math.max(most, LEAST_SAMPLES));
}

/** What a limit on the fall of quality counts, lower being better. */
export function errorOf({ top1, agreement, divergence }: Quality): { metric: string; error: number } {
  if (top1 !== undefined) return { metric: 'top1', error: 1 - top1 };
  if (agreement !== undefined) return { metric: 'agreement', error: 1 - agreement };
  return { metric: 'relative-error', error: divergence };
}

/** @throws FlowCompressError `bad-input` when VAL is too small to tell so small a fall */
export function refuseBlindLimit(
  { maxDrop }: Pick<PruneOptions, 'maxDrop'>,
  { working }: Workspace,
  { quality }: PruningStudy,
): void {
  if (maxDrop === undefined || errorOf(quality).metric === 'relative-error') return;
  const { size } = working.val;
  const needed = Math.ceil(2 / maxDrop);
  if (size >= needed) return;
  throw new FlowCompressError(
    'bad-input',
    `--max-drop ${String(maxDrop)} cannot be told on VAL: each of its ${String(size)} samples counts for ${(1 / size).toPrecision(2)}.`,
    { hint: `It takes ${String(needed)} samples in VAL at least: give more data, or allow a larger drop.` },
  );
}

/** @throws FlowCompressError `unsupported` when the multiply-accumulates of the model cannot be counted */
export function costIn(of: PruneOptions['of']): (cost: Cost) => number {
  if (of === 'params') return ({ params }) => params;
  return ({ macs }) => {
    if (macs === undefined)
      throw new FlowCompressError('unsupported', 'The multiply-accumulates of the model cannot be counted.', {
        hint: 'Prune by --of params; `flow-compress inspect` shows which operators are not known.',
      });
    return macs;
  };
}

/**
 * What cuts are priced by. Milliseconds follow what the kernels compute, which is whole blocks of channels; multiply-accumulates
 * are wanted for the time they take, too, but also for their own sake: half and half.
 */
export function worthIn(of: PruneOptions['of']): ((cost: Cost) => number | undefined) | undefined {
  if (of === 'params') return undefined;
  return ({ macs, blocked }) =>
    macs === undefined || blocked === undefined ? undefined : of === 'latency' ? blocked : (macs + blocked) / 2;
}
