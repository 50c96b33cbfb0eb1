/** The end of commands that write a model: the file is made beside its destination and measured on TEST there. */
import type { ModelProto } from 'onnx-buf';
import { openTest } from '../data/sealed-test.js';
import type { AtomicWriteOptions } from '../node/atomic-file.js';
import { saveModel, type SavedModel } from '../node/model-file.js';
import { nameOf } from '../node/model-input.js';
import { stageOutput, type StagedOutput } from '../node/staged-output.js';
import type { RunControl } from '../progress.js';
import type { Measurement } from '../report/report.js';
import { measureFiles, type MeasuredSubject, type MeasureOptions } from './measure.js';
import type { RunClock } from './run-info.js';
import type { Workspace } from './workspace.js';

export interface WrittenModel {
  readonly output: StagedOutput;
  readonly saved: SavedModel;
  /** What the file is measured beside. */
  readonly original: MeasuredSubject;
  /** How both were measured. */
  readonly measureOptions: MeasureOptions;
  readonly before: Measurement;
  readonly after: Measurement;
  readonly warnings: readonly string[];
  /** Moves the file to its destination. */
  publish(): Promise<void>;
}

/**
 * @param rules inputs that the output must not replace
 * @param original what the file is measured beside (default: the model that the command was given)
 * @returns what is to be published or discarded
 * @throws FlowCompressError as `stageOutput`, `saveModel` and `measureFiles`; nothing is left behind then
 */
export async function writeMeasured(
  workspace: Workspace,
  model: ModelProto,
  settings: {
    readonly output: string;
    readonly threads?: number | undefined;
    readonly latencyRuns?: number | undefined;
  },
  rules: AtomicWriteOptions,
  clock: RunClock,
  control: RunControl,
  original: MeasuredSubject = { input: workspace.input, shownAs: nameOf(workspace.input) },
): Promise<WrittenModel> {
  const { signal } = control;
  const output = await stageOutput(settings.output, { ...rules, signal });
  try {
    const saved = await clock.stage('write', () => output.make((file) => saveModel(model, file, { signal })));
    const measureOptions: MeasureOptions = {
      ...{ dataset: openTest(workspace.test), split: 'test', val: workspace.working.val, clock },
      ...{ threads: settings.threads, latencyRuns: settings.latencyRuns },
    };
    const { files, warnings } = await measureFiles(
      workspace,
      [original, { input: saved.path, shownAs: settings.output }],
      measureOptions,
      control,
    );
    const [before, after] = files.map((file) => file.measurement) as [Measurement, Measurement];
    return {
      ...{ output, saved, original, measureOptions, before, after, warnings },
      publish: () => output.publish([...saved.externalFiles, saved.path]),
    };
  } catch (error) {
    await output.discard();
    throw error;
  }
}
