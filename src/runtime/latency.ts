/** Wall time of compiled models, measured side by side so that a busy machine treats all of them alike. */
import { FlowCompressError, throwIfAborted } from '../errors.js';
import type { RunControl } from '../progress.js';
import type { Feeds, Session } from './engine.js';

/**
 * For sessions that are timed against others in the same process: threads of one session that wait actively for more work
 * take the processor from the next one (stalls of several milliseconds; without them the medians of sessions that are
 * timed together are those of each alone).
 */
export const TIMED_TOGETHER: Readonly<Record<string, string>> = { 'session.intra_op.allow_spinning': '0' };

export interface TimedSession {
  readonly session: Pick<Session, 'run'>;
  readonly feeds: Feeds;
}

export interface LatencyOptions extends RunControl {
  /** Untimed runs of each session before the first round. Default 10. */
  readonly warmUp?: number;
  /** Timed runs of each session at least. Default 50. */
  readonly runs?: number;
  /** Runs go on until they took this long. Default 0.5 s per session, so that fast models get more of them; 0 when `runs` is given. */
  readonly minSeconds?: number;
  /** Runs end when they took this long, but never before `FEWEST_ROUNDS` rounds. Default 20 s per session. */
  readonly maxSeconds?: number;
  /** Stage name of progress events. */
  readonly stage?: string;
  /** Clock in milliseconds. */
  readonly now?: () => number;
}

export interface LatencyResult {
  readonly medianMs: number;
  readonly p90Ms: number;
  /** Timed runs behind the figures. */
  readonly runs: number;
  /** Median over the rounds of this session's time divided by that of the first session in the same round (medians of each). */
  readonly ratioToFirst: number;
}

/** Rounds that even the slowest model gets. */
export const FEWEST_ROUNDS = 5;
/** Runs of fast sessions in one go: the first after another session is slower and not timed. */
const BLOCK_MS = 20;
const LONGEST_BLOCK = 10;

/** How often a session runs in a row when a run takes that long. */
export function blockLength(milliseconds: number): number {
  return Math.max(1, Math.min(LONGEST_BLOCK, Math.floor(BLOCK_MS / Math.max(milliseconds, 1e-3))));
}

/**
 * Runs the sessions in rounds, each round starting with another one, and returns one result per session. In a round fast
 * sessions run several times in a row after an untimed run.
 * @throws FlowCompressError `bad-input` for options that are no positive numbers, `aborted`, and what the sessions throw
 */
export async function measureLatency(
  sessions: readonly TimedSession[],
  options: LatencyOptions = {},
): Promise<LatencyResult[]> {
  const { warmUp = 10, runs = 50, signal, onProgress, stage = 'latency', now = () => performance.now() } = options;
  if (sessions.length === 0) return [];
  const { minSeconds = options.runs === undefined ? 0.5 * sessions.length : 0, maxSeconds = 20 * sessions.length } =
    options;
  if (!Number.isInteger(runs) || runs < 1 || !Number.isInteger(warmUp) || warmUp < 0 || !(maxSeconds > 0)) {
    throw new FlowCompressError('bad-input', `Cannot time ${runs} runs after ${warmUp} in ${maxSeconds} seconds.`, {
      hint: 'Give whole numbers above 0.',
    });
  }
  onProgress?.({ stage, done: 0, total: runs });
  const timedRun = async ({ session, feeds }: TimedSession): Promise<number> => {
    throwIfAborted(signal);
    const from = now();
    await session.run(feeds);
    return now() - from;
  };
  const start = now();
  const last = sessions.map(() => 0);
  for (let i = 0; i < warmUp; i++) {
    // Slow models are warm after one run.
    if (i > 0 && now() - start > (maxSeconds * 1000) / 10) break;
    for (const [at, session] of sessions.entries()) last[at] = await timedRun(session);
  }
  // As many for each, so that all are judged on the same number of runs.
  const block = warmUp === 0 ? 1 : blockLength(Math.max(...last));
  const times: number[][] = sessions.map(() => []);
  const blocks: number[][] = sessions.map(() => []);
  const begin = now();
  const fewest = Math.min(runs, FEWEST_ROUNDS);
  for (let round = 0; ; round++) {
    const elapsed = (now() - begin) / 1000;
    const done = round * block;
    if (round >= fewest && (elapsed >= maxSeconds || (done >= runs && elapsed >= minSeconds))) break;
    for (let i = 0; i < sessions.length; i++) {
      const at = (round + i) % sessions.length;
      if (block > 1 && sessions.length > 1) await timedRun(sessions[at]);
      const own: number[] = [];
      for (let k = 0; k < block; k++) own.push(await timedRun(sessions[at]));
      times[at].push(...own);
      blocks[at].push(median(own));
    }
    onProgress?.({ stage, done: Math.min(done + block, runs), total: runs });
  }
  onProgress?.({ stage, done: runs, total: runs });
  const [first] = blocks;
  return times.map((own, at) => ({
    medianMs: median(own),
    p90Ms: quantile(own, 0.9),
    runs: own.length,
    ratioToFirst: median(blocks[at].map((time, round) => (first[round] > 0 ? time / first[round] : 1))),
  }));
}

/** The middle value, the mean of the middle two where their number is even. NaN for no values. */
export function median(values: readonly number[]): number {
  return quantile(values, 0.5);
}

/** Quantile with linear interpolation between the sorted values (type 7, the default of NumPy). NaN for no values. */
export function quantile(values: readonly number[], q: number): number {
  if (values.length === 0) return NaN;
  const sorted = [...values].sort((a, b) => a - b);
  const at = (sorted.length - 1) * q;
  const low = Math.floor(at);
  const high = Math.min(low + 1, sorted.length - 1);
  return sorted[low] + (sorted[high] - sorted[low]) * (at - low);
}
