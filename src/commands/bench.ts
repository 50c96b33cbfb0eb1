/** `bench`: methods side by side, each under the same options. Every run's report is kept, so an interrupted comparison goes on. */
import { mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { FlowCompressError, messageOf, throwIfAborted } from '../errors.js';
import { writeFileAtomically } from '../node/atomic-file.js';
import { errorCode } from '../node/error-code.js';
import { nodeEngine } from '../node/onnxruntime.js';
import type { RunControl } from '../progress.js';
import { baseName } from '../report/format.js';
import { reportToJson } from '../report/json.js';
import {
  parseReport,
  type BenchReport,
  type BenchRow,
  type CompressReport,
  type DistillReport,
  type PruneReport,
  type QuantizeReport,
  type Statistic,
} from '../report/report.js';
import { latenciesOf } from '../report/summary.js';
import { DEFAULTS } from './options.js';
import { startRun } from './run-info.js';

/** A report that says what a model was before and after. */
export type ComparedReport = QuantizeReport | PruneReport | DistillReport | CompressReport;

/** One run of a method. */
export interface BenchTrial {
  readonly model: string;
  readonly method: string;
  /** What is swept over, by name of the option. */
  readonly options: Readonly<Record<string, string>>;
  readonly seed: number;
}

export interface BenchRequest {
  readonly of: BenchReport['of'];
  readonly trials: readonly BenchTrial[];
  /** Where reports and models go. */
  readonly folder: string;
  /** What every trial has in common, in one line: a folder is of one comparison. */
  readonly key: string;
  /** Makes the model and says what it is. @param output path of the model */
  readonly run: (trial: BenchTrial, output: string, control: RunControl) => Promise<{ report: ComparedReport }>;
}

const KEY_FILE = 'comparison.json';

/**
 * @throws FlowCompressError `bad-input` for a folder of another comparison or with files that are no reports; `io`, `aborted`; what
 *   the runs throw, but for limits that a method does not meet: its row is left out, with a warning
 */
export async function benchMethods(request: BenchRequest, control: RunControl = {}): Promise<{ report: BenchReport }> {
  const clock = startRun();
  const began = performance.now();
  const { of, trials, folder, run } = request;
  await claim(folder, `${of} ${request.key}`);
  const warnings: string[] = [];
  const found: { trial: BenchTrial; report: ComparedReport }[] = [];
  for (const [done, trial] of trials.entries()) {
    throwIfAborted(control.signal);
    const name = nameOf(trial);
    control.onProgress?.({ stage: 'compare', done, total: trials.length, detail: name });
    const path = join(folder, `${name}.json`);
    const known = await readReport(path);
    try {
      const report =
        known ?? (await clock.stage(name, () => run(trial, join(folder, `${name}.onnx`), quietly(control)))).report;
      if (!known) await writeFileAtomically(path, reportToJson(report), { force: true });
      found.push({ trial, report });
    } catch (error) {
      if (!(error instanceof FlowCompressError) || error.code !== 'infeasible') throw error;
      warnings.push(`${name}: ${error.message}`);
    }
  }
  control.onProgress?.({ stage: 'compare', done: trials.length, total: trials.length });
  return {
    report: {
      ...{ command: 'bench', of, folder, target: DEFAULTS.target },
      ...clock.info(nodeEngine({})),
      ...(warnings.length > 0 && { warnings }),
      rows: rowsOf(found),
      spent: (performance.now() - began) / 1000,
    },
  };
}

/** The stages of a run would hide how far the comparison is. */
function quietly({ signal }: RunControl): RunControl {
  return signal ? { signal } : {};
}

async function claim(folder: string, key: string): Promise<void> {
  const path = join(folder, KEY_FILE);
  await mkdir(folder, { recursive: true }).catch((error: unknown) => {
    throw new FlowCompressError('io', `${folder} cannot be made: ${messageOf(error)}`, {
      node: folder,
      hint: 'Give another --folder.',
      cause: error,
    });
  });
  const text = JSON.stringify({ key });
  const before = await readText(path);
  if (before === undefined) {
    await writeFileAtomically(path, text, { force: true });
    return;
  }
  if (before === text) return;
  throw new FlowCompressError('bad-input', `${folder} has a comparison under other options.`, {
    node: folder,
    hint: 'Give another --folder, or the options that it was begun with.',
  });
}

async function readReport(path: string): Promise<ComparedReport | undefined> {
  const text = await readText(path);
  if (text === undefined) return undefined;
  try {
    const report = parseReport(JSON.parse(text));
    if ('before' in report && 'after' in report && report.command !== 'train') return report;
    throw new Error(`It is a report of ${report.command}.`);
  } catch (error) {
    throw new FlowCompressError('bad-input', `${path} is not the report of a run: ${messageOf(error)}`, {
      node: path,
      hint: 'Remove the file: its run is made again.',
      cause: error,
    });
  }
}

async function readText(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    if (errorCode(error) === 'ENOENT') return undefined;
    throw new FlowCompressError('io', `${path} cannot be read: ${messageOf(error)}`, { node: path, cause: error });
  }
}

