/** Wall time of compiled models, measured side by side so that a busy machine treats all of them alike. */
import { FlowCompressError, throwIfAborted } from '../errors.js';
import type { RunControl } from '../progress.js';
import type { Feeds, Session } from './engine.js';

export interface TimedSession {
  readonly session: Pick<Session, 'run'>;
  readonly feeds: Feeds;
}

export interface LatencyOptions extends RunControl {
  /** Untimed runs of each session before the first round. Default 10. */
  readonly warmUp?: number;
  /** Rounds at least; in a round every session runs once. Default 50. */
  readonly runs?: number;
  /** Rounds go on until they took this long. Default 0.5 s per session, so that fast models get more of them; 0 when `runs` is given. */
  readonly minSeconds?: number;
  /** Rounds end when they took this long, but never before `FEWEST_ROUNDS`. Default 20 s per session. */
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
  /** Median over the rounds of this session's time divided by that of the first session in the same round. */
  readonly ratioToFirst: number;
}

/** Rounds that even the slowest model gets. */
export const FEWEST_ROUNDS = 5;

/**
 * Runs the sessions in rounds, each round starting with another one, and returns one result per session.
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
  const start = now();
  for (let i = 0; i < warmUp; i++) {
    // Slow models are warm after one run.
    if (i > 0 && now() - start > (maxSeconds * 1000) / 10) break;
    for (const { session, feeds } of sessions) {
      throwIfAborted(signal);
      await session.run(feeds);
    }
  }
  const times: number[][] = sessions.map(() => []);
  const begin = now();
  const fewest = Math.min(runs, FEWEST_ROUNDS);
  for (let round = 0; ; round++) {
    const elapsed = (now() - begin) / 1000;
    if (round >= fewest && (elapsed >= maxSeconds || (round >= runs && elapsed >= minSeconds))) break;
    for (let i = 0; i < sessions.length; i++) {
      throwIfAborted(signal);
      const at = (round + i) % sessions.length;
      const { session, feeds } = sessions[at];
      const from = now();
      await session.run(feeds);
      times[at].push(now() - from);
    }
    onProgress?.({ stage, done: Math.min(round + 1, runs), total: runs });
  }
  onProgress?.({ stage, done: runs, total: runs });
  const [first] = times;
  return times.map((own) => ({
    medianMs: median(own),
    p90Ms: quantile(own, 0.9),
    runs: own.length,
    ratioToFirst: median(own.map((time, round) => (first[round] > 0 ? time / first[round] : 1))),
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
