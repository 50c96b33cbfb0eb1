/** `train`: trains or fine-tunes a model by gradients on TRAIN; the weights that are best on VAL are written. */
import { join } from 'node:path';
import type { ModelProto } from 'onnx-buf';
import type { Batch, Dataset } from '../data/dataset.js';
import { batches } from '../data/loader.js';
import { openTest } from '../data/sealed-test.js';
import { assertWritableOutput } from '../node/atomic-file.js';
import { readCheckpoint, writeCheckpoint } from '../node/checkpoint.js';
import { openModel, saveModel } from '../node/model-file.js';
import type { ModelInput } from '../node/model-input.js';
import { stageOutput, type StagedOutput } from '../node/staged-output.js';
import { trainingLog } from '../node/training-log.js';
import { wandbLog, type WandbLog, type WandbSdk } from '../node/wandb.js';
import { Graph } from '../onnx/graph.js';
import { toBytes } from '../onnx/to-bytes.js';
import type { RunControl } from '../progress.js';
import type { Measurement, TrainingPoint, TrainReport } from '../report/report.js';
import { metricsOf } from '../report/summary.js';
import { median } from '../runtime/latency.js';
import type { MachineCache } from '../runtime/machine-cache.js';
import { evaluateSession } from '../runtime/metric.js';
import { measureLoss, type LossTargets } from '../training/measure-loss.js';
import { OPTIMIZER_DEFAULTS, OPTIMIZERS } from '../training/optimizers.js';
import { layoutOf, trainableParameters } from '../training/parameters.js';
import { openStepper, startVectors } from '../training/stepper.js';
import { trainedModel } from '../training/trained-model.js';
import { train } from '../training/trainer.js';
import { buildTrainingGraph } from '../training/training-graph.js';
import { suitableBatchNorm } from '../training/training-mode.js';
import { measureFiles } from './measure.js';
import { formsByMeasuring } from './measured-machine.js';
import { objectiveOf, type Objective } from './objective.js';
import { parseOptions, trainOptionsSchema, type TrainOptions } from './options.js';
import { startRun } from './run-info.js';
import { finishedReport, logged, openRun } from './run-state.js';
import { openTrainee } from './trainee.js';
import { trainerOptionsOf } from './training-setup.js';
import { openWorkspace, type Workspace } from './workspace.js';

/** Options of `trainModel`: `data` and `output` are needed, everything else has a default. */
export type TrainInput = Pick<TrainOptions, 'data' | 'output'> &
  Partial<TrainOptions> & {
    /** The SDK of Weights & Biases for the option `wandb`; the package `@wandb/sdk` when absent. */
    readonly wandbSdk?: WandbSdk;
  };

/**
 * Trains a model, or an architecture of the zoo, and writes `options.output`, whole or not at all.
 * @param input path of an ONNX file or of a folder in the Hugging Face layout, the name of an architecture, bytes, or a model
 * @returns the written model and the report about it, measured on TEST
 * @throws FlowCompressError `unsupported` naming a node without a gradient rule, `bad-input` (also when the loss is not finite), `io`, `aborted`
 */
