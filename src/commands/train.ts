/** `train`: trains or fine-tunes a model by gradients on TRAIN; the weights that are best on VAL are written. */
import { join } from 'node:path';
import type { ModelProto } from 'onnx-buf';
import { batches } from '../data/loader.js';
import { openTest } from '../data/sealed-test.js';
import { FlowCompressError } from '../errors.js';
import { assertWritableOutput } from '../node/atomic-file.js';
import { readCheckpoint, writeCheckpoint } from '../node/checkpoint.js';
import { openModel, saveModel } from '../node/model-file.js';
import { stageOutput, type StagedOutput } from '../node/staged-output.js';
import { trainingLog } from '../node/training-log.js';
import { toBytes } from '../onnx/to-bytes.js';
import type { RunControl } from '../progress.js';
import type { TrainingPoint, TrainReport } from '../report/report.js';
import { median } from '../runtime/latency.js';
import { evaluateSession } from '../runtime/metric.js';
import { NO_AUGMENTATION, type AugmentOptions } from '../training/augment.js';
import { OPTIMIZER_DEFAULTS, OPTIMIZERS } from '../training/optimizers.js';
import { readParameters, trainableParameters, type Parameter } from '../training/parameters.js';
import { openStepper, type TrainingVectors } from '../training/stepper.js';
import { balancedWeights, classTargets } from '../training/targets.js';
import { trainedModel } from '../training/trained-model.js';
import { suitableBatchNorm } from '../training/training-mode.js';
import { train, type TrainerOptions } from '../training/trainer.js';
import { buildTrainingGraph, type TrainingGraph } from '../training/training-graph.js';
import { Graph } from '../onnx/graph.js';
import { measureFiles } from './measure.js';
import { parseOptions, trainOptionsSchema, type TrainOptions } from './options.js';
import { startRun } from './run-info.js';
import { finishedReport, logged, openRun } from './run-state.js';
import { openTrainee } from './trainee.js';
import { openWorkspace, type Workspace } from './workspace.js';

/** Options of `trainModel`: `data` and `output` are needed, everything else has a default. */
export type TrainInput = Pick<TrainOptions, 'data' | 'output'> & Partial<TrainOptions>;

/** Epochs when neither epochs nor steps nor a time are given. */
const DEFAULT_EPOCHS = 30;

/**
 * Trains a model file, or an architecture of the zoo, and writes `options.output`, whole or not at all.
 * @param model path of an ONNX file or folder, or the name of an architecture
 * @returns the written model and the report about it, measured on TEST
 * @throws FlowCompressError `unsupported` naming a node without a gradient rule, `bad-input` (also when the loss is not finite), `io`, `aborted`
 */
export async function trainModel(
  model: string,
  options: TrainInput,
): Promise<{ model: ModelProto; report: TrainReport }> {
  const clock = startRun();
  const settings = parseOptions(trainOptionsSchema, options);
  const { signal } = options;
  const { force } = settings;
  const given = [settings.data, ...(settings.test === undefined ? [] : [settings.test])];
  if (!settings.resume) await assertWritableOutput(settings.output, { force, inputs: given });
  const trainee = await openTrainee(model, settings);
  let workspace: Workspace | undefined;
  let staged: StagedOutput | undefined;
  try {
    workspace = await clock.stage('open', () =>
      openWorkspace(trainee.path, settings, { signal, onProgress: options.onProgress }),
    );
    const rules = { force, inputs: [...given, workspace.opened.path, ...workspace.opened.externalFiles] };
    const run = await openRun('train', workspace, settings, { signal });
    const finished = await finishedReport(run, 'train', settings.output);
    if (finished) return { model: (await openModel(settings.output, { signal })).model, report: finished };
    await assertWritableOutput(settings.output, rules);
    const control = logged({ signal, onProgress: options.onProgress }, run);
    const trained = await runTraining(workspace, settings, control, clock);
    const output = await stageOutput(settings.output, { ...rules, signal });
    staged = output;
    const saved = await clock.stage('write', () => output.make((file) => saveModel(trained.model, file, { signal })));
    const subjects = [...(trainee.isNew ? [] : [{ path: model }]), { path: saved.path, shownAs: settings.output }];
    const measured = await measureFiles(
      workspace,
      subjects,
      {
        ...{ dataset: openTest(workspace.test), split: 'test', clock },
        ...{ threads: settings.threads, latencyRuns: settings.latencyRuns },
      },
      control,
    );
    await output.publish([...saved.externalFiles, saved.path]);
    const notes = [...new Set([...workspace.notes, ...measured.warnings])];
    const report: TrainReport = {
      command: 'train',
      seed: settings.seed,
      target: settings.target,
      model,
      output: settings.output,
      ...clock.info(workspace.engine),
      ...(notes.length > 0 && { warnings: notes }),
      data: workspace.data,
      settings: trained.shown,
      ...(!trainee.isNew && { before: measured.files[0]!.measurement }),
      after: measured.files.at(-1)!.measurement,
      training: trained.summary,
      history: trained.history,
    };
    await run?.finish(report, settings.output);
    return { model: trained.model, report };
  } finally {
    await staged?.discard();
    await workspace?.close();
    await trainee.close();
  }
}

