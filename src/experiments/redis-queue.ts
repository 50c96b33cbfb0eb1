/**
 * A queue on a Redis server, by BullMQ where the user has installed it. Redis only says who runs which trial: plan and results
 * stay in the run directory, so a server that forgets everything costs some work done twice, and no result.
 */
import type { Job, Queue, Worker } from 'bullmq';
import type { Redis } from 'ioredis';
import { FlowCompressError, messageOf } from '../errors.js';
import { errorCode } from '../node/error-code.js';
import type { Claimant } from './folder-queue.js';
import { openTrials } from './queue.js';
import type { Claim, Offer, TrialQueue } from './queue.js';
import type { SweepFolder } from './sweep-folder.js';

const PACKAGES = ['bullmq', 'ioredis'] as const;
const TRIES = 3;

export interface RedisOptions {
  /** Lines that the user should see: the server is gone, the server is back. */
  readonly onNote?: (text: string) => void;
  /** Seconds for which a server that went away is waited for. */
  readonly patience?: number;
}

interface JobData {
  /** Workers that ended without a result and without being lost to the server. */
  readonly broken: number;
}

/**
 * Connects to the server and adds the trials that have no result.
 * @param url `redis://host:port` or `rediss://...`
 * @throws FlowCompressError `bad-input` for an address of another kind or where the packages are missing, `io` when the server does
 *   not answer; from its methods `io` when the server stays away for longer than `patience`
 */
export async function redisQueue(
  url: string,
  folder: SweepFolder,
  { worker: name }: Claimant,
  { onNote = () => undefined, patience = 300 }: RedisOptions = {},
): Promise<TrialQueue> {
  const host = hostOf(url);
  const { bullmq, RedisClient } = await loadPackages();
  const { queue: queueName, lease } = await folder.plan();
  const lockMs = 1000 * lease;
  let opened = false;
  const client = new RedisClient(url, {
    ...{ maxRetriesPerRequest: null, lazyConnect: true, connectTimeout: 10_000 },
    retryStrategy: (times) => (opened ? Math.min(2000, 200 * times) : times < TRIES ? 200 : null),
  });
  let problem = '';
  const gone = watch(client, host, onNote, (error) => (problem = error.message));
  try {
    await client.connect();
    await client.ping();
  } catch (error) {
    client.disconnect();
    throw new FlowCompressError('io', `The Redis server at ${host} does not answer: ${problem || messageOf(error)}`, {
      node: host,
      hint: 'Start it, or leave out --queue: the run directory itself is a queue.',
      cause: error,
    });
  }
  opened = true;
  gone.start();
  const prefix = 'flow-compress';
  const queue = new bullmq.Queue<JobData>(queueName, { connection: client, prefix });
  const worker = new bullmq.Worker<JobData>(queueName, null, {
    ...{ connection: client, prefix, autorun: false, lockDuration: lockMs, name },
    // How often a trial may be lost is for the worker to say, who writes it down.
    ...{ stalledInterval: Math.max(500, lockMs / 2), maxStalledCount: 1_000_000 },
  });
  // The client tells of the server; what is asked of it fails with its own error.
  queue.on('error', () => undefined);
  worker.on('error', () => undefined);
  const asked = <T>(work: Promise<T>): Promise<T> => gone.orTooLong(work, patience);
  await asked(worker.startStalledCheckTimer());

  let turns = 0;
  let lastSeeding = -Infinity;
  const seeded = new Set<string>();
  /** Adds what has no result; what is there already stays as it is. */
  async function seed(ids: readonly string[]): Promise<void> {
    lastSeeding = performance.now();
    for (const id of ids) seeded.add(id);
    await asked(
      queue.addBulk(
        ids.map((id) => ({
          name: 'trial',
          data: { broken: 0 },
          opts: { jobId: `t-${id}`, removeOnComplete: true, removeOnFail: true },
        })),
      ),
    );
  }

  return {
    async claim(): Promise<Offer> {
      for (;;) {
        const { ready, count } = await openTrials(folder);
        if (count === 0) return { kind: 'done' };
        const open = new Map(ready.map((one) => [one.id, one]));
        const token = `${name}-${String(++turns)}`;
        const job = await asked(nextJob(worker, token));
        if (job === undefined) {
          // Trials become ready by others; and a server that lost its memory has no jobs: it is asked now and then.
          const isNew = ready.some(({ id }) => !seeded.has(id));
          if (!isNew && performance.now() - lastSeeding < lockMs) return { kind: 'wait' };
          await seed([...open.keys()]);
          continue;
        }
        const trial = open.get((job.id ?? '').replace(/^t-/, ''));
        if (trial) return { kind: 'claim', claim: claimOf(job, token, trial) };
        await asked(job.moveToCompleted('', token, false).catch(() => undefined));
      }
    },
    async close() {
      gone.stop();
      // A server that is away is not waited for.
      const close = Promise.allSettled([worker.close(true), queue.close()]);
      await Promise.race([close, new Promise((resolve) => setTimeout(resolve, 2000).unref())]);
      client.disconnect();
    },
  };

  function claimOf(job: Job<JobData>, token: string, trial: Claim['trial']): Claim {
    return {
      trial,
      lost: job.stalledCounter + job.data.broken,
      beat: async () => Boolean(await asked(job.extendLock(token, lockMs).catch(lostLock))),
      async release(isBroken) {
        if (isBroken) await asked(job.updateData({ broken: job.data.broken + 1 }));
        // Without the lock somebody else has it already.
        await asked(job.moveToWait(token).catch(lostLock));
      },
      async settled() {
        // The result is on disk: who finds the job again finds the result too.
        await asked(job.moveToCompleted('', token, false).catch(lostLock));
      },
    };
  }
}

