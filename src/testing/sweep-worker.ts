/** A worker as a process of its own, whose trials only wait: `sweep-worker.ts FOLDER MS [QUEUE]`. Tests kill it. */
import { appendFileSync } from 'node:fs';
import { join } from 'node:path';
import type { TrialRunner } from '../experiments/run-trial.js';
import { openSweepFolder } from '../experiments/sweep-folder.js';
import { workOff } from '../experiments/worker.js';
import { pruneReport } from './reports.js';
import { VERSION } from './sweeps.js';

const [path = '', ms = '0', queue] = process.argv.slice(2);

const run: TrialRunner = async (trial, _plan, folder) => {
  appendFileSync(join(folder.path, 'trials', 'begun'), `${trial.id} ${String(process.pid)}\n`);
  await new Promise((resolve) => setTimeout(resolve, Number(ms) * (0.5 + Math.random())));
  return { kind: 'report', report: pruneReport({ seed: Number(trial.options['seed']) }) };
};

const stop = new AbortController();
process.on('SIGTERM', () => {
  stop.abort();
});
await workOff(await openSweepFolder(path, VERSION), {
  ...{ version: VERSION, run, signal: stop.signal },
  ...(queue !== undefined && { queue }),
  onEvent: (event) => {
    if (event.kind === 'settled')
      appendFileSync(join(path, 'trials', 'settled'), `${event.trial.id} ${String(process.pid)}\n`);
    if (event.kind === 'note') process.stderr.write(`${event.text}\n`);
  },
}).catch((error: unknown) => {
  process.stderr.write(`${String(error)}\n`);
  process.exitCode = 2;
});
