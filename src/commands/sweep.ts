/** `sweep`, `bench` and `worker`: trials planned in a run directory, worked off by whoever helps, and what came of them. */
import { availableParallelism } from 'node:os';
import { resolve } from 'node:path';
import { FlowCompressError, throwIfAborted } from '../errors.js';
import { rankedRows, resultsOf } from '../experiments/results.js';
import type { TrialRunner } from '../experiments/run-trial.js';
import { openSweepFolder, planSweepFolder } from '../experiments/sweep-folder.js';
import type { SweepFolder, SweepPlan } from '../experiments/sweep-folder.js';
import type { SweptCommand, Trial } from '../experiments/trial.js';
import { workOff } from '../experiments/worker.js';
import type { WorkerEvent, WorkerSummary } from '../experiments/worker.js';
import { fingerprint } from '../node/fingerprint.js';
import { nodeEngine } from '../node/onnxruntime.js';
import type { RunControl } from '../progress.js';
import { counted } from '../report/format.js';
import type { BenchReport } from '../report/report.js';
import { DEFAULTS } from './options.js';
import { startRun } from './run-info.js';

/** What is to be run. */
export interface PlannedTrials extends Pick<SweepPlan, 'commands'> {
  readonly trials: readonly Trial[];
  /** Files and folders that the trials read. */
  readonly inputs: readonly string[];
  /** Lines that say what it comes to. */
  readonly note?: string;
}

/** How trials are worked off. */
export interface SweepWork {
  /** Trials at a time, in this process. */
  readonly workers?: number;
  /** Address of a Redis server; the run directory is the queue when absent. */
  readonly queue?: string;
  /** Runs the trials of another kind; for tests. */
  readonly run?: TrialRunner;
}

export interface SweepRequest extends SweepWork {
  readonly folder: string;
  readonly version: string;
  /** Absent: the plan that is in the folder. */
  readonly plan?: PlannedTrials;
  /** Seconds after which a silent worker counts as lost. */
  readonly lease?: number;
  /** Run trials that failed once more. */
  readonly retryFailed?: boolean;
  /** Only say how far it is. */
  readonly status?: boolean;
  /** Rows of a model by their figure on VAL, not in the order of the plan. */
  readonly bestFirst?: boolean;
}

/** Seconds. Workers say three or four times in it that they are there. */
export const DEFAULT_LEASE = 60;
/** Milliseconds between looks at what others have done. */
const LOOK = 2000;

/**
 * Plans the trials, works them off together with whoever else does, and waits for the last one.
 * @throws FlowCompressError `bad-input` for a folder of something else, another sweep or another version; `io`, `aborted`: the same call
 *   goes on
 */
export async function runSweep(request: SweepRequest, control: RunControl = {}): Promise<{ report: BenchReport }> {
  const {
    plan,
    version,
    workers = 1,
    retryFailed = false,
    status = false,
    bestFirst = false,
    lease = DEFAULT_LEASE,
  } = request;
  const path = resolve(request.folder);
  const clock = startRun();
  const folder =
    plan === undefined
      ? await openSweepFolder(path, version)
      : await planSweepFolder(path, { ...(await planOf(plan, workers, control)), version, lease });
  if (plan?.note !== undefined) control.onProgress?.({ stage: 'plan', done: 1, total: 1, note: plan.note });
  if (retryFailed) await folder.retryFailed();
  const work = status ? undefined : await clock.stage('trials', () => workTogether(folder, request, workers, control));
  const settled = await folder.plan();
  const results = resultsOf(settled, await folder.outcomes());
  return {
    report: {
      ...{ command: 'bench', of: commandsOf(settled.trials), folder: path, target: DEFAULTS.target },
      ...clock.info(nodeEngine({})),
      ...results,
      rows: bestFirst ? rankedRows(results.rows) : results.rows,
      ...(work && work.overhead !== undefined && { overhead: work.overhead }),
      spent: work?.seconds ?? 0,
    },
  };
}

/** In the order of the plan. */
function commandsOf(trials: readonly Trial[]): SweptCommand[] {
  return [...new Set(trials.map(({ command }) => command))];
}

async function planOf(
  { commands, trials, inputs }: PlannedTrials,
  workers: number,
  { signal, onProgress }: RunControl,
): Promise<Omit<SweepPlan, 'format' | 'queue' | 'version' | 'lease'>> {
  const prints: Record<string, string> = {};
  for (const [done, path] of inputs.entries()) {
    throwIfAborted(signal);
    onProgress?.({ stage: 'plan', done, total: inputs.length, detail: path });
    prints[path] = await fingerprint(path, signal);
  }
  const threads = workers > 1 ? Math.max(1, Math.floor(availableParallelism() / workers)) : undefined;
  return { commands, ...(threads !== undefined && { threads }), inputs: prints, trials: [...trials] };
}

