/** Learning rate over the course of a training. */

export const SCHEDULES = ['constant', 'step', 'cosine', 'plateau'] as const;
export type ScheduleName = (typeof SCHEDULES)[number];

export interface ScheduleOptions {
  readonly schedule: ScheduleName;
  readonly learningRate: number;
  /** Share of the training over which the rate climbs linearly from near 0. */
  readonly warmup: number;
}

/** What `plateau` remembers; part of a checkpoint. */
export interface PlateauState {
  readonly best: number;
  readonly waited: number;
  /** Factor on the rate. */
  readonly factor: number;
}

export const PLATEAU_START: PlateauState = { best: -Infinity, waited: 0, factor: 1 };
/** Evaluations without progress before `plateau` lowers the rate, and by how much. */
const PATIENCE = 3;
const PLATEAU_FACTOR = 0.3;
/** Where `step` lowers the rate tenfold, as shares of the training (He et al. 2016). */
const MILESTONES = [0.5, 0.75];

/**
 * @param progress share of the training that lies behind, in [0, 1): of steps, or of the time where that ends it
 * @param plateau factor of the plateau schedule
 */
export function learningRateAt(progress: number, options: ScheduleOptions, plateau = 1): number {
  const { schedule, learningRate, warmup } = options;
  if (progress < warmup) return (learningRate * Math.max(progress, 1e-3 * warmup)) / warmup;
  switch (schedule) {
    case 'constant':
      return learningRate;
    case 'step':
      return learningRate * 0.1 ** MILESTONES.filter((milestone) => progress >= milestone).length;
    case 'cosine': {
      const rest = (progress - warmup) / Math.max(1 - warmup, 1e-9);
      return 0.5 * learningRate * (1 + Math.cos(Math.PI * Math.min(1, rest)));
    }
    case 'plateau':
      return learningRate * plateau;
  }
}

/** @param score higher is better */
export function observePlateau(state: PlateauState, score: number): PlateauState {
  if (score > state.best) return { ...state, best: score, waited: 0 };
  if (state.waited + 1 < PATIENCE) return { ...state, waited: state.waited + 1 };
  return { ...state, waited: 0, factor: state.factor * PLATEAU_FACTOR };
}
