/** From an error to an exit code and to what the user reads about it. */
import { CommanderError } from 'commander';
import { FlowCompressError, messageOf } from '../errors.js';
import type { ErrorCode } from '../errors.js';
import { printable } from '../report/format.js';
import type { CliContext } from './context.js';

export const EXIT = { done: 0, failed: 1, badInput: 2, infeasible: 3, interrupted: 130 } as const;

const CODES: Readonly<Record<ErrorCode, number>> = {
  'bad-input': EXIT.badInput,
  unsupported: EXIT.badInput,
  io: EXIT.badInput,
  infeasible: EXIT.infeasible,
  aborted: EXIT.interrupted,
  internal: EXIT.failed,
};

/** Exit code of what a command threw; whatever was thrown after an interrupt counts as the interrupt. */
export function exitCodeOf(error: unknown, interrupted: boolean): number {
  if (error instanceof CommanderError) return error.exitCode === 0 ? EXIT.done : EXIT.badInput;
  if (error instanceof FlowCompressError && error.code !== 'internal') return CODES[error.code];
  return interrupted ? EXIT.interrupted : EXIT.failed;
}

/** `error: ...` with the node, the hint and, with DEBUG set, the stack. */
export function errorText(error: unknown, env: CliContext['env']): string {
  const lines = [`error: ${printable(messageOf(error))}`];
  if (error instanceof FlowCompressError) {
    if (error.node !== undefined) lines.push(`  node: ${printable(error.node)}`);
    if (error.hint !== undefined) lines.push(`  hint: ${printable(error.hint)}`);
  } else {
    lines[0] = `error: unexpected ${error instanceof Error ? error.name : 'failure'}: ${printable(messageOf(error))}`;
    lines.push('  hint: This is a defect of flow-compress; set DEBUG=1 to see where it happened.');
  }
  const debug = (env.DEBUG ?? '') !== '';
  if (debug && error instanceof Error && error.stack !== undefined) lines.push(error.stack);
  return `${lines.join('\n')}\n`;
}

/** What `--json` prints instead of a report when a command fails. */
export function errorJson(error: unknown, command: string | undefined, exitCode: number): string {
  const known = error instanceof FlowCompressError ? error : undefined;
  const details = {
    code: known?.code ?? (error instanceof CommanderError ? 'bad-input' : 'internal'),
    message: messageOf(error).replace(/^error: /, ''),
    node: known?.node,
    hint: known?.hint,
    exitCode,
  };
  return `${JSON.stringify({ command, error: details }, null, 2)}\n`;
}
