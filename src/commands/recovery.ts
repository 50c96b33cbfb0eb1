/** `quantize --recover`: the recovery with the command's data, run directory and log. */
import { join } from 'node:path';
import { batches } from '../data/loader.js';
import { FlowCompressError } from '../errors.js';
import { readCheckpoint, writeCheckpoint } from '../node/checkpoint.js';
import { trainingLog } from '../node/training-log.js';
import type { RunControl } from '../progress.js';
import type { QuantizationOutcome } from '../quantization/method.js';
import { recover, type RecoveryStore } from '../quantization/recover/recover.js';
import { openValidator } from '../quantization/recover/validate.js';
import type { MachineCache } from '../runtime/machine-cache.js';
import type { QuantizeReport, RecoveryPoint, RecoverySummary, TrainingPoint } from '../report/report.js';
import type { ExecutionChoice } from './execution.js';
import { formsByMeasuring } from './measured-machine.js';
import type { QuantizeOptions } from './options.js';
import type { PreparedStudy } from './quantization-study.js';
import { augmentationOf, refuseFixedBatch } from './training-setup.js';
import type { Workspace } from './workspace.js';

/**
 * Lets the quantized model learn from the original on TRAIN; VAL decides what is kept.
 * @throws FlowCompressError as `recover`; `unsupported` for a model of fixed batch
 */
export async function recoverOutcome(
  workspace: Workspace,
  study: PreparedStudy,
  outcome: QuantizationOutcome,
  choice: ExecutionChoice,
  settings: QuantizeOptions,
  control: RunControl,
  cache: MachineCache | undefined,
): Promise<{ outcome: QuantizationOutcome; summary: RecoverySummary }> {
  refuseFixedBatch(workspace);
  const plan = choice.plan(outcome);
  if (!plan)
    throw new FlowCompressError('internal', 'A model that computes its ranges at run time cannot be recovered.');
  const { engine, working, feedsFor, scores } = workspace;
  const store = settings.runDir === undefined ? undefined : checkpointIn(settings.runDir);
  const log = trainingLog(settings.runDir, settings.resume);
  const points: RecoveryPoint[] = [];
  const validator = await openValidator(engine, study.model, scores, () => batches(working.val, VALIDATION_BATCH));
  try {
    const { outcome: recovered, ...summary } = await recover(
      {
        ...{ engine, model: study.model, outcome, plan, scores, feedsFor },
        train: working.train,
        chooseForms: formsByMeasuring(engine, settings, { run: cache }, control),
        measure: (candidate) => validator.measure(choice.build(candidate), control.signal),
        options: {
          ...{ steps: settings.recover, batchSize: settings.recoverBatchSize, learningRate: settings.recoverLr },
          ...{ temperature: settings.temperature, seed: settings.seed },
          augment: augmentationOf(settings.augment, feedsFor(1)),
        },
        store,
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
      outcome: recovered,
      summary: { ...summary, points: [...log.earlier.map(pointOf).filter(({ step }) => step < first), ...points] },
    };
  } finally {
    log.close();
    await validator.release();
  }
}

function pointOf(point: Omit<TrainingPoint, 'epoch'>): RecoveryPoint {
  const { step, loss, score, accuracy, learningRate, seconds } = point;
  return { step, loss, divergence: score, ...(accuracy !== undefined && { top1: accuracy }), learningRate, seconds };
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
export function recoverySettings({
  recoverLr,
  recoverBatchSize,
  temperature,
  augment,
}: QuantizeOptions): NonNullable<QuantizeReport['settings']> {
  return { recoverLr, recoverBatchSize, temperature, ...(augment.length > 0 && { augment }) };
}
