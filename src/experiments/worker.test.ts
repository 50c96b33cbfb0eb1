import { mkdtemp, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { pruneReport } from '../testing/reports.js';
import { planned, trialsOf, VERSION } from '../testing/sweeps.js';
import type { Attempt, TrialRunner } from './run-trial.js';
import type { SweepFolder } from './sweep-folder.js';
import { makeTrial, referenceTo } from './trial.js';
import type { Trial } from './trial.js';
import { MOST_LOST, workOff } from './worker.js';
import type { WorkerEvent, WorkerSummary } from './worker.js';

let path = '';
beforeEach(async () => {
  path = await mkdtemp(join(tmpdir(), 'flow-worker-'));
});
afterEach(() => rm(path, { recursive: true }));

const REPORT: Attempt = { kind: 'report', report: pruneReport() };
const error = (code: string): Attempt => ({ kind: 'error', error: { code, message: 'So it went.' } });

interface Work {
  readonly summary?: WorkerSummary;
  readonly thrown?: unknown;
  readonly events: WorkerEvent[];
  /** Seeds of the trials in the order in which they ran. */
  readonly ran: number[];
}

/** A worker whose attempts go as `attempt` says. */
async function work(
  folder: SweepFolder,
  attempt: (seed: number, signal: AbortSignal) => Attempt | Promise<Attempt>,
  signal?: AbortSignal,
): Promise<Work> {
  const events: WorkerEvent[] = [];
  const ran: number[] = [];
  const run: TrialRunner = async (trial, _plan, _folder, own) => {
    ran.push(Number(trial.options['seed']));
    return attempt(Number(trial.options['seed']), own);
  };
  const options = {
    version: VERSION,
    run,
    ...(signal && { signal }),
    onEvent: (event: WorkerEvent) => events.push(event),
  };
  return workOff(folder, options).then(
    (summary) => ({ summary, events, ran }),
    (thrown: unknown) => ({ thrown, events, ran }),
  );
}

const leasesOf = async (seed: number): Promise<{ ended?: string; lost: number }[]> => {
  const { id } = trialsOf(seed + 1)[seed]!;
  const names = (await readdir(join(path, 'leases'))).filter((name) => name.startsWith(`${id}.`)).sort();
  return Promise.all(
    names.map(async (name) => JSON.parse(await readFile(join(path, 'leases', name), 'utf8')) as { lost: number }),
  );
};

describe('a worker', () => {
  it('writes down what fails, goes on with the rest, and tries failed ones again only when told to', async () => {
    const folder = await planned(path, 4);
    const first = await work(folder, (seed) =>
      seed === 1 ? error('infeasible') : seed === 2 ? error('internal') : REPORT,
    );
    expect(first.ran).toEqual([0, 1, 2, 3]);
    expect(first.summary!.settled).toBe(4);
    const outcomes = [...(await folder.outcomes()).values()];
    expect(outcomes.flatMap((one) => ('error' in one ? [one.error.code] : [])).sort()).toEqual([
      'infeasible',
      'internal',
    ]);
    expect((await work(folder, () => REPORT)).ran).toEqual([]);
    await folder.retryFailed();
    expect((await work(folder, () => REPORT)).ran).toEqual([1, 2]);
  });

  it('takes up a trial whose process was killed, and gives it up after some', async () => {
    const folder = await planned(path, 2);
    const { ran } = await work(folder, (seed) => (seed === 0 ? { kind: 'killed', by: 'SIGKILL' } : REPORT));
    expect(ran.filter((seed) => seed === 0)).toHaveLength(MOST_LOST);
    const outcome = (await folder.outcomes()).get(trialsOf(1)[0]!.id)!;
    expect('error' in outcome && outcome.error.code).toBe('lost');
    expect((await folder.settled()).done.size).toBe(1);
  });

  it('stops where files cannot be read or written, giving its trial back for others', async () => {
    const folder = await planned(path, 3);
    const { thrown, ran } = await work(folder, (seed) => (seed === 1 ? error('io') : REPORT));
    expect(thrown).toMatchObject({ code: 'io', message: expect.stringMatching(/So it went/) as string });
    expect(ran).toEqual([0, 1]);
    expect((await folder.settled()).failed.size).toBe(0);
    expect((await work(folder, () => REPORT)).ran).toEqual([1, 2]);
  });

  it('stops where a result cannot be kept, and loses nothing by it', async () => {
    const folder = await planned(path, 2);
    const done = join(path, 'done');
    const { thrown, ran } = await work(folder, async (seed) => {
      if (seed === 1) {
        await rename(done, `${done}-`);
        await writeFile(done, 'no folder any more');
      }
      return REPORT;
    });
    expect(thrown).toMatchObject({ code: 'io' });
    expect(ran).toEqual([0, 1]);
    await rm(done);
    await rename(`${done}-`, done);
    expect((await work(folder, () => REPORT)).ran).toEqual([1]);
  });

  it('runs a trial after the one whose model it takes, and fails it with that one', async () => {
    const [first, second] = trialsOf(2);
    const on = (source: Trial, seed: number): Trial =>
      makeTrial('quantize', { models: [referenceTo(source)], options: { seed }, labels: {} });
    // In front of their sources, which only the queue puts right.
    const trials = [on(second!, 11), on(first!, 10), first!, second!];
    const folder = await planned(path, 0, 60, { trials });
    const one = await work(folder, (seed) => (seed === 1 ? error('infeasible') : REPORT));
    expect(one.ran).toEqual([0, 10, 1]);
    const outcomes = await folder.outcomes();
    expect(outcomes.get(trials[0]!.id)).toMatchObject({
      error: { code: 'infeasible', message: expect.stringContaining(second!.name) as string },
    });
    await folder.retryFailed();
    expect((await work(folder, () => REPORT)).ran).toEqual([1, 11]);
  });

  it('waits for a model that another worker is making', async () => {
    const [first] = trialsOf(1);
    const second = makeTrial('quantize', { models: [referenceTo(first!)], options: { seed: 10 }, labels: {} });
    const folder = await planned(path, 0, 60, { trials: [first!, second] });
    let isMade = false;
    const other = work(folder, async (seed) => {
      if (seed === 0) await new Promise((resolve) => setTimeout(resolve, 1200));
      if (seed === 0) isMade = true;
      return REPORT;
    });
    await new Promise((resolve) => setTimeout(resolve, 100));
    const mine = await work(folder, (seed) => (seed === 0 || !isMade ? error('internal') : REPORT));
    await other;
    expect((await folder.settled()).failed.size).toBe(0);
    expect(mine.summary!.waiting).toBeGreaterThan(0);
  });

  it('gives its trial back when it is interrupted', async () => {
    const folder = await planned(path, 2);
    const stop = new AbortController();
    const stopped = await work(
      folder,
      (_, own) => {
        stop.abort();
        return own.aborted ? { kind: 'stopped' } : REPORT;
      },
      stop.signal,
    );
    expect(stopped.thrown).toMatchObject({ code: 'aborted' });
    expect(await leasesOf(0)).toMatchObject([{ ended: 'stopped', lost: 0 }]);
    expect((await work(folder, () => REPORT)).ran).toEqual([0, 1]);
    expect(await leasesOf(0)).toMatchObject([{ ended: 'stopped' }, { ended: 'settled', lost: 0 }]);
  });

  it('stops a trial that another worker has taken over while it was silent', async () => {
    const folder = await planned(path, 1, 0.4);
    const { id } = trialsOf(1)[0]!;
    const { events } = await work(folder, async (_, own) => {
      await writeFile(
        join(path, 'leases', `${id}.2`),
        JSON.stringify({ worker: 'other', pid: 1, version: VERSION, lost: 1 }),
      );
      await new Promise((resolve) => own.addEventListener('abort', resolve, { once: true }));
      // The other one is as fast as can be.
      await folder.settle({ id, worker: 'other', seconds: 1, lost: 1, report: pruneReport() });
      return { kind: 'stopped' };
    });
    expect(events).toContainEqual(expect.objectContaining({ kind: 'unsettled', why: 'another worker took it over' }));
    expect((await folder.outcomes()).get(id)?.worker).toBe('other');
  });

  it('says that it is there while a trial runs for longer than its lease', async () => {
    const folder = await planned(path, 1, 0.6);
    const { ran } = await work(folder, async () => {
      const rival = work(folder, () => REPORT);
      await new Promise((resolve) => setTimeout(resolve, 1500));
      void rival;
      return REPORT;
    });
    await new Promise((resolve) => setTimeout(resolve, 1500));
    expect(ran).toEqual([0]);
    expect(await leasesOf(0)).toHaveLength(1);
  });

  it('knows how long it was busy', async () => {
    const folder = await planned(path, 3);
    const { summary } = await work(folder, async () => {
      await new Promise((resolve) => setTimeout(resolve, 100));
      return REPORT;
    });
    expect(summary!.busy).toBeGreaterThanOrEqual(0.29);
    expect(summary!.busy).toBeLessThanOrEqual(summary!.seconds);
    expect(summary!.waiting).toBe(0);
  });
});
