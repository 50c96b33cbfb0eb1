#!/usr/bin/env node
/** The executable: signals, closed pipes and the exit code around the program. */
import { readFileSync } from 'node:fs';
import { z } from 'zod';
import { EXIT } from './exit.js';
import { library } from './library.js';
import { runCli } from './program.js';

const abort = new AbortController();

/** The first signal asks the work to stop, which cleans up behind itself; the second one ends the process at once. */
function onSignal(): void {
  if (abort.signal.aborted) process.exit(EXIT.interrupted);
  abort.abort();
  process.stderr.write('\nstopping; once more to quit at once\n');
}

let outputLost = false;

/** A reader that went away (`| head`) is no error; a full disk behind `>` is. */
function onStreamError(error: NodeJS.ErrnoException): void {
  if (error.code === 'EPIPE') return;
  outputLost = true;
  process.exitCode = EXIT.badInput;
  process.stderr.write(`error: The output cannot be written: ${error.message}\n`);
}

process.on('SIGINT', onSignal);
process.on('SIGTERM', onSignal);
process.on('SIGHUP', onSignal);
/** Milliseconds in which work whose parent is gone must have stopped. */
const ORPHANED = 15_000;

// A trial of a sweep: the worker that started it tells it to stop by closing the channel, and so does the worker's end.
if (process.channel) {
  process.channel.unref();
  process.once('disconnect', () => {
    abort.abort();
    setTimeout(() => process.exit(EXIT.interrupted), ORPHANED).unref();
  });
}
process.stdout.on('error', onStreamError);
// There is nowhere left to tell it.
process.stderr.on('error', () => undefined);

const manifest = z.object({ version: z.string() });
const { version } = manifest.parse(JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')));

const exitCode = await runCli({
  library,
  version,
  stdout: process.stdout,
  stderr: process.stderr,
  env: process.env,
  signal: abort.signal,
  args: process.argv.slice(2),
});
if (!outputLost) process.exitCode = exitCode;