function nameOf({ model, method, options, seed }: BenchTrial): string {
  const parts = [
    baseName(model).replace(/\.onnx$/, ''),
    method,
    ...Object.entries(options).flat(),
    `seed-${String(seed)}`,
  ];
  return parts.map((part) => part.replace(/[^a-z0-9.]+/gi, '-')).join('-');
}

/** Runs that differ in nothing but the seed are one row. */
function rowsOf(found: readonly { trial: BenchTrial; report: ComparedReport }[]): BenchRow[] {
  const groups = new Map<string, typeof found>();
  for (const one of found) {
    const { model, method, options } = one.trial;
    const key = JSON.stringify([model, options, method]);
    groups.set(key, [...(groups.get(key) ?? []), one]);
  }
  return [...groups.values()].map((runs): BenchRow => {
    const { model, method, options } = runs[0]!.trial;
    const reports = runs.map(({ report }) => report);
    const of = (read: (report: ComparedReport) => number | undefined): Statistic | undefined =>
      statisticOf(reports.map(read));
    const before = of(({ before: side }) => side.metric?.value);
    const after = of(({ after: side }) => side.metric?.value);
    const optional = {
      agreement: of(({ after: side }) => side.metrics?.find(({ name }) => name === 'agreement')?.value),
      macs: of((report) => ratio(report.after.macs, report.before.macs)),
      latency: of((report) => ratio(lastLatency(report.after), lastLatency(report.before))),
      updates: of(updatesOf),
    };
    return {
      ...{ model: baseName(model), method, options: { ...options }, seeds: runs.length },
      ...(before && after && { metric: { name: reports[0]!.after.metric!.name, before, after } }),
      bytes: { before: of((report) => report.before.bytes)!, after: of((report) => report.after.bytes)! },
      seconds: of((report) => report.seconds)!,
      ...Object.fromEntries(Object.entries(optional).filter(([, value]) => value !== undefined)),
    };
  });
}

function updatesOf(report: ComparedReport): number | undefined {
  if (report.command === 'distill') return report.training.steps;
  const parts = [report.recovery, ...(report.command === 'compress' ? [report.learning] : [])];
  const known = parts.flatMap((part) => (part ? [part.steps] : []));
  return known.length > 0 ? known.reduce((a, b) => a + b, 0) : undefined;
}

function lastLatency(side: ComparedReport['after']): number | undefined {
  return latenciesOf(side).at(-1)?.medianMs;
}

function ratio(after: number | undefined, before: number | undefined): number | undefined {
  return after === undefined || before === undefined || before === 0 ? undefined : after / before;
}

/** Undefined where a run has no such figure. */
function statisticOf(values: readonly (number | undefined)[]): Statistic | undefined {
  const known = values.filter((value) => value !== undefined);
  if (known.length < values.length || known.length === 0) return undefined;
  return {
    mean: known.reduce((a, b) => a + b, 0) / known.length,
    least: Math.min(...known),
    most: Math.max(...known),
  };
}
