/** How deep a ladder of cuts goes, rung by rung. */
import type { Limits } from './limits.js';

/** Shares of the cost that the rungs behind the original leave. */
export const RUNGS: readonly number[] = [0.8, 0.65, 0.5, 0.4, 0.3, 0.22, 0.16, 0.12, 0.08];
/** A rung that leaves more than this share of the one before is none. */
export const LEAST_STEP = 0.985;

/** What is cut: multiply-accumulates where speed is asked for, else parameters, which are bytes. */
export function costOfCuts({ timeRatio }: Limits, areMacsKnown: boolean): 'macs' | 'params' {
  return timeRatio !== undefined && areMacsKnown ? 'macs' : 'params';
}

/** The share that one cut by rule leaves: what the speed asks for, else half. */
export function shareByRule({ timeRatio }: Limits, reduce: number | undefined): number {
  if (reduce !== undefined) return 1 - reduce;
  return timeRatio ?? 0.5;
}

/** Share of its cost that a network keeps on the way to a size. @param wanted of its bytes; most of a file are weights */
export function narrowing(wanted: number): number {
  return wanted > 0.5 ? NARROWER : Math.max(0.05, wanted / NARROWER);
}
const NARROWER = 0.9;
