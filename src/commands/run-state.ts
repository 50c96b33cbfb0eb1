/** The run directory of a command: what a run depends on, and whether it has been finished before. */
import { basename } from 'node:path';
import { fingerprint } from '../node/fingerprint.js';
import { openRunDirectory, type RunDirectory } from '../node/run-dir.js';
import type { RunControl } from '../progress.js';
import type { Report } from '../report/report.js';
import type { CompressOptions } from './compress/options.js';
import type { ProfileOptions } from './profile-options.js';
import type { PruneOptions } from './prune/options.js';
import type { QuantizeOptions } from './quantize/options.js';
import type { TrainOptions } from './train/options.js';
import type { Workspace } from './workspace.js';

/** Options that change where a run reads and writes, not what it finds out. */
const NOT_COMPARED = new Set([
  ...['runDir', 'resume', 'force', 'output', 'data', 'test', 'preprocessFile', 'wandb', 'teacher', 'cacheTeacher'],
]);

/**
 * Opens `settings.runDir`; undefined without one.
 * @param more of what the run depends on, by what messages call it: paths, or contents
 * @throws FlowCompressError as `openRunDirectory`
 */
export async function openRun(
  command: Report['command'],
  { opened }: Workspace,
  settings: ProfileOptions | CompressOptions | PruneOptions | QuantizeOptions | TrainOptions,
  { signal }: RunControl,
  more: Readonly<Record<string, string | Uint8Array>> = {},
): Promise<RunDirectory | undefined> {
  const { runDir, resume, data, test, preprocessFile } = settings;
  if (runDir === undefined) return undefined;
  const inputs = {
    model: opened.content,
    ...Object.fromEntries(opened.files.slice(1).map((file) => [`external data ${basename(file)}`, file])),
    data,
    ...(test !== undefined && { 'test data': test }),
    ...(preprocessFile !== undefined && { 'preprocessing file': preprocessFile }),
    ...more,
  };
  const compared = Object.fromEntries(Object.entries(settings).filter(([name]) => !NOT_COMPARED.has(name)));
  return openRunDirectory(runDir, { command, settings: compared, inputs }, { resume, signal });
}

/** The control of a run whose stages are written to the log of its directory too. */
export function logged(control: RunControl, run: RunDirectory | undefined): RunControl {
  if (!run) return control;
  return {
    ...control,
    onProgress: (event) => {
      run.onProgress(event);
      control.onProgress?.(event);
    },
  };
}

/** The report of the run, if it is finished and the output that it wrote is still there unchanged. */
export async function finishedReport<C extends Report['command']>(
  run: RunDirectory | undefined,
  command: C,
  output?: string,
): Promise<Extract<Report, { command: C }> | undefined> {
  const { report, output: written } = run?.finished ?? {};
  if (!isOf(report, command)) return undefined;
  if (output === undefined) return report;
  const there = await fingerprint(output).catch(() => undefined);
  return 'output' in report && report.output === output && there === written ? report : undefined;
}

function isOf<C extends Report['command']>(
  report: Report | undefined,
  command: C,
): report is Extract<Report, { command: C }> {
  return report?.command === command;
}
