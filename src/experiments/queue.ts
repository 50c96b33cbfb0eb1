/** What a queue of trials is to a worker. */
import type { SweepFolder } from './sweep-folder.js';
import { sourcesOf } from './trial.js';
import type { Trial } from './trial.js';

/** A trial that is this worker's to run until it is settled, given back, or its heartbeat has been silent for too long. */
export interface Claim {
  readonly trial: Trial;
  /** How often in a row a worker was lost with it. */
  readonly lost: number;
  /** Says that the work goes on. @returns false when another worker has taken it over */
  beat(): Promise<boolean>;
  /** Gives it back. @param broken the work ended without a result and without being told to stop: counts as a lost worker */
  release(broken: boolean): Promise<void>;
  /** The trial has a result on disk. */
  settled(): Promise<void>;
}

/** A trial, `wait` while others run all that is left, or `done` when every trial has its result. */
export type Offer =
  { readonly kind: 'claim'; readonly claim: Claim } | { readonly kind: 'wait' } | { readonly kind: 'done' };

export interface TrialQueue {
  claim(): Promise<Offer>;
  close(): Promise<void>;
}

/** Trials without a result: those that can run, and how many there are in all. */
export interface OpenTrials {
  /** In the order of the plan. What takes the model of another trial can run once that one is settled, if only to fail by it. */
  readonly ready: readonly Trial[];
  readonly count: number;
}

/** @throws FlowCompressError `io` when the folder cannot be read */
export async function openTrials(folder: SweepFolder): Promise<OpenTrials> {
  const { trials } = await folder.plan();
  const { done, failed } = await folder.settled();
  const open = trials.filter(({ id }) => !done.has(id) && !failed.has(id));
  const pending = new Set(open.map(({ name }) => name));
  return { ready: open.filter((trial) => !sourcesOf(trial).some((name) => pending.has(name))), count: open.length };
}
