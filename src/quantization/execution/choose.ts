/** The execution that ships: candidate files are compiled and timed against each other, whole, where they will run. */
import { FlowCompressError, throwIfAborted } from '../../errors.js';
import type { RunControl } from '../../progress.js';
import type { Feeds, Session } from '../../runtime/engine.js';
import { median } from '../../runtime/latency.js';
import { executionKey, type ExecutionSessions } from './sessions.js';

export interface ExecutionAlternative {
  /** `float`, `int8`, or what a planner calls its region. */
  readonly name: string;
  /** Nodes in int8, by the name of their first output. */
  readonly int8: ReadonlySet<string>;
}

export interface ExecutionTiming {
  readonly name: string;
  readonly int8Nodes: number;
  /** Median of each batch, milliseconds, over the runs that this file took part in. */
  readonly medianMs: readonly number[];
  /** Time relative to the fastest file at each batch, median of runs in turn. */
  readonly ratios: readonly number[];
  readonly runs: number;
}

export interface ExecutionChoice extends ExecutionAlternative {
  /** Empty when nothing had to be timed. */
  readonly timings: readonly ExecutionTiming[];
}

export interface ChooseOptions {
  /** Time to spend on timed runs, milliseconds; three rounds are made in any case. */
  readonly budgetMs?: number;
  /** Milliseconds from any origin; for tests. */
  readonly now?: () => number;
}

/** Files closer than this count as equally fast: the one with fewer int8 nodes, hence less rounding error, wins. */
const TIE = 0.015;
/** A file this much slower than the leader, by its worst batch, leaves after round 1, round 2 and any later one. */
const LIMITS = [1.8, 1.3, 1.1];
const MIN_ROUNDS = 3;
const MAX_ROUNDS = 60;
const DEFAULT_BUDGET_MS = 700;

interface Runner {
  readonly alternative: ExecutionAlternative;
  readonly session: Session;
  /** Milliseconds by batch and round; every runner still in the race has the same rounds. */
  readonly times: number[][];
}

/**
 * Times the alternatives in turn at every batch and returns the one whose worst time relative to the fastest is least.
 * @param batches feeds of each batch size that counts
 * @throws FlowCompressError `internal` without alternatives; what the engine reports; `aborted`
 */
export async function chooseExecution(
  sessions: ExecutionSessions,
  alternatives: readonly ExecutionAlternative[],
  batches: readonly Feeds[],
  options: ChooseOptions & RunControl = {},
): Promise<ExecutionChoice> {
  const distinct = withoutDuplicates(alternatives);
  if (distinct.length === 0) throw new FlowCompressError('internal', 'There is no execution to choose from.');
  if (distinct.length === 1 || batches.length === 0) return { ...distinct[0]!, timings: [] };
  const runners: Runner[] = [];
  for (const alternative of distinct) {
    throwIfAborted(options.signal);
    runners.push({ alternative, session: await sessions.open(alternative.int8), times: batches.map(() => []) });
  }
  const left = new Set<Runner>();
  await race(runners, left, batches, sessions, options);
  const finalists = runners.filter((runner) => !left.has(runner));
  const winner = leastWorst(finalists);
  return {
    ...winner.alternative,
    timings: runners.map((runner) => timingOf(runner, left.has(runner) ? [...finalists, runner] : finalists)),
  };
}

/** The first of every set of alternatives that are the same file. */
export function withoutDuplicates(alternatives: readonly ExecutionAlternative[]): ExecutionAlternative[] {
  const keys = new Set<string>();
  return alternatives.filter(({ int8 }) => {
    const key = executionKey(int8);
    if (keys.has(key)) return false;
    keys.add(key);
    return true;
  });
}

