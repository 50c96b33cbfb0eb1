/** What the reports say about a pruning, independent of the medium: steps, widths, branches taken out, budget and drop. */
import {
  counted,
  formatCount,
  formatMetricAmount,
  formatSeconds,
  formatShare,
  isLowerBetter,
  metricLabel,
  significant,
} from './format.js';
import { groupName } from './groups.js';
import { distanceHead, scoreNameOf, scoreText } from './quality.js';
import type { ScoreName } from './quality.js';
import type { PrunedGroup, PruneReport, PruningStep, Quality, RemovedBranch } from './report.js';
import { thinned } from './thinning.js';

/** States of the model inside a step, in the order in which they are reached. */
export const STAGES = [
  { key: 'cut', label: 'cut' },
  { key: 'refitted', label: 're-fitted' },
  { key: 'normalized', label: 'normalized' },
  { key: 'aligned', label: 'aligned' },
  { key: 'recovered', label: 'learned' },
] as const;

export type StageKey = (typeof STAGES)[number]['key'];

/** `flow, seed 7, target cpu`. */
export function pruningTitle({ method, seed, target }: PruneReport): string {
  return `${method}, seed ${seed}, target ${target}`;
}

/** The share that stands for the quality of every step; undefined where only the divergence is known. */
export function pruningScore({ original, steps }: Pick<PruneReport, 'original' | 'steps'>): ScoreName | undefined {
  return scoreNameOf([original, ...steps.flatMap((step) => STAGES.flatMap(({ key }) => step[key] ?? []))]);
}

/** What the columns of qualities show, for the line above their table: `Top-1 on VAL after each part of a step`. */
export function stepsCaption(report: PruneReport): string {
  const score = pruningScore(report);
  const what =
    score === 'top1'
      ? 'Top-1'
      : score === 'agreement'
        ? 'Agreement with the original'
        : report.measure === 'kl'
          ? 'KL divergence from the original, in nats,'
          : 'Relative error against the original';
  return `${what} on VAL after each part of a step.`;
}

export interface TextTable {
  readonly head: string[];
  readonly rows: string[][];
}

/**
 * The steps as rows of text behind one for the original; columns in which no step has a value are left out, and the last
 * one, without a head, says what became of the step.
 * @param detailed with the share of the original's MACs, the updates and the time of each step
 */
export function stepTable(report: PruneReport, steps: PruneReport['steps'], detailed: boolean): TextTable {
  const { before, original } = report;
  const score = pruningScore(report);
  const quality = (value: Quality | undefined): string => {
    if (value === undefined) return '';
    return score === undefined ? significant(value.divergence, 3) : (scoreText(value, score) ?? '');
  };
  const share = (value: number, whole: number | undefined): string =>
    detailed && whole !== undefined && whole > 0 ? ` (${formatShare(value / whole)})` : '';
  const amount = (value: number | undefined): string => (value === undefined ? '' : formatCount(value));
  const column = (head: string, first: string, cell: (step: PruningStep) => string): string[] => [
    head,
    first,
    ...steps.map(cell),
  ];
  const columns = [
    column('step', '', ({ step }) => String(step)),
    column('MACs', amount(before.macs), ({ macs }) =>
      macs === undefined ? '' : amount(macs) + share(macs, before.macs),
    ),
    column('params', amount(before.params), ({ params }) => amount(params)),
    column('units', '', ({ units }) => units.toLocaleString('en-US')),
    column('branches', '', ({ branches }) => (branches.length === 0 ? '' : String(branches.length))),
    ...STAGES.map(({ key, label }) =>
      column(label, key === 'cut' && score !== undefined ? quality(original) : '', (step) => quality(step[key])),
    ),
    ...(detailed
      ? [
          column('updates', '', ({ updates }) => updates?.toLocaleString('en-US') ?? ''),
          column('time', '', ({ seconds }) => formatSeconds(seconds)),
        ]
      : []),
    column('', 'original', ({ accepted }) => (accepted ? 'kept' : 'taken back')),
  ].filter((cells) => cells.slice(2).some((cell) => cell !== ''));
  return {
    head: columns.map(([head]) => head),
    rows: ['', ...steps].map((_, i) => columns.map((cells) => cells[i + 1])),
  };
}

