/** Recovery with a command's data, run directory and log. */
import { join } from 'node:path';
import { batches } from '../../data/loader.js';
import { FlowCompressError } from '../../errors.js';
import { readCheckpoint, writeCheckpoint } from '../../node/checkpoint.js';
import { trainingLog, type LoggedPoint } from '../../node/training-log.js';
import type { RunControl } from '../../progress.js';
import { placesIn, samePlaces } from '../../pruning/places.js';
import type { QuantizationOutcome } from '../../quantization/method.js';
import { trainableQuantized } from '../../quantization/recover/trainable.js';
import type { ModelProto } from 'onnx-buf';
import type { TaughtValue } from '../../recovery/hints.js';
import { recover, type RecoveryOptions, type RecoveryStore, type Student } from '../../recovery/recover.js';
import { findTeaching, HINT_WEIGHT, type TeachingName } from '../../recovery/teachings.js';
import { openValidator } from '../../recovery/validate.js';
import type { MachineCache } from '../../runtime/machine-cache.js';
import type { QuantizeReport, RecoveryPoint, RecoverySummary } from '../../report/report.js';
import type { ExecutionChoice } from '../quantize/execution.js';
import { formsByMeasuring } from '../measured-machine.js';
import type { QuantizeOptions } from '../quantize/options.js';
import type { PreparedStudy } from '../quantize/study.js';
import { tuitionByMethod } from './taught-recovery.js';
import { augmentationOf, refuseFixedBatch } from '../train/setup.js';
import type { Workspace } from '../workspace.js';

/** What a command that recovers is told: where the run is kept, and how the samples are changed. */
export type RecoverySettings = Pick<QuantizeOptions, 'runDir' | 'resume' | 'augment' | 'seed' | 'remeasure'>;

export interface Learning<T> {
  /** The original, prepared. */
  readonly teacher: ModelProto;
  readonly student: Student<T>;
  /** As `RecoveryRequest.taught`. */
  readonly taught?: readonly TaughtValue[];
  readonly start: T;
  /** The file that a state would be. */
  readonly build: (state: T) => ModelProto;
  readonly options: LearningOptions;
  /** The student in plain float, for teachings that compare layers or features. */
  readonly plain?: ModelProto;
  /** Whether the run directory keeps the course, so that it can be taken up again. */
  readonly kept: boolean;
}

/** How a model learns, and by what teaching. */
export type LearningOptions = Omit<RecoveryOptions, 'augment' | 'seed'> & { readonly teaching: TeachingName };

/**
 * Lets a compressed model learn from the original on TRAIN; VAL decides what is kept.
 * @throws FlowCompressError as `recover`; `unsupported` for a model of fixed batch
 */
export async function learnFromOriginal<T>(
  workspace: Workspace,
  { teacher, student, taught, start, build, options, plain, kept }: Learning<T>,
  settings: RecoverySettings,
  control: RunControl,
  cache: MachineCache | undefined,
): Promise<{ state: T; summary: RecoverySummary }> {
  refuseFixedBatch(workspace);
  const { engine, working, feedsFor, scores } = workspace;
  const { teaching, ...how } = options;
  const about = { workspace, name: teaching, teacher, plain: plain ?? student.model, seed: settings.seed, ...how };
  const runDir = kept ? settings.runDir : undefined;
  const log = trainingLog(runDir, settings.resume);
  const points: RecoveryPoint[] = [];
  const validator = await openValidator(engine, teacher, scores, () => batches(working.val, VALIDATION_BATCH));
  try {
    const { state, ...summary } = await recover(
      {
        ...{ engine, teacher, student, start, scores, feedsFor, ...(taught && { taught }) },
        ...(findTeaching(teaching).method !== undefined && {
          teach: (model) => tuitionByMethod(about, model, control),
        }),
        train: working.train,
        chooseForms: formsByMeasuring(engine, settings, { run: cache }, control),
        measure: (candidate) => validator.measure(build(candidate), control.signal),
        options: { ...how, seed: settings.seed, augment: augmentationOf(settings.augment, feedsFor(1)) },
        ...(runDir !== undefined && { store: checkpointIn(runDir) }),
        onEvent(event) {
          log.write(event);
          if (event.kind === 'evaluation') points.push(pointOf(event));
        },
      },
      control,
    );
    const first = points[0]?.step ?? Infinity;
    // A line may have been written for an evaluation whose checkpoint was not.
    return {
      state,
      summary: { ...summary, points: [...log.earlier.map(pointOf).filter(({ step }) => step < first), ...points] },
    };
  } finally {
    log.close();
    await validator.release();
  }
}

