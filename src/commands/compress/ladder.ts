/** The ladder of cuts of a `compress` run: each rung costs less than the one it is cut from, fitted in closed form, kept in the run directory. */
import { join } from 'node:path';
import { z } from 'zod';
import { saveModel } from '../../node/model-file.js';
import { costOfCuts, LEAST_STEP } from '../../pipeline/ladder.js';
import { cutOf, renews } from '../../pipeline/recipes.js';
import { renewed } from '../../recovery/renew.js';
import { findPruningMethod, type StructuredMethod } from '../../pruning/methods.js';
import type { PlanGoal } from '../../pruning/plan.js';
import { pruneStep } from '../../pruning/step.js';
import type { CompressRun } from './run.js';
import { noFiniteCut, stepRequestOf } from '../prune/course.js';
import { cutBy, cutFields, readCut, writtenCut, type Cut } from '../prune/memory.js';
import { costIn } from '../prune/study.js';

export interface Rung extends Cut {
  /** In the order in which they are cut; 0 for the original. */
  readonly index: number;
  /** Of the cost of the original that is left. */
  readonly share: number;
}

/** The original. */
export function firstRung({ study: { original, cost } }: CompressRun): Rung {
  return { index: 0, share: 1, state: original, cost, divergences: new Map(), difference: 0 };
}

/** What the making of a rung's model starts from: the cut model, or a network of its shape with new weights. */
export function startOf({ recipe, settings }: Pick<CompressRun, 'recipe' | 'settings'>, rung: Rung): Rung {
  if (!renews(recipe)) return rung;
  return { ...rung, state: { ...rung.state, model: renewed(rung.state.model, settings.seed) } };
}

const rungSchema = z.object({ ...cutFields, share: z.number() });

/**
 * @param last what is cut further: the next deeper rung so far
 * @param share of the cost of the original to be left, or a function that tells it from what the cuts on the way would do
 * @param index of the new rung: how many there are
 * @returns undefined when there is hardly anything that could go, or what a deeper cut leaves gives no finite answers
 * @throws FlowCompressError as `pruneStep`; `infeasible` when the only cut that a rule makes leaves a model without finite answers
 */
export async function nextRung(
  run: CompressRun,
  last: Rung,
  share: number | Exclude<PlanGoal, number>,
  index: number,
): Promise<Rung | undefined> {
  const { workspace, study, settings, recipe, limits, clock, control } = run;
  const kept = await takeUp(run, index);
  if (kept) return kept;
  const of = costOfCuts(limits, study.cost.macs !== undefined);
  const costOf = costIn(of);
  const whole = costOf(study.cost);
  const request = await stepRequestOf(
    {
      ...{ workspace, study, method: findPruningMethod(cutOf(recipe)!.pruning) as StructuredMethod },
      settings: { of, seed: settings.seed, order: 'lowest', align: settings.align },
    },
    last.state,
    { goal: typeof share === 'number' ? share * whole : share, allowed: { filters: true, layers: true } },
  );
  const step = await clock.stage('cut and fit', () => pruneStep(request, control));
  if (!step) return undefined;
  // Of what is drawn anew only the shape counts.
  if (!renews(recipe) && !Number.isFinite(step.quality.divergence)) {
    if (cutOf(recipe)!.how === 'rule') throw noFiniteCut();
    return undefined;
  }
  const left = costOf(step.cost) / whole;
  if (left > LEAST_STEP * last.share) return undefined;
  const rung: Rung = { ...cutBy(step, last), index, share: left };
  await remember(run, rung);
  return rung;
}

const nameOf = (index: number): string => `rung ${String(index)}`;
const fileOf = (runDir: string, index: number): string => join(runDir, `rung-${String(index)}.onnx`);

async function remember({ run, settings }: CompressRun, rung: Rung): Promise<void> {
  if (!run || settings.runDir === undefined) return;
  // The model first: without the line about it, it is made again.
  await saveModel(rung.state.model, fileOf(settings.runDir, rung.index), { force: true });
  const kept: z.input<typeof rungSchema> = { ...writtenCut(rung), share: rung.share };
  await run.cache.write(nameOf(rung.index), JSON.stringify(kept));
}

async function takeUp({ run, settings, study, workspace }: CompressRun, index: number): Promise<Rung | undefined> {
  const text = await run?.cache.read(nameOf(index));
  if (text === undefined || settings.runDir === undefined) return undefined;
  const { share, ...cut } = rungSchema.parse(JSON.parse(text));
  return { ...(await readCut(cut, fileOf(settings.runDir, index), study, workspace)), index, share };
}
