/** Typed progress events that every long-running function reports to its caller. */
import { throwIfAborted } from './errors.js';

/** `total` and `done` count units of work of one stage (samples, layers, widths); a stage starts with done = 0. */
export interface ProgressEvent {
  readonly stage: string;
  readonly done: number;
  readonly total: number;
  /** What is being worked on, for example a layer's name. */
  readonly detail?: string;
  /** Lines that the user should see before the work goes on, for example what is planned. */
  readonly note?: string;
}

export type OnProgress = (event: ProgressEvent) => void;

/**
 * Call it between units of synchronous work that together take long: lets events that wait be handled, an interrupt
 * among them.
 * @throws FlowCompressError `aborted` once the signal has fired
 */
export async function pause(signal: AbortSignal | undefined): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve));
  throwIfAborted(signal);
}

/** Options shared by every long-running function. */
export interface RunControl {
  signal?: AbortSignal;
  onProgress?: OnProgress;
}
