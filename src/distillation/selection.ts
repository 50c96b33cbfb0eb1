/** The rules by which a student is selected: hard limits, short trainings of fewer and fewer candidates, their scores. */
import { interpolation } from './fad.js';
import { normalised } from './flow-weights.js';

/** What a student may cost at most. */
export interface Limits {
  /** Of the file. */
  readonly bytes?: number | undefined;
  readonly macs?: number | undefined;
  /** Of one sample at a time. */
  readonly ms?: number | undefined;
}

export interface StudentCost {
  readonly bytes: number;
  readonly macs?: number | undefined;
  readonly ms?: number | undefined;
}

/** How far above a limit, and what of: cost / limit > 1. */
export interface Excess {
  readonly of: keyof Limits;
  readonly ratio: number;
}

/** The limit that is exceeded most; undefined where none is. What is not known exceeds nothing. */
export function worstExcess(cost: StudentCost, limits: Limits): Excess | undefined {
  const found = (['bytes', 'macs', 'ms'] as const).flatMap((of): Excess[] => {
    const [own, limit] = [cost[of], limits[of]];
    return own !== undefined && limit !== undefined && own > limit ? [{ of, ratio: own / limit }] : [];
  });
  return found.sort((a, b) => b.ratio - a.ratio)[0];
}

/** Candidates that are trained at most, share of the training that each gets at first, and that all of them get together. */
const MOST = 8;
const FIRST = 0.05;
const TOGETHER = 0.25;

export interface ProbeRound {
  /** Candidates that are in it, the best of the round before. */
  readonly candidates: number;
  /** Updates, or seconds, that each trains for. */
  readonly amount: number;
}

/**
 * Rounds of half as many candidates and twice as long trainings, each of a fresh start, until one is left. The first trainings take 5 % of the whole or
 * less, all of them 25 % at most; with too little for all, fewer candidates are tried.
 * @param whole updates or seconds of the training that follows
 * @returns none for one candidate, or where the whole is too short for two
 */
export function probeRounds(candidates: number, whole: number): ProbeRound[] {
  for (let tried = Math.min(MOST, candidates); tried > 1; tried--) {
    const counts: number[] = [];
    for (let left = tried; left > 1; left = Math.ceil(left / 2)) counts.push(left);
    const unit = counts.reduce((sum, count, round) => sum + count * 2 ** round, 0);
    const amount = Math.floor(Math.min(FIRST * whole, (TOGETHER * whole) / unit) + 1e-9);
    if (amount >= 1) return counts.map((count, round) => ({ candidates: count, amount: amount * 2 ** round }));
  }
  return [];
}

/** Points of the common depth grid. */
const GRID = 64;
const LEAST = 1e-8;

export interface FlowProfile {
  readonly depths: readonly number[];
  readonly flows: readonly number[];
}

/**
 * D_align of two networks: half of KL(p || q) + KL(q || p) of their flows along the depth, on a grid of 64 points, each as a share
 * of its sum; 0 for profiles that are multiples of each other.
 */
export function profileDistance(teacher: FlowProfile, student: FlowProfile): number {
  const onGrid = ({ depths, flows }: FlowProfile): number[] => {
    const matrix = interpolation(depths, GRID);
    const points = Array.from({ length: GRID }, (_, g) =>
      flows.reduce((sum, flow, l) => sum + flow * matrix[l]![g]!, 0),
    );
    return normalised(points.map((flow) => flow + LEAST));
  };
  const [p, q] = [onGrid(teacher), onGrid(student)];
  return p!.reduce((sum, a, g) => sum + 0.5 * (a - q![g]!) * Math.log(a / q![g]!), 0);
}

/** What a short training has shown. */
export interface Showing {
  /** D_align, 0 and more. */
  readonly alignment: number;
  /** Mean CKA over the mapped layers, 0 to 1. */
  readonly cka: number;
  /** Quality on VAL relative to the teacher's. */
  readonly quality: number;
}

/** 0.4 (1 - D_align) + 0.4 CKA + 0.2 quality, each between 0 and 1. */
export function showingScore({ alignment, cka, quality }: Showing): number {
  const within = (value: number): number => Math.min(1, Math.max(0, value));
  return 0.4 * (1 - within(alignment)) + 0.4 * within(cka) + 0.2 * within(quality);
}

/** Scores closer than this are a tie. */
const TIE = 0.01;

/** Best first; of scores that are alike to the second decimal the cheaper one, by MACs and then by bytes. */
export function ranked<T extends { readonly score: number; readonly cost: StudentCost }>(
  candidates: readonly T[],
): T[] {
  const step = (score: number): number => Math.round(score / TIE);
  return [...candidates].sort(
    (a, b) => step(b.score) - step(a.score) || (a.cost.macs ?? 0) - (b.cost.macs ?? 0) || a.cost.bytes - b.cost.bytes,
  );
}

/** The candidates that are worth a training: the most capable, by MACs and then by bytes. */
export function mostCapable<T extends { readonly cost: StudentCost }>(candidates: readonly T[], count: number): T[] {
  return [...candidates]
    .sort((a, b) => (b.cost.macs ?? 0) - (a.cost.macs ?? 0) || b.cost.bytes - a.cost.bytes)
    .slice(0, count);
}
