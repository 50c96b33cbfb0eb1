/** Which of the models that could be made is tried, and which next when it turns out to miss a limit. */
import { excess, missed, type Figures, type LimitName, type Limits } from './limits.js';

/** A cut model at a number of bits, measured before it has learned anything. */
export interface Candidate {
  /** Number of the cut; 0 for the original. */
  readonly rung: number;
  /** Average stored width; 32 where the weights stay in float. */
  readonly bits: number;
  readonly bytes: number;
  /** To the original; undefined where no speed is asked for. */
  readonly timeRatio: number | undefined;
  /** Predicted loss: divergence from the original on VAL. */
  readonly divergence: number;
  /** Fall of the metric on VAL. */
  readonly drop: number;
}

export interface Tried {
  readonly candidate: Candidate;
  /** Of the model that came of it. */
  readonly figures: Figures;
}

/** Shares of the drop that learning is hoped to leave, the boldest hope first. */
const LEFT_BY_LEARNING = [0.25, 0.5, 1];
/** Models that are made to the end. */
export const TRIES = 2;
/** A ladder on which the predicted loss is so many times the best is not climbed further. */
const TOO_MUCH = 2;

/** Whether only the drop says how small: the size is to be found. */
export function isSizeOpen({ bytes, drop }: Limits): boolean {
  return bytes === undefined && drop !== undefined;
}

/** What is known of a candidate before it learns: the drop is still open. */
function planned({ bytes, timeRatio }: Candidate): Figures {
  return { bytes, timeRatio, drop: undefined };
}

export function fitting(candidates: readonly Candidate[], limits: Limits): Candidate[] {
  return candidates.filter((candidate) => missed(limits, planned(candidate)).length === 0);
}

/** Share of the time that a plan keeps in hand: what is made of a candidate is timed again. */
const TIME_IN_HAND = 0.05;

/** Those that fit with some time in hand. */
function fittingSafely(candidates: readonly Candidate[], limits: Limits): Candidate[] {
  return fitting(candidates, safely(limits));
}

function safely(limits: Limits): Limits {
  const { timeRatio } = limits;
  return timeRatio === undefined ? limits : { ...limits, timeRatio: (1 - TIME_IN_HAND) * timeRatio };
}

/**
 * Whether a deeper cut may be worth measuring.
 * @param candidates of all rungs so far @param last of the deepest
 */
export function goesOn(
  candidates: readonly Candidate[],
  last: readonly Candidate[],
  limits: Limits,
  learns: boolean,
): boolean {
  const fits = fittingSafely(candidates, limits);
  if (fits.length === 0) return true;
  const gentlest = last.reduce((least, one) => (one.divergence < least.divergence ? one : least));
  if (isSizeOpen(limits)) return (learns ? LEFT_BY_LEARNING[0]! : 1) * gentlest.drop <= limits.drop!;
  return gentlest.divergence <= TOO_MUCH * Math.min(...fits.map(({ divergence }) => divergence));
}

/** A cut of so much of the cost as its share says. */
export interface CutShare {
  readonly index: number;
  readonly share: number;
}

/** Shares of two rungs that are nearer than this have nothing between them that is worth measuring. */
const NEAR = 0.9;
/** Share of a limit that a candidate leaves unused when it was cut deeper than it had to be. */
const UNUSED = 0.02;

/**
 * Where a rung between two others may lose less than any so far: between the best candidate's and the gentler one before, which does
 * not fit, if the best leaves some of its limits unused; else between the best candidate's and its better neighbour's, if that is near.
 * @param candidates of all rungs
 * @returns the rung to cut further, and what is to be left: as much less than one as more than the other
 */
