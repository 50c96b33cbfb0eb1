/** How commands that write a compressed model begin: options checked, data split, run directory opened or found finished. */
import type { ModelProto } from 'onnx-buf';
import { assertWritableOutput, type AtomicWriteOptions } from '../node/atomic-file.js';
import { openModel } from '../node/model-file.js';
import type { ModelInput } from '../node/model-input.js';
import type { RunDirectory } from '../node/run-dir.js';
import type { RunControl } from '../progress.js';
import type { Report } from '../report/report.js';
import type { CompressOptions } from './compress/options.js';
import type { PruneOptions } from './prune/options.js';
import type { QuantizeOptions } from './quantize/options.js';
import { startRun, type RunClock } from './run-info.js';
import { finishedReport, logged, openRun } from './run-state.js';
import { openWorkspace, type Workspace } from './workspace.js';

interface WrittenBy {
  readonly prune: PruneOptions;
  readonly quantize: QuantizeOptions;
  readonly compress: CompressOptions;
}
type WritingCommand = keyof WrittenBy;

export interface WritingRun {
  readonly clock: RunClock;
  readonly workspace: Workspace;
  readonly run: RunDirectory | undefined;
  /** Stages go to the log of the run directory too. */
  readonly control: RunControl;
  /** What the output must not replace. */
  readonly rules: AtomicWriteOptions;
  /** For the report. */
  readonly warnings: string[];
}

interface Written<C extends WritingCommand> {
  readonly model: ModelProto;
  readonly report: Extract<Report, { command: C }>;
}

/**
 * @param work what the command does; left out where the run directory holds a finished run whose output is still there
 * @throws FlowCompressError as `assertWritableOutput`, `openWorkspace`, `openRun` and the work
 */
export async function writingRun<C extends WritingCommand>(
  command: C,
  input: ModelInput,
  settings: WrittenBy[C],
  { signal, onProgress }: RunControl,
  work: (run: WritingRun) => Promise<Written<C>>,
): Promise<Written<C>> {
  const clock = startRun();
  const { force, output } = settings;
  const given = [input, settings.data, settings.test, settings.preprocessFile].filter(
    (file) => typeof file === 'string',
  );
  // The output of a finished run is no obstacle to resuming it.
  if (!settings.resume) await assertWritableOutput(output, { force, inputs: given });
  const workspace = await clock.stage('open', () => openWorkspace(input, settings, { signal, onProgress }));
  try {
    const run = await openRun(command, workspace, settings, { signal });
    const finished = await finishedReport(run, command, output);
    if (finished) return { model: (await openModel(output, { signal })).model, report: finished };
    // The model itself, where a folder was named, and its external data are known only now.
    const rules = { force, inputs: [...given, ...workspace.opened.files] };
    await assertWritableOutput(output, rules);
    const control = logged({ signal, onProgress }, run);
    const report = await work({ clock, workspace, run, control, rules, warnings: [...workspace.notes] });
    await run?.finish(report.report, output);
    return report;
  } finally {
    await workspace.close();
  }
}
