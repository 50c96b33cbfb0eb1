/** What the reports say about the course of a training, independent of the medium. */
import {
  counted,
  formatMetric,
  formatSeconds,
  isLowerBetter,
  metricLabel,
  shortNumber,
  significant,
} from './format.js';
import type { TrainingPoint, TrainingSummary, TrainReport } from './report.js';
import { thinned } from './thinning.js';

/** What every report of a training has, whatever was learned from. */
export type TrainedReport = Pick<TrainReport, 'seed' | 'settings' | 'training'> & { history: readonly TermedPoint[] };

/** An evaluation on VAL that may know the terms of the loss. */
type TermedPoint = TrainingPoint & { readonly terms?: Readonly<Record<string, number>> };

/** One evaluation on VAL with what tables and plots need of it. */
export type CoursePoint<P extends TrainingPoint = TermedPoint> = P & {
  /** Epochs since the beginning: whole except where training stopped inside an epoch. */
  readonly position: number;
  /** Whether its weights were written. */
  readonly best: boolean;
};

/** The history in order. Inside an epoch the position follows from the updates of the whole ones. */
export function courseOf<P extends TrainingPoint>({
  history,
  training,
}: {
  readonly history: readonly P[];
  readonly training: TrainingSummary;
}): CoursePoint<P>[] {
  const whole = history.find((point) => point.epoch > 0 && point.step > 0);
  const gain = ({ score }: TrainingPoint): number => (isLowerBetter(training.metric) ? -score : score);
  const best = history
    .filter((point) => point.epoch === training.bestEpoch)
    .reduce<TrainingPoint | undefined>((a, b) => (a !== undefined && gain(a) >= gain(b) ? a : b), undefined);
  return history.map((point) => ({
    ...point,
    position: whole === undefined ? point.epoch : (point.step * whole.epoch) / whole.step,
    best: point === best,
  }));
}

/** At most `rows` of the points (4 or more): the first, the best, the last, and others evenly between. */
export function thinnedCourse<P extends CoursePoint>(course: readonly P[], rows?: number): P[] {
  return thinned(course, (point) => point.best, rows);
}

/** Names of the terms of the loss, in order of appearance. */
export function termsOf(history: readonly TermedPoint[]): string[] {
  return [...new Set(history.flatMap(({ terms }) => Object.keys(terms ?? {})))];
}

/** The table of epochs, thinned; its last column marks the point whose weights were written. `align` as for pipe tables. */
export function courseTable(report: TrainedReport): { head: string[]; rows: string[][]; align: string } {
  const terms = termsOf(report.history);
  const { metric } = report.training;
  return {
    head: ['epoch', 'updates', 'loss', ...terms, `VAL ${metricLabel(metric)}`, 'learning rate', 'time', ''],
    rows: thinnedCourse(courseOf(report)).map((point) => courseCells(point, metric, terms)),
    align: `${'r'.repeat(6 + terms.length)}l`,
  };
}

function courseCells(point: CoursePoint, metric: string, terms: readonly string[]): string[] {
  return [
    formatPosition(point.position),
    point.step.toLocaleString('en-US'),
    significant(point.loss, 4),
    ...terms.map((name) => {
      const value = point.terms?.[name];
      return value === undefined ? '' : significant(value, 3);
    }),
    formatMetric({ name: metric, value: point.score }),
    shortNumber(point.learningRate, 3),
    formatSeconds(point.seconds),
    point.best ? 'best' : '',
  ];
}

/** `27`, or `3.4` inside an epoch. */
export function formatPosition(position: number): string {
  return Number.isInteger(position) ? String(position) : position.toFixed(1);
}

/** `adamw, 30 epochs, seed 7`. */
export function trainingTitle({ settings, training, seed }: TrainedReport): string {
  const optimizer = settings?.optimizer;
  const length = training.epochs > 0 ? counted(training.epochs, 'epoch') : counted(training.steps, 'update');
  return [...(typeof optimizer === 'string' ? [optimizer] : []), length, `seed ${seed}`].join(', ');
}

/** How it ended, which weights were written and how fast it was, in one sentence. */
export function endSentence(report: TrainedReport): string {
  const { samplesPerSecond } = report.training;
  const parts = [ending(report), written(report)];
  if (samplesPerSecond !== undefined) parts.push(`${Math.round(samplesPerSecond).toLocaleString('en-US')} samples/s`);
  return `${parts.join('; ')}.`;
}

function ending({ training }: TrainedReport): string {
  const { epochs, steps, stopped } = training;
  const length = epochs > 0 ? counted(epochs, 'epoch') : counted(steps, 'update');
  switch (stopped) {
    case 'epochs':
      return `Stopped after ${length}`;
    case 'steps':
      return `Stopped after ${counted(steps, 'update')}`;
    case 'time':
      return `Stopped when the time was up, after ${length}`;
    case 'patience':
      return `Stopped after ${length}, when VAL no longer improved`;
  }
}

function written(report: TrainedReport): string {
  const { metric, bestEpoch } = report.training;
  const best = courseOf(report).find((point) => point.best);
  if (best === undefined)
    return bestEpoch > 0 ? `the weights of epoch ${bestEpoch} were written` : 'the weights were written';
  const score = `${formatMetric({ name: metric, value: best.score })} ${metricLabel(metric)} on VAL`;
  const isWhole = best.epoch > 0 && Number.isInteger(best.position);
  const when = isWhole ? `of epoch ${best.epoch}` : `after ${counted(best.step, 'update')}`;
  return `the weights ${when} were written (${score})`;
}
