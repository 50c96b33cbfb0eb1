/** A training as a command runs it: from the options to the weights that are best on VAL, with checkpoints, logs and curves. */
import { join } from 'node:path';
import type { ModelProto } from 'onnx-buf';
import type { Batch } from '../../data/dataset.js';
import { batches } from '../../data/loader.js';
import { readCheckpoint, writeCheckpoint } from '../../node/checkpoint.js';
import { trainingLog, type LoggedPoint } from '../../node/training-log.js';
import type { WandbLog } from '../../node/wandb.js';
import { Graph } from '../../onnx/graph.js';
import { toBytes } from '../../onnx/to-bytes.js';
import type { RunControl } from '../../progress.js';
import type { TrainingSummary } from '../../report/report.js';
import { median } from '../../runtime/latency.js';
import type { MachineCache } from '../../runtime/machine-cache.js';
import { evaluateSession } from '../../runtime/metric.js';
import { measureLoss, type LossTargets } from '../../training/measure-loss.js';
import { OPTIMIZER_DEFAULTS, OPTIMIZERS } from '../../training/optimizers.js';
import { layoutOf, trainableParameters } from '../../training/parameters.js';
import { openStepper, startVectors } from '../../training/stepper.js';
import { trainedModel, type TrainableModel } from '../../training/trained-model.js';
import { train, type Judgement, type TrainerOptions } from '../../training/trainer.js';
import { buildTrainingGraph } from '../../training/training-graph.js';
import { suitableBatchNorm } from '../../training/training-mode.js';
import { formsByMeasuring } from '../measured-machine.js';
import type { Objective } from './objective.js';
import type { TrainOptions } from './options.js';
import type { startRun } from '../run-info.js';
import type { Teaching } from './teaching.js';
import { trainerOptionsOf } from './setup.js';
import type { Workspace } from '../workspace.js';

export interface TrainingRequest {
  readonly workspace: Workspace;
  readonly objective: Objective;
  readonly settings: TrainOptions;
  readonly clock: ReturnType<typeof startRun>;
  readonly curves: WandbLog | undefined;
  readonly cache: MachineCache | undefined;
  /** A teacher beside the objective. @param base the form of the model that trains */
  readonly teach?: (base: TrainableModel, options: TrainerOptions) => Promise<Teaching>;
}

export interface Trained {
  readonly model: ModelProto;
  /** With `terms` where there is a teacher. */
  readonly history: LoggedPoint[];
  readonly summary: TrainingSummary;
  /** For the report. */
  readonly shown: Readonly<Record<string, string | number | boolean | (string | number)[]>>;
}

/** @throws FlowCompressError `unsupported` naming a node without a gradient rule, `bad-input`, `io`, `aborted` */
export async function runTraining(request: TrainingRequest, control: RunControl): Promise<Trained> {
  const { workspace, objective, settings, clock, curves, cache } = request;
  const { engine, working, feedsFor } = workspace;
  const { loss, metric, dims, weighted } = objective;
  const { temperature } = settings;
  const base = trainedModel(workspace.opened.model, objective.output, loss, dims.length);
  const trainerOptions = trainerOptionsOf(settings, workspace, metric);
  const teaching = await request.teach?.(base, trainerOptions);
  const own = trainableParameters(new Graph(base.model));
  const parameters = [...own, ...(teaching?.parameters ?? [])];
  const suitable = suitableBatchNorm(new Graph(base.model));
  const batchNorm = suitable && (settings.batchNorm ?? suitable);
  const weightDecay = settings.weightDecay ?? OPTIMIZERS[settings.optimizer].weightDecay;
  const optimizerSettings = { ...OPTIMIZER_DEFAULTS, momentum: settings.momentum };
  const trainable = teaching?.student ?? base.model;
  const graph = await clock.stage('build gradients', () =>
    buildTrainingGraph(
      engine,
      trainable,
      {
        ...{ loss, output: base.output, weighted, batchSize: settings.batchSize, parameters, optimizerSettings },
        ...{ optimizer: settings.optimizer, weightDecay, clipNorm: settings.clipNorm },
        ...{ emaDecay: settings.ema, accumulate: settings.accumulate, temperature, seed: settings.seed },
        ...(teaching && { hints: teaching.hints, observed: teaching.observed }),
        batchNorm: batchNorm ?? 'frozen',
        checkpointActivations: settings.checkpointActivations,
        chooseForms: formsByMeasuring(engine, settings, { run: cache }, control),
      },
      (rows) => ({ ...feedsFor(rows), ...teaching?.trialFeeds(rows) }),
    ),
  );
  const layout = layoutOf([...parameters, ...graph.buffers]);
  const checkpointPath = settings.runDir === undefined ? undefined : join(settings.runDir, 'checkpoint.npz');
  const kept =
    settings.resume && checkpointPath !== undefined ? await readCheckpoint(checkpointPath, layout) : undefined;
  if (kept?.progress.notes) teaching?.restore(kept.progress.notes);
  const start = kept?.vectors ?? startVectors(trainable, parameters, graph, settings.ema !== undefined);
  const stepper = await openStepper(
    engine,
    graph,
    { name: settings.optimizer, settings: optimizerSettings },
    start,
    kept?.progress.steps ?? 0,
  );
  const log = trainingLog(settings.runDir, kept !== undefined);
  // A line may have been written for an epoch whose checkpoint was not.
  const history: Trained['history'] = log.earlier.filter(({ step }) => step <= (kept?.progress.steps ?? 0));
  const rates: number[] = [];
  const targets = (batch: Batch): LossTargets | Promise<LossTargets> =>
    teaching?.targets ? teaching.targets(batch) : objective.targets(batch, base.activation === 'Softmax');
  // The means begin anew, so not before the evaluation is done: an interrupted one comes again.
  const judged = (score: number): Judgement => ({ score, ...(teaching && { terms: teaching.means() }) });
  try {
    const outcome = await clock.stage('train', () =>
      train(
        stepper,
        working.train,
        { ...trainerOptions, ...(teaching?.rounds !== undefined && { rounds: teaching.rounds }) },
        {
          targets: teaching?.answering ?? {
            from: 'samples',
            of: (batch) => objective.targets(batch, base.activation === 'Softmax'),
          },
          ...(teaching && {
            complete: (input, fed) =>
              teaching.complete(input, fed, {
                stepper,
                current: () => base.finish(own, graph.buffers, { ...stepper.vectors, average: undefined }),
              }),
            onStep: (result) => {
              teaching.onStep(result);
            },
            notes: () => teaching.notes(),
          }),
          async evaluate(vectors) {
            const stream = batches(working.val, settings.batchSize);
            if (metric === 'loss') {
              const options = { loss, temperature, dims, weighted };
              const measuring = base.finishWithLoss(own, graph.buffers, vectors, options);
              const { value } = await measureLoss(engine, measuring, stream, targets, control.signal);
              return judged(value);
            }
            const session = await engine.createSession(toBytes(base.finish(own, graph.buffers, vectors)));
            try {
              const found = await evaluateSession(session, stream, { signal: control.signal, main: metric });
              return judged(found.metric!.value);
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
              const { epoch, step, loss: mean, score, learningRate, seconds, terms } = event;
              history.push({ epoch, step, loss: mean, score, learningRate, seconds, ...(terms && { terms }) });
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
      model: base.finish(own, graph.buffers, outcome.best),
      history,
      summary: {
        parameters: own.reduce((sum, { size }) => sum + size, 0),
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
