/** Results of a sweep: rows over the seeds, the courses of single trials, what failed. */
import type { BenchCurve, BenchReport, BenchRow, Compared, Measurement, Report, Statistic } from '../report/report.js';
import { baseName, isLowerBetter } from '../report/format.js';
import { placedBy } from '../report/plots/pruning.js';
import { pruningScore } from '../report/pruning.js';
import { latenciesOf } from '../report/summary.js';
import { courseOf } from '../report/training.js';
import type { SweepPlan, TrialOutcome } from './sweep-folder.js';
import { METHOD, referredTo, SEED, STUDENT, TEACHER } from './trial.js';
import type { Trial } from './trial.js';

/** A report with a model in it, and perhaps what it was made from. */
export interface TrialResult {
  readonly trial: Trial;
  readonly report: Report;
}

export type SweepResults = Pick<BenchReport, 'rows' | 'curves' | 'trials' | 'failed' | 'warnings'>;

/** What is known of a sweep so far, in the order of the plan. */
export function resultsOf({ trials }: SweepPlan, outcomes: ReadonlyMap<string, TrialOutcome>): SweepResults {
  const known = trials.flatMap((trial) => {
    const outcome = outcomes.get(trial.id);
    return outcome ? [{ trial, outcome }] : [];
  });
  const done = known.flatMap(({ trial, outcome }) => ('report' in outcome ? [{ trial, report: outcome.report }] : []));
  const failed = known.flatMap(({ trial, outcome }) =>
    'error' in outcome ? [{ trial: trial.name, code: outcome.error.code, message: outcome.error.message }] : [],
  );
  const open = trials.length - known.length;
  const warnings = [
    ...failed.map(({ trial, message }) => `${trial}: ${message}`),
    ...(open > 0 ? [`${String(open)} of ${String(trials.length)} trials have no result yet.`] : []),
  ];
  const subjects = subjectsOf(trials);
  const curves = done.flatMap((one) => curveOf(one, subjects) ?? []);
  return {
    rows: rowsOf(done, subjects),
    ...(curves.length > 0 && { curves }),
    trials: { planned: trials.length, done: done.length },
    ...(failed.length > 0 && { failed }),
    ...(warnings.length > 0 && { warnings }),
  };
}

/** What the model of a trial is called in the end: one that another trial wrote is called as the model of that one. */
function subjectsOf(trials: readonly Trial[]): (trial: Trial) => string {
  const byName = new Map(trials.map((trial) => [trial.name, trial]));
  const called = (model: string): string => {
    const source = referredTo(model);
    const trial = source === undefined ? undefined : byName.get(source);
    return trial ? subject(trial) : baseName(source ?? model);
  };
  const subject = ({ models, options }: Trial): string => {
    const student = String(options[STUDENT] ?? '');
    const own = models.length > 0 ? models : [student === TEACHER ? String(options[TEACHER] ?? '') : student];
    return [...new Set(own.map(called))].join(', ');
  };
  return subject;
}

type Subjects = ReturnType<typeof subjectsOf>;

/** Runs that differ in nothing but the seed are one row. */
function rowsOf(results: readonly TrialResult[], subjects: Subjects): BenchRow[] {
  const groups = new Map<string, TrialResult[]>();
  for (const one of results) {
    const { command, options, labels, models } = one.trial;
    // Files of one name in two folders are two models; those that trials wrote differ in their seeds.
    const files = models.filter((model) => referredTo(model) === undefined);
    const key = JSON.stringify([command, files, subjects(one.trial), options[STUDENT], labels, options[METHOD]]);
    groups.set(key, [...(groups.get(key) ?? []), one]);
  }
  return [...groups.values()].flatMap((runs) => {
    const sides = runs.flatMap(({ report }) => sidesOf(report) ?? []);
    if (sides.length < runs.length) return [];
    return [rowOf(runs, sides, subjects)];
  });
}

/** Rows of a model together, those of the best figure on VAL first (on TEST where there is none of VAL); models in the order of the plan. */
export function rankedRows(rows: readonly BenchRow[]): BenchRow[] {
  const models = [...new Set(rows.map(({ model }) => model))];
  const gain = ({ metric, val }: BenchRow): number => {
    const value = (val ?? metric)?.after.mean ?? -Infinity;
    return metric && isLowerBetter(metric.name) ? -value : value;
  };
  return models.flatMap((name) => rows.filter(({ model }) => model === name).sort((a, b) => gain(b) - gain(a)));
}

interface Sides {
  readonly before?: Measurement;
  readonly after: Measurement;
}

