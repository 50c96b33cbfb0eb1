/** Typed progress events that every long-running function reports to its caller. */

/** `total` and `done` count units of work of one stage (samples, layers, widths); a stage starts with done = 0. */
export interface ProgressEvent {
  readonly stage: string;
  readonly done: number;
  readonly total: number;
  /** What is being worked on, for example a layer's name. */
  readonly detail?: string;
}

export type OnProgress = (event: ProgressEvent) => void;

/** Options shared by every long-running function. */
export interface RunControl {
  signal?: AbortSignal;
  onProgress?: OnProgress;
}
