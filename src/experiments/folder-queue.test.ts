import { mkdtemp, readdir, rm, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { doneTrial, failedTrial, planned, trialsOf, VERSION } from '../testing/sweeps.js';
import { startWorkers, tally } from '../testing/worker-processes.js';
import { folderQueue } from './folder-queue.js';
import type { Claim, TrialQueue } from './queue.js';
import type { SweepFolder } from './sweep-folder.js';

let path = '';
beforeEach(async () => {
  path = await mkdtemp(join(tmpdir(), 'flow-queue-'));
});
afterEach(() => rm(path, { recursive: true }));

const worker = (folder: SweepFolder, name: string): TrialQueue =>
  folderQueue(folder, { worker: name, version: VERSION });

async function claimed(queue: TrialQueue): Promise<Claim | undefined> {
  const offer = await queue.claim();
  return offer.kind === 'claim' ? offer.claim : undefined;
}

/** As if the owner of every lease had been silent for that long. */
async function silence(seconds: number): Promise<void> {
  const leases = join(path, 'leases');
  const then = new Date(Date.now() - 1000 * seconds);
  for (const name of await readdir(leases)) await utimes(join(leases, name), then, then);
}

describe('a folder as a queue', () => {
  it('gives every trial to one of many that ask at the same time', async () => {
    const folder = await planned(path, 12);
    const offers = await Promise.all(Array.from({ length: 40 }, (_, i) => claimed(worker(folder, `w${String(i)}`))));
    const ids = offers.flatMap((claim) => (claim ? [claim.trial.id] : []));
    expect(ids.sort()).toEqual(
      trialsOf(12)
        .map(({ id }) => id)
        .sort(),
    );
    expect((await worker(folder, 'late').claim()).kind).toBe('wait');
  });

  it('gives a trial whose worker is silent to exactly one other, and tells the first when it comes back', async () => {
    const folder = await planned(path, 1, 5);
    const first = await claimed(worker(folder, 'first'));
    expect(await claimed(worker(folder, 'second'))).toBeUndefined();
    await silence(4);
    expect(await claimed(worker(folder, 'second'))).toBeUndefined();
    await silence(6);
    // A beat in the last moment keeps it.
    expect(await first!.beat()).toBe(true);
    expect(await claimed(worker(folder, 'second'))).toBeUndefined();
    await silence(6);
    const takers = await Promise.all(
      Array.from({ length: 25 }, (_, i) => claimed(worker(folder, `taker${String(i)}`))),
    );
    const won = takers.filter((claim) => claim !== undefined);
    expect(won).toHaveLength(1);
    expect(won[0]!.lost).toBe(1);
    expect(await first!.beat()).toBe(false);
    expect(await won[0]!.beat()).toBe(true);
    await silence(6);
    expect((await claimed(worker(folder, 'third')))!.lost).toBe(2);
  });

  it('hands on a trial whose worker stops in the middle of a beat', async () => {
    const folder = await planned(path, 1, 1000);
    for (let i = 0; i < 200; i++) {
      const claim = await claimed(worker(folder, `w${String(i)}`));
      expect(claim, `turn ${String(i)}`).toBeDefined();
      expect(claim!.lost).toBe(0);
      const beats = Array.from({ length: 8 }, () => claim!.beat());
      for (let turns = 0; turns < i % 20; turns++) await new Promise((resolve) => setImmediate(resolve));
      await Promise.all([...beats, claim!.release(false)]);
    }
  });

  it('goes by the clock of the files, whatever the clock of the machine says', async () => {
    const folder = await planned(path, 1, 5);
    await claimed(worker(folder, 'first'));
    const { now } = Date;
    try {
      // A day ahead: the lease of a moment ago looks a day old to this machine.
      Date.now = () => now() + 86_400_000;
      expect(await claimed(worker(folder, 'ahead'))).toBeUndefined();
      Date.now = () => now() - 86_400_000;
      await silence(0);
      await silence(86_400 * 2);
      expect(await claimed(worker(folder, 'behind'))).toBeDefined();
    } finally {
      Date.now = now;
    }
  });

  it('gives at once what was given back, and counts it only when it broke', async () => {
    const folder = await planned(path, 1);
    await (await claimed(worker(folder, 'a')))!.release(false);
    const second = await claimed(worker(folder, 'b'));
    expect(second!.lost).toBe(0);
    await second!.release(true);
    expect((await claimed(worker(folder, 'c')))!.lost).toBe(1);
  });

  it('is done when all trials have a result or an error, and opens failed ones again', async () => {
    const folder = await planned(path, 2);
    const [first, second] = trialsOf(2);
    const claims = [await claimed(worker(folder, 'a')), await claimed(worker(folder, 'a'))];
    await folder.settle(doneTrial(first!));
    await claims[0]!.settled();
    expect((await worker(folder, 'b').claim()).kind).toBe('wait');
    await folder.settle(failedTrial(second!));
    await claims[1]!.settled();
    expect((await worker(folder, 'b').claim()).kind).toBe('done');
    await folder.retryFailed();
    const again = await claimed(worker(folder, 'b'));
    expect([again!.trial.id, again!.lost]).toEqual([second!.id, 0]);
  });

  it('takes over a lease that a full disk left empty once it is old', async () => {
    const folder = await planned(path, 1, 5);
    await writeFile(join(path, 'leases', `${trialsOf(1)[0]!.id}.1`), '');
    expect((await worker(folder, 'a').claim()).kind).toBe('wait');
    await silence(6);
    expect((await claimed(worker(folder, 'a')))!.lost).toBe(1);
  });

  it('leaves no file behind for its clock', async () => {
    const folder = await planned(path, 1, 5);
    await claimed(worker(folder, 'a'));
    const queue = worker(folder, 'b');
    await queue.claim();
    expect((await readdir(join(path, 'leases'))).filter((name) => name.startsWith('.'))).toHaveLength(1);
    await queue.close();
    expect((await readdir(join(path, 'leases'))).filter((name) => name.startsWith('.'))).toEqual([]);
  });
});

describe('worker processes on one folder', () => {
  it('bring every trial to one result, killed at random or not', async () => {
    const folder = await planned(path, 40, 1.5);
    const crew = startWorkers(path, 3, 60);
    try {
      let isOver = false;
      const over = (async () => {
        while (!isOver) {
          await new Promise((resolve) => setTimeout(resolve, 900));
          isOver = (await folder.settled()).done.size === 40;
          if (!isOver && crew.members.length < 9) crew.replaceOne();
        }
      })();
      await over;
      const codes = await crew.ended();
      expect(codes.every((code) => code === 0 || code === null)).toBe(true);
      const { begun, counted } = await tally(folder);
      const ids = trialsOf(40).map(({ id }) => id);
      expect([...(await folder.outcomes()).keys()].sort()).toEqual([...ids].sort());
      for (const id of ids) {
        expect(begun.get(id) ?? 0).toBeGreaterThanOrEqual(1);
        // A worker killed right behind its result has told nobody.
        expect(counted.get(id) ?? 0).toBeLessThanOrEqual(1);
      }
      const killed = crew.members.filter(({ signalCode }) => signalCode === 'SIGKILL').length;
      // What runs twice are trials whose workers were killed, at most one each.
      const twice = [...begun.values()].reduce((sum, times) => sum + times - 1, 0);
      expect(twice).toBeLessThanOrEqual(killed);
      expect(killed).toBeGreaterThanOrEqual(1);
    } finally {
      crew.dismiss();
    }
  });
});
