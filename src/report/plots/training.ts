/** Plots over the course of a training or a recovery: losses and scores on VAL above each other, and the learning rate. */
import type { TopLevelSpec } from 'vega-lite';
import { formatMetric, isFraction, metricHead, metricLabel, shortNumber, significant } from '../format.js';
import { distanceTitle, scoreNameOf, scoreText } from '../quality.js';
import { formatPosition } from '../training.js';
import type { RecoverySummary } from '../report.js';
import type { CoursePoint } from '../training.js';
import { COLOURS, plotWidth, thinnedTicks, unitSuffix } from './theme.js';

/** A point of a course: where it stands on the axis, and whether its weights were written. */
interface Placed {
  readonly position: number;
  readonly best: boolean;
}

interface Panel<P extends Placed> {
  /** None where the panel stands alone. */
  readonly title?: string;
  readonly height: number;
  readonly colour: string;
  readonly value: (point: P) => number;
  readonly tip: (point: P) => string;
  /** Whether the axis begins at zero. */
  readonly zero: boolean;
  /** Text beside the line of the best point. */
  readonly label?: (point: P) => string;
}

/** Training loss above the score on VAL, the best epoch marked in both. */
export function coursePlot(course: readonly CoursePoint[], metric: string, width: number): TopLevelSpec {
  const factor = isFraction(metric) ? 100 : 1;
  const score = (point: CoursePoint): string => formatMetric({ name: metric, value: point.score });
  return panels(
    course,
    'epoch',
    [
      {
        ...{ title: 'training loss, mean over the epoch', height: 130, colour: COLOURS.series[0], zero: false },
        value: (point) => point.loss,
        tip: (point) => `loss ${significant(point.loss, 4)}`,
      },
      {
        ...{ title: `${metricLabel(metric)} on VAL${unitSuffix(metric)}`, height: 150, zero: false },
        colour: COLOURS.series[2],
        value: (point) => point.score * factor,
        tip: score,
        label: (point) => `epoch ${formatPosition(point.position)}: ${score(point)}`,
      },
    ],
    width,
  );
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

/** `course` must not be empty. */
function panels<P extends Placed>(
  course: readonly P[],
  unit: 'epoch' | 'update',
  all: readonly Panel<P>[],
  width: number,
): TopLevelSpec {
  const inner = plotWidth(width);
  const first = course[0].position;
  const last = course[course.length - 1].position;
  const best = course.find((point) => point.best);
  const ticks = thinnedTicks(Math.floor(last), inner).filter((tick) => tick >= first);
  const size = Math.max(6, Math.min(36, inner / course.length));
  // On the side of the line where there is more room.
  const isLate = best !== undefined && best.position - first > (last - first) / 2;
  return {
    vconcat: all.map((panel, i) => {
      const rows = course.map((point) => ({
        epoch: point.position,
        value: panel.value(point),
        best: point.best,
        tip: `${unit} ${formatPosition(point.position)}: ${panel.tip(point)}`,
      }));
      const isSmall = rows.every(({ value }) => Math.abs(value) < 0.01);
      const label = best === undefined ? undefined : panel.label?.(best);
      const labelled = i === all.length - 1;
      const x = {
        field: 'epoch',
        type: 'quantitative' as const,
        scale: { domain: [first, last], nice: false, padding: 8 },
        axis: { values: ticks, format: 'd', labels: labelled, ticks: false, title: labelled ? unit : null },
      };
      const y = {
        field: 'value',
        type: 'quantitative' as const,
        scale: { zero: panel.zero, nice: true },
        axis: {
          title: null,
          labelExpr: `datum.value === 0 ? '0' : format(datum.value, '${isSmall ? '~e' : '~g'}')`,
        },
      };
      const onlyBest = { transform: [{ filter: 'datum.best' }] };
      return {
        width: inner,
        height: panel.height,
        ...(panel.title !== undefined && { title: panel.title }),
        data: { values: rows },
        encoding: { x, description: { field: 'tip' } },
        layer: [
          { ...onlyBest, mark: { type: 'rule' as const, color: COLOURS.muted, strokeDash: [4, 3] } },
          { mark: { type: 'line' as const, color: panel.colour, strokeWidth: 1.5 }, encoding: { y } },
          { mark: { type: 'point' as const, filled: true, color: panel.colour, size, opacity: 1 }, encoding: { y } },
          {
            ...onlyBest,
            mark: { type: 'point' as const, filled: false, color: panel.colour, size: 150, strokeWidth: 2, opacity: 1 },
            encoding: { y },
          },
          ...(label === undefined
            ? []
            : [
                {
                  ...onlyBest,
                  mark: {
                    ...{ type: 'text' as const, fontSize: 11, color: COLOURS.ink, text: label, dx: isLate ? -8 : 8 },
                    ...{ align: isLate ? ('right' as const) : ('left' as const), y: panel.height - 10 },
                  },
                },
              ]),
        ],
      };
    }),
  };
}
