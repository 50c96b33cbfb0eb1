/** Plots over the course of a training or a recovery: losses and scores on VAL above each other, and the learning rate. */
import type { TopLevelSpec } from 'vega-lite';
import { formatMetric, isFraction, metricHead, metricLabel, shortNumber, significant } from '../format.js';
import { distanceTitle, scoreNameOf, scoreText } from '../quality.js';
import { formatPosition } from '../training.js';
import type { RecoverySummary } from '../report.js';
import type { CoursePoint } from '../training.js';
import { panels } from './course-panels.js';
import type { Panel } from './course-panels.js';
import { COLOURS, unitSuffix } from './theme.js';

/** Training loss above the score on VAL, the best epoch marked in both. */
export function coursePlot(course: readonly CoursePoint[], metric: string, width: number): TopLevelSpec {
  return panels(course, 'epoch', [lossPanel(130), scorePanel(metric)], width);
}

export function lossPanel(height: number): Panel<CoursePoint> {
  return {
    ...{ title: 'training loss, mean over the epoch', height, colour: COLOURS.series[0], zero: false },
    value: (point) => point.loss,
    tip: (point) => `loss ${significant(point.loss, 4)}`,
  };
}

/** The score on VAL, the best one labelled. */
export function scorePanel(metric: string): Panel<CoursePoint> {
  const factor = isFraction(metric) ? 100 : 1;
  const score = (point: CoursePoint): string => formatMetric({ name: metric, value: point.score });
  return {
    ...{ title: `${metricLabel(metric)} on VAL${unitSuffix(metric)}`, height: 150, zero: false },
    colour: COLOURS.series[2],
    value: (point) => point.score * factor,
    tip: score,
    label: (point) => `epoch ${formatPosition(point.position)}: ${score(point)}`,
  };
}

/** Learning rate at the end of each epoch. */
export function learningRatePlot(course: readonly CoursePoint[], width: number): TopLevelSpec {
  const panel: Panel<CoursePoint> = {
    ...{ height: 110, colour: COLOURS.series[1], zero: true },
    value: (point) => point.learningRate,
    tip: (point) => `learning rate ${shortNumber(point.learningRate, 3)}`,
  };
  return panels(course, 'epoch', [panel], width);
}

/** Divergence on VAL above the share of right (or else of the original's) answers; the state that was written is marked. */
export function recoveryPlot(recovery: RecoverySummary, width: number): TopLevelSpec {
  const { before, points, bestStep, measure } = recovery;
  const course = [{ step: 0, ...before }, ...points].map((point) => ({
    ...{ position: point.step, best: point.step === bestStep, quality: point },
  }));
  type Point = (typeof course)[number];
  const divergence: Panel<Point> = {
    ...{ title: distanceTitle(measure), height: 130, colour: COLOURS.series[0], zero: true },
    value: ({ quality }) => quality.divergence,
    tip: ({ quality }) => significant(quality.divergence, 3),
    label: ({ position, quality }) => `update ${String(position)}: ${significant(quality.divergence, 3)}`,
  };
  const name = scoreNameOf([before]);
  if (name === undefined || course.some(({ quality }) => quality[name] === undefined))
    return panels(course, 'update', [divergence], width);
  const share = ({ quality }: Point): string => scoreText(quality, name) ?? '';
  const score: Panel<Point> = {
    ...{ title: `${metricHead(name)} on VAL${unitSuffix(name)}`, height: 130, colour: COLOURS.series[2], zero: false },
    value: ({ quality }) => 100 * (quality[name] ?? 0),
    tip: share,
    label: (point) => `update ${String(point.position)}: ${share(point)}`,
  };
  return panels(course, 'update', [divergence, score], width);
}