export async function trainModel(
  input: ModelInput,
  options: TrainInput,
): Promise<{ model: ModelProto; report: TrainReport }> {
  const clock = startRun();
  const settings = parseOptions(trainOptionsSchema, options);
  const { signal } = options;
  const { force } = settings;
  const given = [settings.data, ...(settings.test === undefined ? [] : [settings.test])];
  if (!settings.resume) await assertWritableOutput(settings.output, { force, inputs: given });
  const trainee = await openTrainee(input, settings);
  let workspace: Workspace | undefined;
  let staged: StagedOutput | undefined;
  let curves: WandbLog | undefined;
  try {
    workspace = await clock.stage('open', () =>
      openWorkspace(
        trainee.input,
        settings,
        { signal, onProgress: options.onProgress },
        { name: trainee.name, readTargets: true },
      ),
    );
    const rules = { force, inputs: [...given, ...workspace.opened.files] };
    const run = await openRun('train', workspace, settings, { signal });
    const finished = await finishedReport(run, 'train', settings.output);
    if (finished) return { model: (await openModel(settings.output, { signal })).model, report: finished };
    await assertWritableOutput(settings.output, rules);
    const control = logged({ signal, onProgress: options.onProgress }, run);
    const objective = objectiveOf(workspace, settings);
    const { metric } = objective;
    if (settings.wandb !== undefined)
      curves = await wandbLog(
        settings.wandb,
        { model: trainee.name, ...settings, loss: objective.loss, metric },
        options.wandbSdk,
      );
    const trained = await runTraining(workspace, objective, settings, control, clock, { curves, cache: run?.cache });
    await curves?.close(true);
    curves = undefined;
    const output = await stageOutput(settings.output, { ...rules, signal });
    staged = output;
    const saved = await clock.stage('write', () => output.make((file) => saveModel(trained.model, file, { signal })));
    const original = { input: trainee.input, shownAs: trainee.name };
    const subjects = [...(trainee.isNew ? [] : [original]), { input: saved.path, shownAs: settings.output }];
    const test = openTest(workspace.test);
    const measured = await measureFiles(
      workspace,
      subjects,
      {
        ...{ dataset: test, split: 'test', clock, main: metric === 'loss' ? undefined : metric },
        ...{ threads: settings.threads, latencyRuns: settings.latencyRuns },
      },
      control,
    );
    const models = [...(trainee.isNew ? [] : [workspace.opened.model]), trained.model];
    const measurements: Measurement[] = [];
    for (const [i, file] of measured.files.entries())
      measurements.push(
        metric === 'loss'
          ? withLoss(file.measurement, await lossOn(workspace, objective, settings, models[i]!, test, signal))
          : file.measurement,
      );
    await output.publish([...saved.externalFiles, saved.path]);
    const notes = [...new Set([...workspace.notes, ...measured.warnings])];
    const report: TrainReport = {
      command: 'train',
      seed: settings.seed,
      target: settings.target,
      model: trainee.name,
      output: settings.output,
      ...clock.info(workspace.engine),
      ...(notes.length > 0 && { warnings: notes }),
      data: workspace.data,
      settings: trained.shown,
      ...(!trainee.isNew && { before: measurements[0]! }),
      after: measurements.at(-1)!,
      training: trained.summary,
      history: trained.history,
    };
    await run?.finish(report, settings.output);
    return { model: trained.model, report };
  } finally {
    await staged?.discard();
    await curves?.close(false);
    await workspace?.close();
  }
}

interface Trained {
  readonly model: ModelProto;
  readonly history: TrainingPoint[];
  readonly summary: TrainReport['training'];
  readonly shown: NonNullable<TrainReport['settings']>;
}

/** The loss is what the weights were chosen by: it comes first. */
function withLoss(measurement: Measurement, { value, samples }: { value: number; samples: number }): Measurement {
  return {
    ...measurement,
    metric: { name: 'loss', value, split: 'test', samples },
    metrics: metricsOf(measurement),
  };
}

/** The loss of a model as its file has it. */
function lossOn(
  { engine, batch }: Workspace,
  objective: Objective,
  { temperature }: TrainOptions,
  model: ModelProto,
  dataset: Dataset,
  signal: AbortSignal | undefined,
): Promise<{ value: number; samples: number }> {
  const { loss, output, dims, weighted } = objective;
  const base = trainedModel(model, output, loss, dims.length);
  const none = { parameters: new Float32Array(), buffers: new Float32Array(), states: [] };
  const measuring = base.finishWithLoss([], [], none, { loss, temperature, dims, weighted });
  return measureLoss(
    engine,
    measuring,
    batch(dataset),
    (each) => objective.targets(each, base.activation === 'Softmax'),
    signal,
  );
}