async function workTogether(
  folder: SweepFolder,
  { version, queue, run }: SweepRequest,
  workers: number,
  control: RunControl,
): Promise<{ seconds: number; overhead?: number }> {
  const began = performance.now();
  const { trials } = await folder.plan();
  const running = new Map<string, number>();
  let note: string | undefined;
  let settled = 0;
  const show = (): void => {
    control.onProgress?.({
      ...{ stage: 'trials', done: settled, total: trials.length, detail: [...running.keys()].join(', ') },
      ...(note !== undefined && { note }),
    });
    note = undefined;
  };
  const look = async (): Promise<void> => {
    const { done, failed } = await folder.settled();
    settled = done.size + failed.size;
    show();
  };
  await look();
  const timer = setInterval(() => void look().catch(() => undefined), LOOK);
  try {
    const summaries = await workInParallel(folder, workers, {
      version,
      ...(queue !== undefined && { queue }),
      ...(run && { run }),
      ...(control.signal && { signal: control.signal }),
      onEvent: (event) => {
        if (event.kind === 'note') note = event.text;
        else if (event.kind === 'begun') running.set(event.trial.name, 1);
        else running.delete(event.trial.name);
        if (event.kind === 'settled') settled++;
        if (event.kind === 'unsettled') note = `${event.trial.name}: ${event.why}`;
        show();
      },
    });
    return { seconds: (performance.now() - began) / 1000, ...overheadOf(summaries) };
  } finally {
    clearInterval(timer);
  }
}

/** Time between trials, as a share of what workers had to do. */
function overheadOf(summaries: readonly WorkerSummary[]): { overhead?: number } {
  const sum = (read: (one: WorkerSummary) => number): number => summaries.reduce((total, one) => total + read(one), 0);
  const working = sum(({ seconds, waiting }) => seconds - waiting);
  if (sum(({ settled }) => settled) === 0 || working <= 0) return {};
  return { overhead: Math.min(1, Math.max(0, 1 - sum(({ busy }) => busy) / working)) };
}

type WorkOptions = Parameters<typeof workOff>[1];

/** Several workers in one process; an error of one stops the others, which give back what they have. */
async function workInParallel(folder: SweepFolder, workers: number, options: WorkOptions): Promise<WorkerSummary[]> {
  const stop = new AbortController();
  const onAbort = (): void => {
    stop.abort();
  };
  if (options.signal?.aborted) stop.abort();
  options.signal?.addEventListener('abort', onAbort, { once: true });
  const results = await Promise.allSettled(
    Array.from({ length: workers }, () =>
      workOff(folder, { ...options, signal: stop.signal }).catch((error: unknown) => {
        stop.abort();
        throw error;
      }),
    ),
  );
  options.signal?.removeEventListener('abort', onAbort);
  const errors = results.flatMap((one) => (one.status === 'rejected' ? [one.reason as unknown] : []));
  const isAborted = (error: unknown): boolean => error instanceof FlowCompressError && error.code === 'aborted';
  const [first] = [...errors.filter((error) => !isAborted(error)), ...errors];
  if (first !== undefined)
    throw isAborted(first)
      ? new FlowCompressError('aborted', 'Interrupted; trials that ran are given back.', {
          node: folder.path,
          hint: 'The same command goes on where they were.',
        })
      : first;
  return results.flatMap((one) => (one.status === 'fulfilled' ? [one.value] : []));
}

export interface WorkerRequest extends SweepWork {
  readonly folder: string;
  readonly version: string;
  readonly onEvent?: (event: WorkerEvent) => void;
  readonly signal?: AbortSignal;
}

/** What a helping process did. */
export interface WorkerReport {
  readonly command: 'worker';
  readonly folder: string;
  readonly trials: { readonly planned: number; readonly done: number; readonly failed: number };
  readonly workers: readonly WorkerSummary[];
}

/**
 * Helps with a sweep that another process has planned, until all its trials are settled.
 * @throws FlowCompressError `bad-input` for a folder without a sweep or with one of another version; `io`, `aborted`
 */
export async function helpSweep(request: WorkerRequest): Promise<{ report: WorkerReport }> {
  const { version, workers = 1, queue, run, onEvent, signal } = request;
  const folder = await openSweepFolder(resolve(request.folder), version);
  const summaries = await workInParallel(folder, workers, {
    version,
    ...(queue !== undefined && { queue }),
    ...(run && { run }),
    ...(onEvent && { onEvent }),
    ...(signal && { signal }),
  });
  const { trials } = await folder.plan();
  const { done, failed } = await folder.settled();
  return {
    report: {
      ...{ command: 'worker', folder: folder.path, workers: summaries },
      trials: { planned: trials.length, done: done.size, failed: failed.size },
    },
  };
}

/** `36 trials of prune: 18 are done, 1 failed.` */
export function progressSentence({ planned, done, failed }: WorkerReport['trials']): string {
  return `${counted(planned, 'trial')}: ${String(done)} done, ${String(failed)} failed.`;
}
