/** How a model that was cut learns from the original: for how long, at what rate, held against it where. */
import type { ModelProto } from 'onnx-buf';
import { FlowCompressError } from '../../errors.js';
import { Graph } from '../../onnx/graph.js';
import { findLayers } from '../../onnx/layers.js';
import type { RunControl } from '../../progress.js';
import { sharedPlaces } from '../../pruning/places.js';
import { cutModel, type PruningState } from '../../pruning/step.js';
import { floatStudent } from '../../recovery/float-student.js';
import { refusalToLearn } from '../../recovery/learnable.js';
import { normalized } from '../../recovery/normalize.js';
import type { RecoverySummary } from '../../report/report.js';
import type { MachineCache } from '../../runtime/machine-cache.js';
import { traceShapes } from '../../runtime/trace.js';
import type { PruneOptions } from './options.js';
import type { PruningRun, PruningStudy } from './study.js';
import { learnFromOriginal, taughtAs, type LearningOptions, type RecoverySettings } from '../recover/recovery.js';
import { refuseTeaching } from '../recover/taught-recovery.js';
import { refuseFixedBatch } from '../train/setup.js';
import type { Workspace } from '../workspace.js';

/** Updates when neither updates nor epochs nor a time are given. */
const DEFAULT_STEPS = 1000;
/** Share of the learning that a cut is followed by before it is judged. */
const BETWEEN_CUTS = 0.1;
/** Evaluations on VAL in the course of the learning. */
const EVALUATIONS = 8;

type LearningSettings = Pick<
  PruneOptions,
  'epochs' | 'steps' | 'maxTime' | 'batchSize' | 'lr' | 'temperature' | 'hintWeight' | 'teaching'
>;

/**
 * How long is learned; undefined for no time at all, or where the model cannot learn and nobody asked for it. Told before the
 * cuts, which take minutes.
 * @param needed whether nothing can be done without learning
 * @throws FlowCompressError `unsupported` when a model of fixed batch, or with an operator without gradients, is asked to learn; as
 *   `refuseTeaching`
 */
export async function learningOf(
  workspace: Workspace,
  model: ModelProto,
  settings: LearningSettings,
  warnings: string[],
  needed = false,
): Promise<LearningOptions | undefined> {
  const { engine, scores, feedsFor, fixedBatch, working } = workspace;
  const { epochs, steps, maxTime } = settings;
  const asked = epochs !== undefined || steps !== undefined || maxTime !== undefined;
  if (steps === 0) return undefined;
  if (asked || needed) refuseFixedBatch(workspace);
  else if (fixedBatch !== undefined) {
    warnings.push(
      `The model takes batches of ${String(fixedBatch)} only and does not learn after the cuts: export it with a free batch dimension for that.`,
    );
    return undefined;
  }
  const refusal = await refusalToLearn(engine, model, scores, feedsFor);
  if (refusal && (asked || needed)) throw refusedLearning(refusal, needed);
  if (refusal) {
    warnings.push(`The model does not learn after the cuts: ${refusal.message}`);
    return undefined;
  }
  const taught = taughtAs(settings, 'hints');
  refuseTeaching(taught.teaching, workspace);
  const batchSize = Math.min(settings.batchSize, working.train.size);
  const perEpoch = Math.floor(working.train.size / batchSize);
  const limits = [
    ...(steps === undefined ? [] : [steps]),
    ...(epochs === undefined ? [] : [epochs * perEpoch]),
    ...(asked ? [] : [DEFAULT_STEPS]),
  ];
  return {
    ...(limits.length > 0 && { steps: Math.min(...limits) }),
    ...(maxTime !== undefined && { seconds: maxTime }),
    ...{ evaluations: EVALUATIONS, batchSize, learningRate: settings.lr ?? suitableRate(model) },
    ...taught,
  };
}

function refusedLearning(cause: FlowCompressError, needed: boolean): FlowCompressError {
  const way = needed ? 'Choose a --method that can do without learning' : 'Leave out the learning with --steps 0';
  return new FlowCompressError(cause.code, cause.message, {
    ...{ node: cause.node, cause },
    hint: `${way}, or export the model with standard operators.`,
  });
}

/** Convolutions learn behind a normalization, which bears large steps. */
function suitableRate(model: ModelProto): number {
  let [convolutions, others] = [0, 0];
  for (const { op, params } of findLayers(new Graph(model))) {
    if (op === 'Conv') convolutions += params;
    else others += params;
  }
  return convolutions > others ? 3e-2 : 1e-3;
}

/** A short learning, judged at its end alone. */
export async function learnBetween(
  pruning: PruningRun,
  pruned: PruningState,
  options: LearningOptions,
): Promise<{ model: ModelProto; updates: number }> {
  const { steps, seconds } = options;
  const short: LearningOptions = {
    ...options,
    evaluations: 1,
    ...(steps !== undefined && { steps: Math.max(1, Math.round(BETWEEN_CUTS * steps)) }),
    ...(seconds !== undefined && { seconds: BETWEEN_CUTS * seconds }),
  };
  const { state, summary } = await learnAfterCuts(pruning, pruned, short, false);
  return { model: state, updates: summary.steps };
}

/** What the learning behind cuts needs of a run. */
export interface LearningRun {
  readonly workspace: Workspace;
  readonly study: PruningStudy;
  readonly settings: RecoverySettings;
  readonly control: RunControl;
  readonly run: { readonly cache: MachineCache } | undefined;
}

/** @param kept whether the run directory keeps the course */
export async function learnAfterCuts(
  { workspace, study, settings, control, run }: LearningRun,
  pruned: PruningState,
  options: LearningOptions,
  kept: boolean,
): Promise<{ state: ModelProto; summary: RecoverySummary }> {
  const { engine, feedsFor, batch } = workspace;
  const { calib, original } = study;
  const { model } = pruned;
  const student = await normalized(
    {
      ...{ engine, model, shapes: await traceShapes(engine, model, feedsFor(1)), samples: calib.size },
      batches: () => batch(calib),
    },
    control,
  );
  const learning = {
    teacher: original.model,
    student: floatStudent(student, 'updated'),
    taught: sharedPlaces(cutModel(original, pruned)),
    start: model,
    build: (state: ModelProto) => state,
    ...{ options, plain: student, kept },
  };
  return learnFromOriginal(workspace, learning, settings, control, run?.cache);
}
