/**
 * The run directory as a queue. A lease is a file `<trial>.<n>`: whoever creates number n has the trial, and creating a file
 * succeeds for exactly one. Its owner writes to it now and then; one that is given back or silent for too long is followed
 * by number n + 1. Nothing is ever renamed or removed, so that two workers that see the same silent lease can only race for the
 * same new file.
 *
 * Times are those that the file system gives to files when it writes them, never those of a machine's clock.
 */
import { open, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { FlowCompressError, messageOf } from '../errors.js';
import { writeError } from '../node/atomic-file.js';
import { errorCode } from '../node/error-code.js';
import { openTrials } from './queue.js';
import type { Claim, Offer, TrialQueue } from './queue.js';
import { list } from './sweep-folder.js';
import type { SweepFolder } from './sweep-folder.js';
import type { Trial } from './trial.js';

const leaseSchema = z.object({
  worker: z.string(),
  pid: z.number(),
  version: z.string(),
  /** Workers lost with this trial, one after another. */
  lost: z.number().int().nonnegative(),
  /** Why the next one need not wait. */
  ended: z.enum(['settled', 'stopped', 'broken']).optional(),
});
type Lease = z.infer<typeof leaseSchema>;

/** Who claims. */
export interface Claimant {
  /** Unique among all workers: host, process and a random part. */
  readonly worker: string;
  readonly version: string;
}

/** @throws FlowCompressError `io` from its methods when the folder cannot be read or written */
export function folderQueue(folder: SweepFolder, { worker, version }: Claimant): TrialQueue {
  const leases = join(folder.path, 'leases');
  const fileOf = (id: string, turn: number): string => join(leases, `${id}.${String(turn)}`);
  const probe = join(leases, `.clock-${worker}`);
  const mine: Omit<Lease, 'lost'> = { worker, pid: process.pid, version };

  /** The time of the file system, by a file that is written now. */
  async function now(): Promise<number> {
    await writeFile(probe, '').catch((error: unknown) => {
      throw writeError(probe, error);
    });
    return (await stat(probe)).mtimeMs;
  }

  async function claimTurn(trial: Trial, turn: number, lost: number): Promise<Claim | undefined> {
    const path = fileOf(trial.id, turn);
    const lease: Lease = { ...mine, lost };
    if (!(await writeLease(path, lease, 'wx'))) return undefined;
    const end = async (ended: NonNullable<Lease['ended']>): Promise<void> => {
      await writeLease(path, { ...lease, ended }, 'w');
    };
    return {
      trial,
      lost,
      async beat() {
        if ((await newestTurns()).get(trial.id) !== turn) return false;
        await touch(path);
        return true;
      },
      release: (broken) => end(broken ? 'broken' : 'stopped'),
      settled: () => end('settled'),
    };
  }

  async function newestTurns(): Promise<Map<string, number>> {
    const newest = new Map<string, number>();
    for (const name of await list(leases)) {
      const [, id, turn] = /^(\w+)\.(\d+)$/.exec(name) ?? [];
      if (id !== undefined && Number(turn) > (newest.get(id) ?? 0)) newest.set(id, Number(turn));
    }
    return newest;
  }

  /** The turn that may be claimed behind `turn`, and the workers lost until then; undefined while its owner is at work. */
  async function successor(
    id: string,
    turn: number,
    limit: number,
    time: () => Promise<number>,
  ): Promise<{ turn: number; lost: number } | undefined> {
    const { lease, written } = await readLease(fileOf(id, turn));
    // A trial that was settled and is open again is one to be tried anew.
    if (lease?.ended === 'settled') return { turn: turn + 1, lost: 0 };
    if (lease?.ended === 'stopped') return { turn: turn + 1, lost: lease.lost };
    const isLost = lease?.ended === 'broken' || (await time()) - written > 1000 * limit;
    return isLost ? { turn: turn + 1, lost: (lease?.lost ?? 0) + 1 } : undefined;
  }

  return {
    async claim(): Promise<Offer> {
      const { lease } = await folder.plan();
      const { ready, count } = await openTrials(folder);
      const newest = await newestTurns();
      let clock: Promise<number> | undefined;
      const time = (): Promise<number> => (clock ??= now());
      for (const trial of ready) {
        const turn = newest.get(trial.id);
        const next = turn === undefined ? { turn: 1, lost: 0 } : await successor(trial.id, turn, lease, time);
        const claim = next && (await claimTurn(trial, next.turn, next.lost));
        if (!claim) continue;
        // Its result may have come between the look at the results and the one at the leases.
        const after = await folder.settled();
        if (!after.done.has(trial.id) && !after.failed.has(trial.id)) return { kind: 'claim', claim };
        await claim.settled();
      }
      return { kind: count === 0 ? 'done' : 'wait' };
    },
    close: () => rm(probe, { force: true }).catch(() => undefined),
  };
}

/**
 * Writes a lease. One that is read half-written, or that a crash of the machine swallows, says only when it was made, which is enough:
 * so nothing waits for the disk.
 * @param flag `wx` for a new one
 * @returns false when somebody else has made it
 */
async function writeLease(path: string, lease: Lease, flag: 'w' | 'wx'): Promise<boolean> {
  try {
    await writeFile(path, `${JSON.stringify(lease)}\n`, { flag });
    return true;
  } catch (error) {
    if (errorCode(error) === 'EEXIST') return false;
    throw writeError(path, error);
  }
}

/**
 * Lets the file system give the lease a new time; `utimes` would take the clock of this machine. What is written is what every lease
 * begins with: it may be written anew at the same moment.
 */
async function touch(path: string): Promise<void> {
  try {
    const file = await open(path, 'r+');
    try {
      await file.write('{', 0);
    } finally {
      await file.close();
    }
  } catch (error) {
    throw writeError(path, error);
  }
}

/**
 * A lease and when it was last written to. The file is opened for it: over NFS that asks the server, while `stat` may remember.
 * No lease in a file that a full disk left empty.
 */
async function readLease(path: string): Promise<{ lease?: Lease; written: number }> {
  try {
    const file = await open(path, 'r');
    try {
      const written = (await file.stat()).mtimeMs;
      const parsed = leaseSchema.safeParse(jsonOf(await file.readFile('utf8')));
      return { written, ...(parsed.success && { lease: parsed.data }) };
    } finally {
      await file.close();
    }
  } catch (error) {
    throw new FlowCompressError('io', `${path} cannot be read: ${messageOf(error)}`, { node: path, cause: error });
  }
}

function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
