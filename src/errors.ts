/** The one error class of the library: what went wrong, where, and what to do about it. */

/**
 * Why an operation was refused.
 * - `bad-input`: the model, the data or an option cannot be used as given (exit code 2);
 * - `infeasible`: the budget or the allowed drop cannot be met (exit code 3);
 * - `unsupported`: the request is valid but this model holds something that cannot be handled (exit code 2);
 * - `io`: a file could not be read or written (exit code 2);
 * - `aborted`: the caller's AbortSignal fired (exit code 130);
 * - `internal`: a check of our own result failed (exit code 1).
 */
export type ErrorCode = 'bad-input' | 'infeasible' | 'unsupported' | 'io' | 'aborted' | 'internal';

export interface ErrorDetails {
  /** Name of the graph node (or file) the error is about. */
  node?: string;
  /** What the user can do about it. */
  hint?: string;
  cause?: unknown;
}

/** Error with a machine-readable code, the node or file concerned, and a remedy. */
export class FlowCompressError extends Error {
  readonly code: ErrorCode;
  readonly node?: string;
  readonly hint?: string;

  constructor(code: ErrorCode, message: string, details: ErrorDetails = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.name = 'FlowCompressError';
    this.code = code;
    this.node = details.node;
    this.hint = details.hint;
  }
}

/** Throws an `aborted` error once the signal has fired; call it between units of work. */
export function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw new FlowCompressError('aborted', 'Interrupted before the work was complete.');
}

/** Message of anything that was thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