interface Trained {
  readonly model: ModelProto;
  readonly history: TrainingPoint[];
  readonly summary: TrainReport['training'];
  readonly shown: NonNullable<TrainReport['settings']>;
}

async function runTraining(
  workspace: Workspace,
  settings: TrainOptions,
  control: RunControl,
  clock: ReturnType<typeof startRun>,
): Promise<Trained> {
  const { engine, working, feedsFor } = workspace;
  const classes = labelledClasses(workspace, settings);
  const base = trainedModel(workspace.opened.model, workspace.scores);
  const trainable = new Graph(base.model);
  const parameters = trainableParameters(trainable);
  const own = suitableBatchNorm(trainable);
  const batchNorm = own && (settings.batchNorm ?? own);
  const optimizerSettings = { ...OPTIMIZER_DEFAULTS, momentum: settings.momentum };
  const graph = await clock.stage('build gradients', () =>
    buildTrainingGraph(
      engine,
      base.model,
      {
        ...{ loss: settings.loss, output: base.output, batchSize: settings.batchSize, parameters, optimizerSettings },
        ...{ optimizer: settings.optimizer, weightDecay: settings.weightDecay, clipNorm: settings.clipNorm },
        ...{ emaDecay: settings.ema, accumulate: settings.accumulate, temperature: 1, seed: settings.seed },
        batchNorm: batchNorm ?? 'frozen',
      },
      feedsFor,
    ),
  );
  const layout = layoutOf(parameters, graph);
  const checkpointPath = settings.runDir === undefined ? undefined : join(settings.runDir, 'checkpoint.npz');
  const kept =
    settings.resume && checkpointPath !== undefined ? await readCheckpoint(checkpointPath, layout) : undefined;
  const start = kept?.vectors ?? startVectors(base.model, parameters, graph, settings);
  const stepper = await openStepper(
    engine,
    graph,
    { name: settings.optimizer, settings: optimizerSettings },
    start,
    kept?.progress.steps ?? 0,
  );
  const log = trainingLog(settings.runDir, kept !== undefined);
  const weights = settings.balance && working.train.labels ? balancedWeights(working.train.labels, classes) : undefined;
  // A line may have been written for an epoch whose checkpoint was not.
  const history = log.earlier.filter(({ step }) => step <= (kept?.progress.steps ?? 0));
  const rates: number[] = [];
  let lastRate = 0;
  let metricName = 'score';
  try {
    const trainerOptions = trainerOptionsOf(settings, workspace);
    const outcome = await clock.stage('train', () =>
      train(
        stepper,
        working.train,
        trainerOptions,
        {
          target: ({ labels }) =>
            classTargets(labels!, classes, { labelSmoothing: settings.labelSmoothing, classWeights: weights }),
          async evaluate(vectors) {
            const session = await engine.createSession(toBytes(base.finish(parameters, graph.buffers, vectors)));
            try {
              const { metric } = await evaluateSession(session, batches(working.val, settings.batchSize), {
                signal: control.signal,
              });
              metricName = metric?.name ?? metricName;
              return metric?.value ?? 0;
            } finally {
              await session.release();
            }
          },
          onEvent(event) {
            log.write(event);
            if (event.kind === 'step') {
              rates.push(event.samplesPerSecond);
              lastRate = event.learningRate;
            } else {
              const { epoch, step, loss, score, seconds } = event;
              history.push({ epoch, step, loss, score, learningRate: lastRate, seconds });
            }
          },
          ...(checkpointPath !== undefined && {
            checkpoint: (progress, vectors, best) =>
              writeCheckpoint(checkpointPath, layout, { progress, vectors, best }),
          }),
        },
        control,
        kept,
      ),
    );
    const { progress } = outcome;
    return {
      model: base.finish(parameters, graph.buffers, outcome.best),
      history,
      summary: {
        parameters: parameters.reduce((sum, { size }) => sum + size, 0),
        ...{ epochs: progress.epoch, steps: progress.steps, seconds: progress.seconds, stopped: outcome.stopped },
        ...(rates.length > 0 && { samplesPerSecond: median(rates) }),
        ...{ metric: metricName, bestEpoch: progress.best?.epoch ?? progress.epoch },
      },
      shown: {
        ...{ optimizer: settings.optimizer, learningRate: trainerOptions.learningRate, schedule: settings.schedule },
        ...{ batchSize: settings.batchSize, weightDecay: settings.weightDecay, loss: settings.loss },
        ...(settings.augment.length > 0 && { augment: settings.augment }),
        ...(batchNorm !== undefined && { batchNorm }),
      },
    };
  } finally {
    log.close();
    await stepper.release();
  }
}