/** The steps that short tables show: the first, the last, the last one that was kept, and others between. */
export function thinnedSteps({ steps }: Pick<PruneReport, 'steps'>): PruningStep[] {
  const last = steps.findLast(({ accepted }) => accepted);
  return thinned(steps, (step) => step === last);
}

/** Groups that lost units; with `rows` at most so many, those that lost the largest shares, in the order of the report. */
export function changedGroups({ groups }: Pick<PruneReport, 'groups'>, rows = Infinity): PrunedGroup[] {
  const changed = groups.filter(({ before, after }) => after < before);
  const kept = new Set([...changed].sort((a, b) => a.after / a.before - b.after / b.before).slice(0, rows));
  return changed.filter((group) => kept.has(group));
}

/** How many groups lost units and how many kept all. */
export function widthsCaption({ groups }: Pick<PruneReport, 'groups'>): string {
  const changed = changedGroups({ groups }).length;
  const whole = groups.length - changed;
  const rest = whole === 0 ? '' : whole === 1 ? '; 1 kept all' : `; ${whole} kept all`;
  return `${counted(changed, 'group')} lost units${rest}.`;
}

export const WIDTHS_HEAD = ['layers', 'kind', 'units before', 'after', 'left'];

export function widthCells(group: PrunedGroup): string[] {
  const { kind, before, after } = group;
  const count = (value: number): string => value.toLocaleString('en-US');
  return [groupName(group), kind, count(before), count(after), formatShare(before === 0 ? 1 : after / before)];
}

/** Heads of the columns of `branchCells`. */
export function branchHead({ measure }: Pick<PruneReport, 'measure'>): string[] {
  return ['taken out or replaced', 'layers', 'params', 'MACs', `${distanceHead(measure)} alone`];
}

export function branchCells({ name, layers, params, macs, divergence }: RemovedBranch): string[] {
  return [
    name,
    String(layers.length),
    formatCount(params),
    macs === undefined ? '' : formatCount(macs),
    divergence === undefined ? '' : significant(divergence, 3),
  ];
}

/** What was asked for and what came of it. */
export interface Outcome {
  readonly text: string;
  readonly met: boolean;
}

const COSTS = { macs: 'MACs', params: 'parameters', latency: 'latency' } as const;

/** The budget and the allowed drop, as far as there were any. */
export function outcomesOf({ budget, drop }: Pick<PruneReport, 'budget' | 'drop'>): Outcome[] {
  return [
    ...(budget === undefined ? [] : [{ text: budgetText(budget), met: budget.met }]),
    ...(drop === undefined ? [] : [{ text: dropText(drop), met: drop.met }]),
  ];
}

function budgetText({ of, requested, achieved, met }: NonNullable<PruneReport['budget']>): string {
  const way = achieved < 0 ? 'increased' : 'reduced';
  const change = `${COSTS[of]} ${way} by ${formatShare(Math.abs(achieved))}`;
  return `Budget ${met ? 'met' : 'NOT met'}: ${change}, asked for ${formatShare(requested)}.`;
}

function dropText({ metric, allowed, measured, met }: NonNullable<PruneReport['drop']>): string {
  const fell = measured < 0 === isLowerBetter(metric);
  const change = `${metricLabel(metric)} on VAL ${fell ? 'fell' : 'rose'} by ${formatMetricAmount(metric, Math.abs(measured))}`;
  return `Drop ${met ? 'kept to' : 'NOT kept to'}: ${change}, ${formatMetricAmount(metric, allowed)} allowed.`;
}
