/** A cut model on its way through a run, and how run directories keep it. */
import { z } from 'zod';
import { openModel } from '../../node/model-file.js';
import type { Cost } from '../../pruning/cost.js';
import type { PruningState, Step } from '../../pruning/step.js';
import { traceShapes } from '../../runtime/trace.js';
import type { PruningStudy } from './study.js';
import type { Workspace } from '../workspace.js';

export interface Cut {
  readonly state: PruningState;
  readonly cost: Cost;
  /** What taking out each branch, or putting in each projection, alone did to the answers, by name; absent for one that it left without finite numbers. */
  readonly divergences: ReadonlyMap<string, number>;
  /** Largest relative difference of a cut model from the original with zeros. */
  readonly difference: number;
}

/** What a step makes of a cut model. */
export function cutBy({ state, cost, difference, layers }: Step, before: Pick<Cut, 'divergences' | 'difference'>): Cut {
  return {
    ...{ state, cost, difference: Math.max(before.difference, difference) },
    divergences: new Map([
      ...before.divergences,
      ...layers.flatMap(({ unit, divergence }) =>
        divergence !== undefined && Number.isFinite(divergence) ? [[unit.name, divergence] as const] : [],
      ),
    ]),
  };
}

/** All of a cut but its model, which is a file of its own. */
export const cutFields = {
  kept: z.record(z.string(), z.array(z.number())),
  gone: z.array(z.string()),
  projected: z.record(z.string(), z.array(z.string())).default({}),
  cost: z.object({ macs: z.number().optional(), params: z.number(), blocked: z.number().optional() }),
  divergences: z.record(z.string(), z.number()),
  difference: z.number(),
};
type KeptCut = z.output<z.ZodObject<typeof cutFields>>;

export function writtenCut({ state, cost, divergences, difference }: Cut): KeptCut {
  return {
    ...{ gone: [...state.gone], difference },
    kept: Object.fromEntries([...state.kept].map(([name, rows]) => [name, [...rows]])),
    projected: Object.fromEntries([...state.projected].map(([name, layers]) => [name, [...layers]])),
    cost: { ...cost },
    divergences: Object.fromEntries(divergences),
  };
}

/** @throws FlowCompressError as `openModel` */
export async function readCut(
  { kept, gone, projected, cost, divergences, difference }: KeptCut,
  file: string,
  { original }: PruningStudy,
  { engine, feedsFor, fixedBatch }: Workspace,
): Promise<Cut> {
  const { model } = await openModel(file);
  return {
    state: {
      ...{ model, gone, firstUnits: original.firstUnits },
      shapes: await traceShapes(engine, model, feedsFor(fixedBatch ?? 1)),
      kept: new Map(Object.entries(kept)),
      projected: new Map(Object.entries(projected)),
    },
    cost: { macs: cost.macs, params: cost.params, blocked: cost.blocked },
    ...{ difference, divergences: new Map(Object.entries(divergences)) },
  };
}
