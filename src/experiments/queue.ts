/** What a queue of trials is to a worker. */
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