export function rungBetween<Rung extends CutShare>(
  rungs: readonly Rung[],
  candidates: readonly Candidate[],
  limits: Limits,
): { readonly gentler: Rung; readonly share: number } | undefined {
  const fits = fittingSafely(candidates, limits);
  const best = leastLoss(fits);
  if (!best || isSizeOpen(limits)) return undefined;
  const ordered = [...rungs].sort((a, b) => b.share - a.share);
  const at = ordered.findIndex(({ index }) => index === best.rung);
  const lossAt = (place: number): number =>
    Math.min(Infinity, ...fits.flatMap((one) => (one.rung === ordered[place]?.index ? [one.divergence] : [])));
  const [before, after] = [lossAt(at - 1), lossAt(at + 1)];
  const isDeeperThanNeeded = before === Infinity && hasRoom(best, limits);
  if (!isDeeperThanNeeded && Math.min(before, after) > TOO_MUCH * best.divergence) return undefined;
  const place = isDeeperThanNeeded || before <= after ? at - 1 : at;
  const [gentler, deeper] = [ordered[place], ordered[place + 1]];
  if (!gentler || !deeper || deeper.share > NEAR * gentler.share) return undefined;
  return { gentler, share: Math.sqrt(gentler.share * deeper.share) };
}

/** Whether bytes or time are left over: widths are the largest then, or nothing but the cut changes the time. */
function hasRoom({ bytes, timeRatio }: Candidate, limits: Limits): boolean {
  const isLeft = (figure: number | undefined, limit: number | undefined): boolean =>
    figure === undefined || limit === undefined || figure < (1 - UNUSED) * limit;
  return isLeft(bytes, limits.bytes) && isLeft(timeRatio, safely(limits).timeRatio);
}

/**
 * The candidate to make next; undefined when enough was tried or nothing is left.
 * @param learns whether models learn: a drop before that counts for less
 */
export function nextCandidate(
  candidates: readonly Candidate[],
  limits: Limits,
  learns: boolean,
  tried: readonly Tried[] = [],
): Candidate | undefined {
  const safe = fittingSafely(candidates, limits);
  const fits = safe.length > 0 ? safe : fitting(candidates, limits);
  if (fits.length === 0) return tried.length === 0 ? nearest(candidates, limits) : undefined;
  const left = fits.filter((one) => tried.every(({ candidate }) => candidate !== one));
  if (isSizeOpen(limits)) return smallestHoped(left, limits.drop!, learns, tried.length);
  if (tried.length >= TRIES) return undefined;
  const last = tried.at(-1);
  return leastLoss(last ? left.filter((one) => isOtherWay(one, last, missed(limits, last.figures))) : left);
}

/** The smallest that would hold if learning took back so much of the drop, less with every try. */
function smallestHoped(
  left: readonly Candidate[],
  allowed: number,
  learns: boolean,
  tries: number,
): Candidate | undefined {
  const hopes = learns ? LEFT_BY_LEARNING : [1];
  const hope = hopes[tries];
  if (hope === undefined) return undefined;
  const hoped = left.filter(({ drop }) => hope * drop <= allowed);
  if (hoped.length > 0) return hoped.reduce((least, one) => (one.bytes < least.bytes ? one : least));
  return leastLoss(left);
}

/** Whether what was missed may be met by this one instead. */
function isOtherWay(one: Candidate, { candidate }: Tried, why: readonly LimitName[]): boolean {
  return !why.includes('timeRatio') || (one.timeRatio ?? 1) < (candidate.timeRatio ?? 1);
}

function leastLoss(candidates: readonly Candidate[]): Candidate | undefined {
  return candidates.reduce<Candidate | undefined>(
    (least, one) => (least === undefined || one.divergence < least.divergence ? one : least),
    undefined,
  );
}

/** The one that misses the limits by least; of several the one of least loss. */
export function nearest(candidates: readonly Candidate[], limits: Limits): Candidate | undefined {
  const far = (one: Candidate): number => excess(limits, planned(one));
  return candidates.reduce<Candidate | undefined>((best, one) => {
    if (best === undefined) return one;
    const [own, least] = [far(one), far(best)];
    return own < least || (own === least && one.divergence < best.divergence) ? one : best;
  }, undefined);
}
