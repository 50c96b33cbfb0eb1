/** `train`: trains or fine-tunes a model by gradients on TRAIN; the weights that are best on VAL are written. */
import type { ModelProto } from 'onnx-buf';
import { openTest } from '../../data/sealed-test.js';
import type { Dataset } from '../../data/dataset.js';
import { assertWritableOutput } from '../../node/atomic-file.js';
import { openModel, saveModel } from '../../node/model-file.js';
import type { ModelInput } from '../../node/model-input.js';
import { stageOutput, type StagedOutput } from '../../node/staged-output.js';
import { wandbLog, type WandbLog, type WandbSdk } from '../../node/wandb.js';
import type { Measurement, TrainReport } from '../../report/report.js';
import { metricsOf } from '../../report/summary.js';
import { measureLoss } from '../../training/measure-loss.js';
import { trainedModel } from '../../training/trained-model.js';
import { measureFiles } from '../measure.js';
import { objectiveOf, type Objective } from './objective.js';
import { parseOptions } from '../parse-options.js';
import { type TrainOptions, trainOptionsSchema } from './options.js';
import { startRun } from '../run-info.js';
import { finishedReport, logged, openRun } from '../run-state.js';
import { runTraining } from './run-training.js';
import { openTrainee } from './trainee.js';
import { openWorkspace, type Workspace } from '../workspace.js';

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
    const trained = await runTraining({ workspace, objective, settings, clock, curves, cache: run?.cache }, control);
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
        ...{ dataset: test, split: 'test', clock },
        ...(metric !== 'loss' && { main: metric, val: workspace.working.val }),
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