/** How many classes the labels name. @throws FlowCompressError `unsupported` for what cannot be trained by labels */
function labelledClasses({ scores, classes, fixedBatch, opened, working }: Workspace, { loss }: TrainOptions): number {
  if (fixedBatch !== undefined)
    throw new FlowCompressError('unsupported', `The model takes batches of ${String(fixedBatch)} only.`, {
      node: opened.path,
      hint: 'Export it with a free batch dimension: training needs batches of its own size.',
    });
  if (loss === 'cross-entropy' && scores !== undefined && classes !== undefined && working.train.labels) return classes;
  throw new FlowCompressError(
    'unsupported',
    scores === undefined
      ? 'No output of the model is recognised as scores per class.'
      : !working.train.labels
        ? 'The data has no labels to train on.'
        : `The loss ${loss} needs targets other than labels.`,
    { hint: 'train needs labelled data and a model with one score per class, and learns by cross-entropy.' },
  );
}

function startVectors(
  model: ModelProto,
  parameters: readonly Parameter[],
  { names, buffers }: TrainingGraph,
  { ema }: TrainOptions,
): TrainingVectors {
  const flat = readParameters(model, parameters);
  return {
    parameters: flat,
    buffers: readParameters(model, buffers),
    states: names.vectors.filter(({ kind }) => kind === 'state').map(({ size }) => new Float32Array(size)),
    ...(ema !== undefined && { average: flat.slice() }),
  };
}

function layoutOf(parameters: readonly Parameter[], { buffers }: TrainingGraph): string {
  return [...parameters, ...buffers].map(({ name, size }) => `${name}:${String(size)}`).join(' ');
}

function trainerOptionsOf(settings: TrainOptions, { feedsFor }: Workspace): TrainerOptions {
  const { epochs, steps, maxTime } = settings;
  const unlimited = epochs === undefined && steps === undefined && maxTime === undefined;
  const side = Object.values(feedsFor(1))[0]?.dims.at(-1) ?? 32;
  return {
    epochs: unlimited ? DEFAULT_EPOCHS : epochs,
    steps,
    maxSeconds: maxTime,
    batchSize: settings.batchSize,
    accumulate: settings.accumulate,
    schedule: settings.schedule,
    learningRate: settings.lr ?? OPTIMIZERS[settings.optimizer].learningRate,
    warmup: settings.warmup,
    augment: augmentationOf(settings.augment, side),
    patience: settings.patience,
    seed: settings.seed,
  };
}

/** The usual sizes: a crop from an eighth of padding, a cutout of half the side. */
function augmentationOf(kinds: TrainOptions['augment'], side: number): AugmentOptions {
  const has = (kind: (typeof kinds)[number]): boolean => kinds.includes(kind);
  return {
    ...NO_AUGMENTATION,
    crop: has('crop') ? Math.max(1, Math.round(side / 8)) : 0,
    flip: has('flip'),
    cutout: has('cutout') ? Math.round(side / 2) : 0,
    mixup: has('mixup') ? 0.2 : 0,
  };
}