async function runTraining(
  workspace: Workspace,
  objective: Objective,
  settings: TrainOptions,
  control: RunControl,
  clock: ReturnType<typeof startRun>,
  { curves, cache }: { curves: WandbLog | undefined; cache: MachineCache | undefined },
): Promise<Trained> {
  const { engine, working, feedsFor } = workspace;
  const { loss, metric, dims, weighted } = objective;
  const { temperature } = settings;
  const base = trainedModel(workspace.opened.model, objective.output, loss, dims.length);
  const trainable = new Graph(base.model);
  const parameters = trainableParameters(trainable);
  const own = suitableBatchNorm(trainable);
  const batchNorm = own && (settings.batchNorm ?? own);
  const weightDecay = settings.weightDecay ?? OPTIMIZERS[settings.optimizer].weightDecay;
  const optimizerSettings = { ...OPTIMIZER_DEFAULTS, momentum: settings.momentum };
  const graph = await clock.stage('build gradients', () =>
    buildTrainingGraph(
      engine,
      base.model,
      {
        ...{ loss, output: base.output, weighted, batchSize: settings.batchSize, parameters, optimizerSettings },
        ...{ optimizer: settings.optimizer, weightDecay, clipNorm: settings.clipNorm },
        ...{ emaDecay: settings.ema, accumulate: settings.accumulate, temperature, seed: settings.seed },
        batchNorm: batchNorm ?? 'frozen',
        checkpointActivations: settings.checkpointActivations,
        chooseForms: formsByMeasuring(engine, settings, { run: cache }, control),
      },
      feedsFor,
    ),
  );
  const layout = layoutOf([...parameters, ...graph.buffers]);
  const checkpointPath = settings.runDir === undefined ? undefined : join(settings.runDir, 'checkpoint.npz');
  const kept =
    settings.resume && checkpointPath !== undefined ? await readCheckpoint(checkpointPath, layout) : undefined;
  const start = kept?.vectors ?? startVectors(base.model, parameters, graph, settings.ema !== undefined);
  const stepper = await openStepper(
    engine,
    graph,
    { name: settings.optimizer, settings: optimizerSettings },
    start,
    kept?.progress.steps ?? 0,
  );
  const log = trainingLog(settings.runDir, kept !== undefined);
  // A line may have been written for an epoch whose checkpoint was not.
  const history = log.earlier.filter(({ step }) => step <= (kept?.progress.steps ?? 0));
  const rates: number[] = [];
  const targets = (batch: Batch): LossTargets => objective.targets(batch, base.activation === 'Softmax');
  try {
    const trainerOptions = trainerOptionsOf(settings, workspace, metric);
    const outcome = await clock.stage('train', () =>
      train(
        stepper,
        working.train,
        trainerOptions,
        {
          targets: { from: 'samples', of: targets },
          async evaluate(vectors) {
            const stream = batches(working.val, settings.batchSize);
            if (metric === 'loss') {
              const options = { loss, temperature, dims, weighted };
              const measuring = base.finishWithLoss(parameters, graph.buffers, vectors, options);
              return { score: (await measureLoss(engine, measuring, stream, targets, control.signal)).value };
            }
            const session = await engine.createSession(toBytes(base.finish(parameters, graph.buffers, vectors)));
            try {
              const found = await evaluateSession(session, stream, { signal: control.signal, main: metric });
              return { score: found.metric!.value };
            } finally {
              await session.release();
            }
          },
          onEvent(event) {
            log.write(event);
            curves?.write(event);
            if (event.kind === 'step') {
              rates.push(event.samplesPerSecond);
            } else {
              const { epoch, step, loss, score, learningRate, seconds } = event;
              history.push({ epoch, step, loss, score, learningRate, seconds });
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
        ...{ metric, bestEpoch: progress.best?.epoch ?? progress.epoch },
      },
      shown: {
        ...{ optimizer: settings.optimizer, learningRate: trainerOptions.learningRate, schedule: settings.schedule },
        ...{ batchSize: settings.batchSize, weightDecay, loss },
        ...(temperature !== 1 && { temperature }),
        ...(settings.augment.length > 0 && { augment: settings.augment }),
        ...(batchNorm !== undefined && { batchNorm }),
      },
    };
  } finally {
    log.close();
    await stepper.release();
  }
}
