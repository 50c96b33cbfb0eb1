/** Sweeps for tests: folders with trials that nobody really runs. */
import { planSweepFolder } from '../experiments/sweep-folder.js';
import type { SweepFolder, SweepPlan } from '../experiments/sweep-folder.js';
import { makeTrial } from '../experiments/trial.js';
import type { Trial } from '../experiments/trial.js';
import { pruneReport } from './reports.js';

export const VERSION = '0.0.0';

/** Trials of `prune` that differ in the seed. */
export function trialsOf(count: number): Trial[] {
  return Array.from({ length: count }, (_, seed) =>
    makeTrial('prune', { models: ['/nets/net.onnx'], options: { method: 'l1', seed }, labels: {} }),
  );
}

/** A planned sweep of that many trials. @param lease seconds */
export function planned(path: string, count: number, lease = 60, more: Partial<SweepPlan> = {}): Promise<SweepFolder> {
  return planSweepFolder(path, {
    ...{ version: VERSION, commands: { prune: { writes: true, resumes: true } }, inputs: {}, lease },
    trials: trialsOf(count),
    ...more,
  });
}

/** The result of a trial, as a worker keeps it. */
export function doneTrial({ id, options }: Trial, worker = 'w') {
  return { id, worker, seconds: 1, lost: 0, report: pruneReport({ seed: Number(options['seed'] ?? 0) }) };
}

export function failedTrial({ id }: Trial, code = 'bad-input') {
  return { id, worker: 'w', seconds: 1, lost: 0, error: { code, message: 'No.' } };
}
