import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { HAS_REDIS, redisServer, type RedisServer } from '../testing/redis-server.js';
import { doneTrial, planned, trialsOf, VERSION } from '../testing/sweeps.js';
import { startWorkers, tally } from '../testing/worker-processes.js';
import type { Claim, TrialQueue } from './queue.js';
import { redisQueue } from './redis-queue.js';
import type { SweepFolder } from './sweep-folder.js';

let path = '';
beforeEach(async () => {
  path = await mkdtemp(join(tmpdir(), 'flow-redis-'));
});
afterEach(() => rm(path, { recursive: true, force: true }));

const open: TrialQueue[] = [];
afterEach(async () => {
  await Promise.all(open.splice(0).map((queue) => queue.close()));
});

async function worker(
  folder: SweepFolder,
  url: string,
  name: string,
  options: Parameters<typeof redisQueue>[3] = {},
): Promise<TrialQueue> {
  const queue = await redisQueue(url, folder, { worker: name, version: VERSION }, options);
  open.push(queue);
  return queue;
}

async function claimed(queue: TrialQueue): Promise<Claim | undefined> {
  const offer = await queue.claim();
  return offer.kind === 'claim' ? offer.claim : undefined;
}

async function until<T>(look: () => Promise<T | undefined>, ms = 15_000): Promise<T> {
  const end = Date.now() + ms;
  for (;;) {
    const found = await look();
    if (found !== undefined) return found;
    if (Date.now() > end) throw new Error('waited too long');
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

it('a queue on a server needs an address and a server', async () => {
  const folder = await planned(path, 1);
  await expect(worker(folder, 'localhost:1', 'a')).rejects.toMatchObject({ code: 'bad-input' });
  await expect(worker(folder, 'redis://user:secret@127.0.0.1:1', 'a')).rejects.toMatchObject({
    code: 'io',
    message: expect.stringMatching(/^The Redis server at 127\.0\.0\.1:1 does not answer: .*ECONNREFUSED/) as string,
  });
});

if (!HAS_REDIS) process.stderr.write('redis-server is not installed: tests of the queue on Redis are left out.\n');

describe.skipIf(!HAS_REDIS)('a Redis server as a queue (left out without redis-server)', () => {
  let server: RedisServer;
  let data = '';
  beforeAll(async () => {
    data = await mkdtemp(join(tmpdir(), 'flow-redis-data-'));
    server = await redisServer(data);
  });
  afterAll(async () => {
    await server.kill();
    await rm(data, { recursive: true, force: true });
  });

  it('gives every trial to one of many, and waits while they run', async () => {
    const folder = await planned(path, 6);
    const queues = await Promise.all(Array.from({ length: 5 }, (_, i) => worker(folder, server.url, `w${String(i)}`)));
    const claims = [...(await Promise.all(queues.map(claimed))), ...(await Promise.all(queues.map(claimed)))];
    const ids = claims.flatMap((claim) => (claim ? [claim.trial.id] : []));
    expect(new Set(ids).size).toBe(ids.length);
    expect(ids).toHaveLength(6);
    expect((await queues[0]!.claim()).kind).toBe('wait');
    for (const [i, trial] of trialsOf(6).entries()) {
      await folder.settle(doneTrial(trial));
      await claims.find((claim) => claim?.trial.id === trial.id)!.settled();
      expect((await queues[1]!.claim()).kind).toBe(i === 5 ? 'done' : 'wait');
    }
  });

  it('gives at once what was given back, counts what broke, and takes over what is silent', async () => {
    const folder = await planned(path, 1, 1);
    const [a, b] = [await worker(folder, server.url, 'a'), await worker(folder, server.url, 'b')];
    await (await claimed(a))!.release(false);
    const second = await claimed(b);
    expect(second!.lost).toBe(0);
    await second!.release(true);
    const third = await claimed(a);
    expect(third!.lost).toBe(1);
    expect(await third!.beat()).toBe(true);
    const fourth = await until(() => claimed(b));
    expect(fourth.lost).toBe(2);
    expect(await third!.beat()).toBe(false);
    expect(await fourth.beat()).toBe(true);
    // The first may still bring its result.
    await folder.settle(doneTrial(fourth.trial));
    await third!.settled();
    expect((await a.claim()).kind).toBe('done');
  });

  it('goes on when the server went away with all it knew and came back', async () => {
    const folder = await planned(path, 3, 1);
    const notes: string[] = [];
    const queue = await worker(folder, server.url, 'a', { onNote: (text) => notes.push(text) });
    const first = await claimed(queue);
    await server.kill();
    await until(() => Promise.resolve(notes.find((text) => text.includes('is gone'))));
    await folder.settle(doneTrial(first!.trial));
    const settled = first!.settled();
    await server.start();
    await settled;
    expect(notes.at(-1)).toMatch(/is back/);
    const rest = [await until(() => claimed(queue)), await until(() => claimed(queue))];
    expect(rest.map(({ trial }) => trial.id).sort()).toEqual(
      trialsOf(3)
        .map(({ id }) => id)
        .filter((id) => id !== first!.trial.id)
        .sort(),
    );
  });

  it('gives up a server that stays away, with nothing lost', async () => {
    const folder = await planned(path, 2, 1);
    const queue = await worker(folder, server.url, 'a', { patience: 0.5 });
    const first = await claimed(queue);
    await server.kill();
    await expect(until(() => claimed(queue))).rejects.toMatchObject({
      code: 'io',
      message: expect.stringMatching(/has been gone for 0\.5 s/) as string,
    });
    await server.start();
    await folder.settle(doneTrial(first!.trial));
    expect((await until(() => worker(folder, server.url, 'b').then(claimed))).trial.id).not.toBe(first!.trial.id);
  });

  it('has every trial run to one result by processes that are killed at random, the server too', async () => {
    const folder = await planned(path, 30, 1);
    const crew = startWorkers(path, 3, 60, server.url);
    try {
      for (let round = 0; (await folder.settled()).done.size < 30; round++) {
        await new Promise((resolve) => setTimeout(resolve, 900));
        if (crew.members.length < 8) crew.replaceOne();
        if (round === 2) {
          await server.kill();
          await server.start();
        }
      }
      const codes = await crew.ended();
      expect(codes.every((code) => code === 0 || code === null)).toBe(true);
      const { counted } = await tally(folder);
      expect((await folder.outcomes()).size).toBe(30);
      expect(Math.max(...counted.values())).toBe(1);
    } finally {
      crew.dismiss();
    }
  });
});
