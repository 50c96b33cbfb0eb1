/** Runs a trial in a process of its own: our command line, with the options of the trial in a file. */
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { messageOf } from '../errors.js';
import { writeFileAtomically } from '../node/atomic-file.js';
import { parseReport } from '../report/report.js';
import type { Report } from '../report/report.js';
import type { SweepFolder, SweepPlan } from './sweep-folder.js';
import { referredTo } from './trial.js';
import type { OptionValue, Trial } from './trial.js';

/** What came of an attempt. */
export type Attempt =
  | { readonly kind: 'report'; readonly report: Report }
  | { readonly kind: 'error'; readonly error: { code: string; message: string; hint?: string } }
  /** Told to stop, and stopped. */
  | { readonly kind: 'stopped' }
  /** Ended by somebody else, for example for want of memory. */
  | { readonly kind: 'killed'; readonly by: string };

/** Runs one attempt; a fired signal stops it so that it can be resumed. */
export type TrialRunner = (trial: Trial, plan: SweepPlan, folder: SweepFolder, signal: AbortSignal) => Promise<Attempt>;

/** Exit code of an interrupted command. */
const INTERRUPTED = 130;
/** Milliseconds that a stopped process gets to write down where it is. */
const GRACE = 20_000;
/** Characters of stderr that are kept for a process that says nothing else. */
const TAIL = 2000;

/** @throws FlowCompressError `io` when the trial's folder cannot be written */
export const runTrial: TrialRunner = async (trial, plan, folder, signal) => {
  const own = await folder.trialFolder(trial);
  const config = join(own, 'options.json');
  // What another trial wrote, by its place in the folder, wherever that is today.
  const placed = <T extends OptionValue>(value: T): T | string => {
    const source = referredTo(value);
    return source === undefined ? value : folder.modelOf(source);
  };
  const options = Object.fromEntries(Object.entries(trial.options).map(([name, value]) => [name, placed(value)]));
  await writeFileAtomically(config, `${JSON.stringify(options, null, 1)}\n`, { force: true });
  const { writes, resumes } = plan.commands[trial.command]!;
  const threads = plan.threads === undefined || 'threads' in trial.options ? [] : ['--threads', String(plan.threads)];
  const args = [
    ...[trial.command, ...trial.models.map(placed), '--config', config, ...threads, '--json', '--quiet', '--force'],
    ...(writes ? ['--output', folder.modelOf(trial.name)] : []),
    ...(resumes ? ['--run-dir', join(own, 'run'), '--resume'] : []),
  ];
  return new Promise((resolve) => {
    // Over the channel the process notices that this one is gone, however that came about.
    const child = spawn(process.execPath, [...commandLine(), ...args], { stdio: ['ignore', 'pipe', 'pipe', 'ipc'] });
    const stdout: Buffer[] = [];
    let stderr = '';
    child.stdout?.on('data', (chunk: Buffer) => stdout.push(chunk));
    child.stderr?.on('data', (chunk: Buffer) => {
      stderr = (stderr + chunk.toString()).slice(-TAIL);
    });
    let timer: NodeJS.Timeout | undefined;
    const stop = (): void => {
      if (child.connected) child.disconnect();
      timer = setTimeout(() => child.kill('SIGKILL'), GRACE);
    };
    if (signal.aborted) stop();
    else signal.addEventListener('abort', stop, { once: true });
    let settled = false;
    const settle = (attempt: Attempt): void => {
      if (settled) return;
      settled = true;
      clearTimeout(timer);
      signal.removeEventListener('abort', stop);
      resolve(attempt);
    };
    child.on('error', (error) => {
      settle({ kind: 'error', error: { code: 'io', message: `No process can be started: ${messageOf(error)}` } });
    });
    // Its event `close` does not come once the channel was closed from this side.
    const closed = [child.stdout, child.stderr].map(
      (stream) => new Promise((resolveStream) => stream?.once('close', resolveStream)),
    );
    child.once('exit', (code, by) => {
      void Promise.all(closed).then(() => {
        settle(attemptOf(code, by, Buffer.concat(stdout).toString(), stderr, signal.aborted));
      });
    });
  });
};

function attemptOf(
  code: number | null,
  by: string | null,
  stdout: string,
  stderr: string,
  wasStopped: boolean,
): Attempt {
  const said = parsed(stdout);
  if (said?.kind === 'report') return said;
  if (wasStopped) return { kind: 'stopped' };
  if (by !== null) return { kind: 'killed', by };
  if (code === INTERRUPTED) return { kind: 'killed', by: 'an interrupt' };
  if (said) return said;
  const message = stderr.trim() === '' ? `It ended with exit code ${String(code)} and said nothing.` : stderr.trim();
  return { kind: 'error', error: { code: 'internal', message } };
}

/** The report or the error that a command printed; undefined where it did neither. */
function parsed(stdout: string): Attempt | undefined {
  try {
    const value = JSON.parse(stdout) as { error?: { code: string; message: string; hint?: string } };
    const { error } = value;
    if (error !== undefined)
      return {
        kind: 'error',
        error: { code: error.code, message: error.message, ...(error.hint !== undefined && { hint: error.hint }) },
      };
    return { kind: 'report', report: parseReport(value) };
  } catch {
    return undefined;
  }
}

/** Arguments of node that start our command line, built or from the source. */
function commandLine(): string[] {
  const built = fileURLToPath(new URL('../cli/main.js', import.meta.url));
  if (existsSync(built)) return [built];
  return ['--import', import.meta.resolve('tsx'), fileURLToPath(new URL('../cli/main.ts', import.meta.url))];
}