/** Runs all files in turn, round after round, and lets go of those that cannot win any more. */
async function race(
  runners: readonly Runner[],
  left: Set<Runner>,
  batches: readonly Feeds[],
  sessions: ExecutionSessions,
  options: ChooseOptions & RunControl,
): Promise<void> {
  const now = options.now ?? (() => performance.now());
  const budget = options.budgetMs ?? DEFAULT_BUDGET_MS;
  const timed = async (runner: Runner, batch: number): Promise<number> => {
    throwIfAborted(options.signal);
    const start = now();
    await runner.session.run(batches[batch]!);
    return now() - start;
  };
  const discard = async (limit: number): Promise<void> => {
    const active = runners.filter((runner) => !left.has(runner));
    const scores = new Map(active.map((runner) => [runner, roughScore(runner, active)]));
    const best = Math.min(...scores.values());
    for (const runner of active) {
      if (scores.get(runner)! <= best * limit) continue;
      left.add(runner);
      await sessions.close(runner.alternative.int8);
    }
  };
  // The first run of a session at a batch size allocates and is not counted.
  for (const runner of runners) for (let b = 0; b < batches.length; b++) await timed(runner, b);
  const start = now();
  for (let round = 1; round <= MAX_ROUNDS; round++) {
    const active = runners.filter((runner) => !left.has(runner));
    if (active.length === 1) break;
    options.onProgress?.({ stage: 'choose execution', done: round - 1, total: MAX_ROUNDS });
    for (let b = 0; b < batches.length; b++) {
      // A short run is repeated, so that all batches are known equally well for the same effort.
      const repeats = round === 1 ? MIN_REPEATS : repeatsOf(active, b);
      for (let k = 0; k < active.length; k++) {
        const runner = active[(k + round) % active.length]!;
        // The first run after another file is slower, of a fast one by much.
        if (repeats > 1) await timed(runner, b);
        for (let i = 0; i < repeats; i++) runner.times[b]!.push(await timed(runner, b));
      }
    }
    await discard(LIMITS[round - 1] ?? LIMITS.at(-1)!);
    if (round >= MIN_ROUNDS && now() - start > budget) break;
  }
}

/** A single run may be hit by a neighbour on the machine. */
const MIN_REPEATS = 2;
const MAX_REPEATS = 8;

/** How often a batch runs per round: up to 8 times as often as the slowest batch, as far as it is faster. */
function repeatsOf(active: readonly Runner[], batch: number): number {
  const first = active[0]!.times;
  const slowest = Math.max(...first.map((times) => median(times)));
  return Math.max(1, Math.min(MAX_REPEATS, Math.floor(slowest / Math.max(median(first[batch]!), 1e-3))));
}

/** Times of the latest runs that two runners made in turn, paired. */
function pairedRatio(a: readonly number[], b: readonly number[]): number {
  const count = Math.min(a.length, b.length);
  return median(Array.from({ length: count }, (_, i) => a[i]! / Math.max(b[i]!, 1e-9)));
}

/** Time relative to the fastest of `field` at each batch. */
function ratios(runner: Runner, field: readonly Runner[]): number[] {
  return runner.times.map((times, b) => Math.max(...field.map((other) => pairedRatio(times, other.times[b]!))));
}

function score(runner: Runner, field: readonly Runner[]): number {
  return Math.max(...ratios(runner, field));
}

function leastWorst(field: readonly Runner[]): Runner {
  const scored = field.map((runner) => ({ runner, score: score(runner, field) }));
  const best = Math.min(...scored.map((s) => s.score));
  const tied = scored.filter((s) => s.score <= best * (1 + TIE));
  return tied.reduce((a, b) => (b.runner.alternative.int8.size < a.runner.alternative.int8.size ? b : a)).runner;
}

/** As `score`, from the least time of each batch: what few runs show best on a machine with other work. */
function roughScore(runner: Runner, field: readonly Runner[]): number {
  const least = (times: readonly number[]): number => Math.min(...times);
  return Math.max(
    ...runner.times.map((times, b) => least(times) / Math.max(1e-9, Math.min(...field.map((f) => least(f.times[b]!))))),
  );
}

function timingOf(runner: Runner, field: readonly Runner[]): ExecutionTiming {
  return {
    name: runner.alternative.name,
    int8Nodes: runner.alternative.int8.size,
    medianMs: runner.times.map(median),
    ratios: ratios(runner, field),
    runs: runner.times[0]?.length ?? 0,
  };
}
