/** A worker: takes trials from a queue, one after another, until every trial of the sweep has its result. */
import { randomBytes } from 'node:crypto';
import { hostname } from 'node:os';
import { FlowCompressError, throwIfAborted } from '../errors.js';
import { folderQueue } from './folder-queue.js';
import type { Claimant } from './folder-queue.js';
import type { Claim, TrialQueue } from './queue.js';
import { redisQueue } from './redis-queue.js';
import { runTrial } from './run-trial.js';
import type { Attempt, TrialRunner } from './run-trial.js';
import type { SweepFolder, TrialOutcome } from './sweep-folder.js';
import { sourcesOf } from './trial.js';
import type { Trial } from './trial.js';

export interface WorkerOptions {
  readonly version: string;
  /** Address of a Redis server; the folder is the queue when absent. */
  readonly queue?: string;
  readonly signal?: AbortSignal;
  readonly onEvent?: (event: WorkerEvent) => void;
  readonly run?: TrialRunner;
}

export type WorkerEvent =
  | { readonly kind: 'begun'; readonly trial: Trial; readonly lost: number }
  | { readonly kind: 'settled'; readonly trial: Trial; readonly outcome: TrialOutcome }
  | { readonly kind: 'unsettled'; readonly trial: Trial; readonly why: string }
  | { readonly kind: 'note'; readonly text: string };

/** How a worker spent its time, in seconds. */
export interface WorkerSummary {
  readonly worker: string;
  /** Trials that it brought to a result or an error. */
  readonly settled: number;
  readonly seconds: number;
  /** While trials ran. */
  readonly busy: number;
  /** While nothing was left to take and others still ran theirs. */
  readonly waiting: number;
}

/** A trial with which so many workers were lost one after another is given up. */
export const MOST_LOST = 5;
/** Seconds between two looks at a queue that has nothing to give. */
const LOOK = 1;

/**
 * Works until all trials are settled.
 * @throws FlowCompressError `aborted` when the signal fired, the running trial being given back; `io` when the folder or the queue cannot
 *   be read or written, or a trial could not read or write its files: it is given back, since another machine may be able to
 */
export async function workOff(folder: SweepFolder, options: WorkerOptions): Promise<WorkerSummary> {
  const { version, signal, onEvent = () => undefined, run = runTrial } = options;
  const { lease } = await folder.plan();
  const claimant: Claimant = { version, worker: workerName() };
  const queue: TrialQueue =
    options.queue === undefined
      ? folderQueue(folder, claimant)
      : await redisQueue(options.queue, folder, claimant, {
          onNote: (text) => {
            onEvent({ kind: 'note', text });
          },
        });
  const began = performance.now();
  let busy = 0;
  let waiting = 0;
  let settled = 0;
  try {
    for (;;) {
      throwIfAborted(signal);
      const offer = await queue.claim();
      if (offer.kind === 'done') break;
      if (offer.kind === 'wait') {
        waiting += LOOK;
        await sleep(1000 * LOOK, signal);
        continue;
      }
      const { claim } = offer;
      onEvent({ kind: 'begun', trial: claim.trial, lost: claim.lost });
      const from = performance.now();
      const attempt = await attemptTrial(claim, run);
      const seconds = (performance.now() - from) / 1000;
      busy += seconds;
      await conclude(claim, attempt, seconds);
    }
  } finally {
    await queue.close();
  }
  return { worker: claimant.worker, settled, seconds: (performance.now() - began) / 1000, busy, waiting };

  async function attemptTrial(claim: Claim, runner: TrialRunner): Promise<Attempt | { readonly kind: 'taken' }> {
    if (claim.lost >= MOST_LOST) {
      const message = `${String(claim.lost)} workers were lost with it, one after another.`;
      const hint = 'Perhaps it needs more memory than there is. --retry-failed runs it again.';
      return { kind: 'error', error: { code: 'lost', message, hint } };
    }
    const missing = await failedSource(claim.trial);
    if (missing) return missing;
    const stop = new AbortController();
    const onAbort = (): void => {
      stop.abort();
    };
    signal?.addEventListener('abort', onAbort, { once: true });
    let isTaken = false;
    const timer = setInterval(() => {
      claim
        .beat()
        .then((isMine) => {
          if (isMine) return;
          isTaken = true;
          stop.abort();
        })
        // A beat that cannot be written is no reason to give up: the next one may.
        .catch(() => undefined);
    }, 250 * lease);
    try {
      if (signal?.aborted) return { kind: 'stopped' };
      const attempt = await runner(claim.trial, await folder.plan(), folder, stop.signal);
      return attempt.kind === 'stopped' && isTaken ? { kind: 'taken' } : attempt;
    } catch (error) {
      await claim.release(true).catch(() => undefined);
      throw error;
    } finally {
      clearInterval(timer);
      signal?.removeEventListener('abort', onAbort);
    }
  }

  /** What a trial comes to whose model was not made: the code is that of the failure, so that a limit that was missed stays one. */
  async function failedSource(trial: Trial): Promise<Attempt | undefined> {
    const sources = sourcesOf(trial);
    if (sources.length === 0) return undefined;
    const { trials } = await folder.plan();
    const { done } = await folder.settled();
    const source = trials.find(({ id, name }) => sources.includes(name) && !done.has(id));
    const outcome = source && (await folder.outcomes()).get(source.id);
    if (!source || !outcome || !('error' in outcome)) return undefined;
    const message = `${source.name}, whose model it takes, failed.`;
    return { kind: 'error', error: { code: outcome.error.code, message } };
  }

  async function conclude(claim: Claim, attempt: Attempt | { kind: 'taken' }, seconds: number): Promise<void> {
    const { trial, lost } = claim;
    const ran = { id: trial.id, worker: claimant.worker, seconds, lost };
    const giveBack = async (isBroken: boolean, why: string): Promise<void> => {
      await claim.release(isBroken);
      onEvent({ kind: 'unsettled', trial, why });
    };
    switch (attempt.kind) {
      case 'taken':
        onEvent({ kind: 'unsettled', trial, why: 'another worker took it over' });
        return;
      case 'stopped':
        return giveBack(false, 'given back');
      case 'killed':
        return giveBack(true, `its process was ended by ${attempt.by}`);
      case 'report':
        return keep({ ...ran, report: attempt.report });
      case 'error': {
        const { code, message, hint } = attempt.error;
        if (code !== 'io') return keep({ ...ran, error: attempt.error });
        // On a full disk not even that can be written: the lease then runs out.
        await giveBack(true, message).catch(() => undefined);
        throw new FlowCompressError('io', `${trial.name} could not go on: ${message}`, {
          node: folder.path,
          hint: `${hint ?? 'Check the disk and the paths.'} The trial is given back; the same command goes on.`,
        });
      }
    }

    async function keep(outcome: TrialOutcome): Promise<void> {
      const isFirst = await folder.settle(outcome).catch(async (error: unknown) => {
        await claim.release(false).catch(() => undefined);
        throw error;
      });
      await claim.settled();
      if (isFirst) settled++;
      onEvent(
        isFirst
          ? { kind: 'settled', trial, outcome }
          : { kind: 'unsettled', trial, why: 'another worker was faster with it' },
      );
    }
  }
}

function workerName(): string {
  const host = hostname().replace(/[^a-z0-9-]+/gi, '-');
  return `${host}-${String(process.pid)}-${randomBytes(4).toString('hex')}`;
}

function sleep(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const end = (): void => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', end);
      resolve();
    };
    const timer = setTimeout(end, ms);
    signal?.addEventListener('abort', end, { once: true });
  });
}
