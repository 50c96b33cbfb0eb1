/** What the command line needs from its surroundings; tests put in their own. */
import type { Library } from './library-types.js';

/** stdout or stderr. */
export type OutputStream = NodeJS.WritableStream & { readonly isTTY?: boolean; readonly columns?: number };

export interface CliContext {
  readonly library: Library;
  readonly version: string;
  readonly stdout: OutputStream;
  readonly stderr: OutputStream;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Fires on the first SIGINT or SIGTERM. */
  readonly signal: AbortSignal;
  /** The arguments as the shell gave them, without node and the script. */
  readonly args: readonly string[];
}

/** Colours only on a terminal that wants them; NO_COLOR and TERM=dumb switch them off. */
export function wantsColour(stream: OutputStream, env: CliContext['env']): boolean {
  return stream.isTTY === true && (env.NO_COLOR ?? '') === '' && env.TERM !== 'dumb';
}