function rowOf(runs: readonly TrialResult[], sides: readonly Sides[], subjects: Subjects): BenchRow {
  const statistic = (read: (side: Sides) => number | undefined): Statistic | undefined => statisticOf(sides.map(read));
  const compared = (read: (side: Measurement) => number | undefined): Compared | undefined => {
    const before = statistic((side) => side.before && read(side.before));
    const after = statistic((side) => read(side.after));
    return after && { ...(before && { before }), after };
  };
  const metric = compared((side) => side.metric?.value);
  const val = compared((side) => side.val?.value);
  const params = compared(({ params: count }) => count);
  const latencies = latenciesOf(sides[0]!.after).flatMap(({ batch }) => {
    const times = compared((side) => latenciesOf(side).find((one) => one.batch === batch)?.medianMs);
    return times ? [{ batch, ...times }] : [];
  });
  const stages = stagesOf(runs.map(({ report }) => report));
  const optional = {
    agreement: statistic(({ after }) => after.metrics?.find(({ name }) => name === 'agreement')?.value),
    macs: statistic(({ before, after }) => ratio(after.macs, before?.macs)),
    latency: statistic(({ before, after }) => ratio(lastLatency(after), before && lastLatency(before))),
    updates: statisticOf(runs.map(({ report }) => updatesOf(report))),
  };
  return {
    ...{ ...identityOf(runs[0]!.trial, subjects), seeds: runs.length },
    ...(metric && { metric: { name: sides[0]!.after.metric!.name, ...metric } }),
    ...(val && { val }),
    bytes: compared(({ bytes }) => bytes)!,
    ...(params && { params }),
    ...(latencies.length > 0 && { latencies }),
    seconds: statisticOf(runs.map(({ report }) => report.seconds))!,
    ...(stages.length > 0 && { stages }),
    ...Object.fromEntries(Object.entries(optional).filter(([, value]) => value !== undefined)),
  };
}

/** Means over the runs; a stage that a run did without counts as nothing there. */
function stagesOf(reports: readonly Report[]): NonNullable<BenchRow['stages']> {
  const all = reports.flatMap(({ stages = [] }) => stages);
  return [...new Set(all.map(({ name }) => name))].map((name) => ({
    name,
    seconds: all.reduce((sum, one) => sum + (one.name === name ? one.seconds : 0), 0) / reports.length,
  }));
}

/** What a row, or a course, is called. */
function identityOf(trial: Trial, subjects: Subjects): Pick<BenchRow, 'model' | 'method' | 'options'> {
  const { command, options, labels } = trial;
  const { [METHOD]: method = options[METHOD] ?? command, ...others } = labels;
  return { model: subjects(trial), method: String(method), options: others };
}

/** Undefined for a report that is about no model in particular. */
function sidesOf(report: Report): Sides | undefined {
  switch (report.command) {
    case 'quantize':
    case 'prune':
    case 'distill':
    case 'compress':
      return { before: report.before, after: report.after };
    case 'train':
      return { ...(report.before && { before: report.before }), after: report.after };
    case 'evaluate':
      // The first file is the reference of the others.
      return { before: report.files[0]!, after: report.files.at(-1)! };
    default:
      return undefined;
  }
}

function updatesOf(report: Report): number | undefined {
  switch (report.command) {
    case 'distill':
    case 'train':
      return report.training.steps;
    case 'compress':
    case 'prune':
    case 'quantize': {
      const parts = [report.recovery, ...(report.command === 'compress' ? [report.learning] : [])];
      const known = parts.flatMap((part) => (part ? [part.steps] : []));
      return known.length > 0 ? known.reduce((a, b) => a + b, 0) : undefined;
    }
    default:
      return undefined;
  }
}

/** The course of a pruning or a training on VAL; undefined where there is none. */
function curveOf({ trial, report }: TrialResult, subjects: Subjects): BenchCurve | undefined {
  const found = report.command === 'prune' ? pruningCourse(report) : trainingCourse(report);
  if (found === undefined || found.points.length < 2) return undefined;
  const seed = Number(trial.options[SEED]);
  return { ...identityOf(trial, subjects), ...(Number.isInteger(seed) && { seed }), ...found };
}

type Course = Pick<BenchCurve, 'kind' | 'metric' | 'points'>;

function pruningCourse(report: Extract<Report, { command: 'prune' }>): Course | undefined {
  const cost = placedBy(report);
  const metric = pruningScore(report);
  const whole = cost && report.before[cost];
  if (cost === undefined || metric === undefined || whole === undefined) return undefined;
  const steps = report.steps.filter(({ accepted }) => accepted);
  const score = report.original[metric];
  const points = [
    ...(score === undefined ? [] : [{ at: 1, score }]),
    ...steps.flatMap((step, i) => {
      const isLast = i === steps.length - 1;
      const end =
        (isLast ? report.recovery?.after : undefined) ?? step.recovered ?? step.aligned ?? step.refitted ?? step.cut;
      const value = end?.[metric];
      return value === undefined ? [] : [{ at: (step[cost] ?? 0) / whole, score: value }];
    }),
  ];
  return { kind: 'pruning', metric, points };
}

function trainingCourse(report: Report): Course | undefined {
  if (report.command !== 'distill' && report.command !== 'train') return undefined;
  const points = courseOf(report).map(({ position, score }) => ({ at: position, score }));
  return { kind: 'training', metric: report.training.metric, points };
}

function lastLatency(side: Measurement): number | undefined {
  return latenciesOf(side).at(-1)?.medianMs;
}

function ratio(after: number | undefined, before: number | undefined): number | undefined {
  return after === undefined || before === undefined || before === 0 ? undefined : after / before;
}

/** Undefined where a run has no such figure. */
function statisticOf(values: readonly (number | undefined)[]): Statistic | undefined {
  const known = values.filter((value) => value !== undefined);
  if (known.length < values.length || known.length === 0) return undefined;
  return {
    mean: known.reduce((a, b) => a + b, 0) / known.length,
    least: Math.min(...known),
    most: Math.max(...known),
  };
}
