/** What `prune` was asked for, a share of the cost and a largest drop, held against what came of it. */
import type { ModelProto } from 'onnx-buf';
import { FlowCompressError } from '../../errors.js';
import type { Cost } from '../../pruning/cost.js';
import { leastCost } from '../../pruning/step.js';
import type { PruneReport } from '../../report/report.js';
import type { PruneOptions } from './options.js';
import {
  allowedIn,
  lastOf,
  latencyRatio,
  noFiniteCut,
  nothingToRemove,
  stepRequestOf,
  type Course,
  type CourseRequest,
} from './course.js';
import { costIn, errorOf, type PruningStudy } from './study.js';
import type { Workspace } from '../workspace.js';

export type Limits = Pick<PruneReport, 'budget' | 'drop'>;

/** A goal counts as met within so much of it: widths come in steps. */
export const SLACK = 0.005;

/** The share that is to go; undefined where only the drop limits it. */
export function requestedOf({ reduce, maxDrop }: PruneOptions): number | undefined {
  return reduce ?? (maxDrop === undefined ? 0.5 : undefined);
}

/** @param left share of the cost that is left */
export function budgetFor(settings: PruneOptions, left: number): Limits['budget'] {
  const requested = requestedOf(settings);
  if (requested === undefined) return undefined;
  return { of: settings.of, requested, achieved: 1 - left, met: 1 - left >= requested - SLACK };
}

export async function budgetOf(
  workspace: Workspace,
  study: PruningStudy,
  settings: PruneOptions,
  cost: Cost,
  model: ModelProto,
): Promise<Pick<Limits, 'budget'>> {
  if (requestedOf(settings) === undefined) return {};
  const costOf = costIn(settings.of);
  const left =
    settings.of === 'latency' ? await latencyRatio(workspace, study, model) : costOf(cost) / costOf(study.cost);
  return { budget: budgetFor(settings, left) };
}

export async function dropOf(
  study: PruningStudy,
  { maxDrop }: PruneOptions,
  model: ModelProto,
): Promise<Pick<Limits, 'drop'>> {
  if (maxDrop === undefined) return {};
  const was = errorOf(study.quality);
  const measured = errorOf(await study.qualityOf(model)).error - was.error;
  return { drop: { metric: was.metric, allowed: maxDrop, measured, met: measured <= maxDrop } };
}

/**
 * Before anything is measured.
 * @throws FlowCompressError `infeasible` for a goal that no cut can meet, unless the best model will do, and for a model of which
 *   nothing can be removed
 */
export async function refuseUnreachable(request: CourseRequest): Promise<void> {
  const { study, settings } = request;
  const wanted = { goal: 0, allowed: allowedIn(settings.stages) };
  const least = await leastCost(await stepRequestOf(request, study.original, wanted));
  if (!least) throw nothingToRemove();
  const costOf = costIn(settings.of);
  const budget = budgetFor(settings, costOf(least) / costOf(study.cost));
  // How much time goes with all that can go is not known before.
  if (budget && settings.of !== 'latency') refuseUnmet({ budget }, settings);
}

/** @throws FlowCompressError `infeasible` when only the drop limits the cuts and all of them exceeded it, unless the original will do */
export function refuseNothingKept({ steps }: Course, study: PruningStudy, settings: PruneOptions): void {
  const { maxDrop, bestEffort } = settings;
  if (bestEffort || maxDrop === undefined || requestedOf(settings) !== undefined) return;
  if (steps.length === 0 || steps.some(({ accepted }) => accepted)) return;
  const quality = lastOf(steps.at(-1)!);
  const was = errorOf(study.quality);
  if (!quality) throw noFiniteCut();
  throw new FlowCompressError(
    'infeasible',
    `Every cut that was tried loses too much: the smallest ${(errorOf(quality).error - was.error).toPrecision(3)} of ${was.metric} on VAL, ${String(maxDrop)} are allowed.`,
    { hint: 'Allow a larger --max-drop, learn longer, lower --align for smaller cuts, or give more data.' },
  );
}

/** @throws FlowCompressError `infeasible` for a limit that is not met, unless the best model will do */
export function refuseUnmet(
  { budget, drop }: Limits,
  { bestEffort, maxDrop }: Pick<PruneOptions, 'bestEffort' | 'maxDrop'>,
): void {
  if (bestEffort) return;
  const percent = (share: number): string => `${(100 * share).toFixed(1)} %`;
  if (budget?.met === false)
    throw new FlowCompressError(
      'infeasible',
      `Only ${percent(budget.achieved)} of the ${budget.of} could be removed, not ${percent(budget.requested)}.`,
      {
        hint:
          maxDrop !== undefined
            ? 'Allow a larger --max-drop, learn longer, or write the best model found with --best-effort.'
            : 'Ask for less, lower --align, or write the best model found with --best-effort.',
      },
    );
  if (drop?.met === false)
    throw new FlowCompressError(
      'infeasible',
      `The pruned model loses ${drop.measured.toPrecision(3)} of ${drop.metric} on VAL, ${String(drop.allowed)} are allowed.`,
      { hint: 'Ask for less, learn longer, or write the model with --best-effort.' },
    );
}
