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
import type { TrainingPoint, TrainReport } from './report.js';
import { thinned } from './thinning.js';

/** One evaluation on VAL with what tables and plots need of it. */
export interface CoursePoint extends TrainingPoint {
  /** Epochs since the beginning: whole except where training stopped inside an epoch. */
  readonly position: number;
  /** Whether its weights were written. */
  readonly best: boolean;
}

/** The history in order. Inside an epoch the position follows from the updates of the whole ones. */
export function courseOf({ history, training }: Pick<TrainReport, 'history' | 'training'>): CoursePoint[] {
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
export function thinnedCourse(course: readonly CoursePoint[], rows?: number): CoursePoint[] {
  return thinned(course, (point) => point.best, rows);
}

/** Heads of the columns of `courseCells`. */
export function courseHead({ training }: Pick<TrainReport, 'training'>): string[] {
  return ['epoch', 'updates', 'loss', `VAL ${metricLabel(training.metric)}`, 'learning rate', 'time', ''];
}

/** One row of the table of epochs; the last cell marks the point whose weights were written. */
export function courseCells(point: CoursePoint, { training }: Pick<TrainReport, 'training'>): string[] {
  return [
    formatPosition(point.position),
    point.step.toLocaleString('en-US'),
    significant(point.loss, 4),
    formatMetric({ name: training.metric, value: point.score }),
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
export function trainingTitle({ settings, training, seed }: TrainReport): string {
  const optimizer = settings?.optimizer;
  const length = training.epochs > 0 ? counted(training.epochs, 'epoch') : counted(training.steps, 'update');
  return [...(typeof optimizer === 'string' ? [optimizer] : []), length, `seed ${seed}`].join(', ');
}

/** How it ended, which weights were written and how fast it was, in one sentence. */
export function endSentence(report: TrainReport): string {
  const { samplesPerSecond } = report.training;
  const parts = [ending(report), written(report)];
  if (samplesPerSecond !== undefined) parts.push(`${Math.round(samplesPerSecond).toLocaleString('en-US')} samples/s`);
  return `${parts.join('; ')}.`;
}

function ending({ training }: TrainReport): string {
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

function written(report: TrainReport): string {
  const { metric, bestEpoch } = report.training;
  const best = courseOf(report).find((point) => point.best);
  if (best === undefined)
    return bestEpoch > 0 ? `the weights of epoch ${bestEpoch} were written` : 'the weights were written';
  const score = `${formatMetric({ name: metric, value: best.score })} ${metricLabel(metric)} on VAL`;
  const isWhole = best.epoch > 0 && Number.isInteger(best.position);
  const when = isWhole ? `of epoch ${best.epoch}` : `after ${counted(best.step, 'update')}`;
  return `the weights ${when} were written (${score})`;
}