/** Zero for an error that says that the lock is another one's. */
function lostLock(error: unknown): number {
  if (/lock|not in the active state|missing key/i.test(messageOf(error))) return 0;
  throw error;
}

async function nextJob(
  worker: { getNextJob(token: string, options: { block: boolean }): Promise<Job<JobData> | undefined> },
  token: string,
): Promise<Job<JobData> | undefined> {
  return await worker.getNextJob(token, { block: false });
}

interface Emitter {
  on(event: 'close' | 'ready', listener: () => void): unknown;
  on(event: 'error', listener: (error: Error) => void): unknown;
}

/** Watches a connection come and go. */
function watch(client: Emitter, host: string, onNote: (text: string) => void, onError: (error: Error) => void) {
  let isWatching = false;
  let goneSince: number | undefined;
  client.on('error', onError);
  client.on('close', () => {
    if (!isWatching || goneSince !== undefined) return;
    goneSince = performance.now();
    onNote(`The Redis server at ${host} is gone; trials go on, and it is waited for.`);
  });
  client.on('ready', () => {
    if (!isWatching || goneSince === undefined) return;
    goneSince = undefined;
    onNote(`The Redis server at ${host} is back.`);
  });
  return {
    start: (): void => {
      isWatching = true;
    },
    stop: (): void => {
      isWatching = false;
    },
    /** What `work` gives, or an error once the server has been away for `patience` seconds. */
    async orTooLong<T>(work: Promise<T>, patience: number): Promise<T> {
      let timer: NodeJS.Timeout | undefined;
      const late = new Promise<never>((_, reject) => {
        timer = setInterval(
          () => {
            if (goneSince === undefined || performance.now() - goneSince < 1000 * patience) return;
            reject(
              new FlowCompressError('io', `The Redis server at ${host} has been gone for ${String(patience)} s.`, {
                node: host,
                hint: 'Nothing is lost: results are in the run directory, and the same command goes on.',
              }),
            );
          },
          Math.min(1000, 250 * patience),
        );
      });
      work.catch(() => undefined);
      return Promise.race([work, late]).finally(() => {
        clearInterval(timer);
      });
    },
  };
}

function hostOf(url: string): string {
  const parsed = URL.canParse(url) ? new URL(url) : undefined;
  if (parsed && /^rediss?:$/.test(parsed.protocol)) return parsed.host;
  throw new FlowCompressError('bad-input', `--queue must be the address of a Redis server, not "${url}".`, {
    hint: 'For example: redis://localhost:6379',
  });
}

/** What is used of them. */
interface Packages {
  readonly bullmq: { readonly Queue: typeof Queue; readonly Worker: typeof Worker };
  readonly RedisClient: typeof Redis;
}

async function loadPackages(): Promise<Packages> {
  try {
    return { bullmq: await import('bullmq'), RedisClient: (await import('ioredis')).Redis };
  } catch (error) {
    const missing = errorCode(error) === 'ERR_MODULE_NOT_FOUND';
    throw new FlowCompressError(
      'bad-input',
      missing
        ? `--queue needs the packages ${PACKAGES.join(' and ')}, which are not installed.`
        : `The packages ${PACKAGES.join(' and ')} cannot be loaded: ${messageOf(error)}`,
      {
        node: PACKAGES[0],
        hint: `npm install ${PACKAGES.join(' ')}, beside flow-compress; without --queue the run directory is the queue.`,
        cause: error,
      },
    );
  }
}