/** Evaluations on VAL in the course of the recovery of a quantized model. */
export const EVALUATIONS = 10;

export interface OutcomeRecovery {
  readonly workspace: Workspace;
  readonly study: PreparedStudy;
  readonly outcome: QuantizationOutcome;
  readonly choice: ExecutionChoice;
  readonly options: LearningOptions;
  /** What is learned from where it is not the model of the study, and values in both that play the same part. */
  readonly teacher?: { readonly model: ModelProto; readonly taught: readonly TaughtValue[] } | undefined;
}

/** Lets the quantized model learn from the original. Errors as `learnFromOriginal`. */
export function recoverOutcome(
  { workspace, study, outcome, choice, options, teacher }: OutcomeRecovery,
  settings: RecoverySettings,
  control: RunControl,
  cache: MachineCache | undefined,
): Promise<{ state: QuantizationOutcome; summary: RecoverySummary }> {
  const plan = choice.plan(outcome);
  if (!plan)
    throw new FlowCompressError('internal', 'A model that computes its ranges at run time cannot be recovered.');
  const student = trainableQuantized(study.model, plan, outcome);
  const learning: Learning<QuantizationOutcome> = {
    teacher: teacher?.model ?? study.model,
    taught: teacher ? placesIn(student.model, teacher.taught) : samePlaces(study.model, student.model),
    ...{ student, start: outcome, build: (state) => choice.build(state), options, plain: study.model, kept: true },
  };
  return learnFromOriginal(workspace, learning, settings, control, cache);
}

/** How `quantize` recovers. @param steps updates @param usual what is taught when nothing is said */
export function recoveryOptions(settings: QuantizeOptions, steps: number, usual: TeachingName): LearningOptions {
  return {
    ...{ steps, evaluations: EVALUATIONS, batchSize: settings.recoverBatchSize, learningRate: settings.recoverLr },
    ...taughtAs(settings, usual),
  };
}

/** Teaching, temperature and weight of the hints by the options. @param usual what is taught when nothing is said */
export function taughtAs(
  { teaching, temperature, hintWeight }: Pick<QuantizeOptions, 'teaching' | 'temperature' | 'hintWeight'>,
  usual: TeachingName,
): Pick<LearningOptions, 'teaching' | 'temperature' | 'hintWeight'> {
  const byWeight = hintWeight === undefined ? usual : hintWeight > 0 ? 'hints' : 'answers';
  const name = teaching ?? byWeight;
  return {
    teaching: name,
    temperature: temperature ?? findTeaching(name).temperature,
    hintWeight: name === 'hints' ? (hintWeight ?? HINT_WEIGHT) : 0,
  };
}

/** The same for the report. */
export function taughtSettings({
  teaching,
  temperature,
  hintWeight,
}: Pick<LearningOptions, 'teaching' | 'temperature' | 'hintWeight'>): Record<string, string | number> {
  return { teaching, temperature, ...(teaching === 'hints' && { hintWeight }) };
}

/** Where right answers decide, the divergence stands beside the score. */
function pointOf(point: Omit<LoggedPoint, 'epoch'>): RecoveryPoint {
  const { step, loss, score, accuracy, terms, learningRate, seconds } = point;
  return {
    step,
    loss,
    divergence: terms?.divergence ?? score,
    ...(accuracy !== undefined && { top1: accuracy }),
    learningRate,
    seconds,
  };
}

/** Samples per engine call on VAL. */
const VALIDATION_BATCH = 128;

function checkpointIn(folder: string): RecoveryStore {
  const path = join(folder, 'checkpoint.npz');
  return {
    read: (layout) => readCheckpoint(path, layout),
    write: (layout, kept) => writeCheckpoint(path, layout, kept),
  };
}

/** What the report tells of the options. */
export function recoverySettings(
  { recoverLr, recoverBatchSize, augment }: QuantizeOptions,
  options: LearningOptions,
): NonNullable<QuantizeReport['settings']> {
  return { recoverLr, recoverBatchSize, ...taughtSettings(options), ...(augment.length > 0 && { augment }) };
}
