/** Plots over the epochs of a training: loss and score on VAL above each other, and the learning rate. */
import type { TopLevelSpec } from 'vega-lite';
import { formatMetric, isFraction, metricLabel, shortNumber, significant } from '../format.js';
import { formatPosition } from '../training.js';
import type { CoursePoint } from '../training.js';
import { COLOURS, plotWidth, thinnedTicks, unitSuffix } from './theme.js';

interface Panel {
  /** None where the panel stands alone. */
  readonly title?: string;
  readonly height: number;
  readonly colour: string;
  readonly value: (point: CoursePoint) => number;
  readonly tip: (point: CoursePoint) => string;
  /** Whether the axis begins at zero. */
  readonly zero: boolean;
  /** Text beside the line of the best epoch. */
  readonly label?: (point: CoursePoint) => string;
}

/** Training loss above the score on VAL, the best epoch marked in both. */
export function coursePlot(course: readonly CoursePoint[], metric: string, width: number): TopLevelSpec {
  const factor = isFraction(metric) ? 100 : 1;
  const score = (point: CoursePoint): string => formatMetric({ name: metric, value: point.score });
  return panels(
    course,
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
  const panel: Panel = {
    ...{ height: 110, colour: COLOURS.series[1], zero: true },
    value: (point) => point.learningRate,
    tip: (point) => `learning rate ${shortNumber(point.learningRate, 3)}`,
  };
  return panels(course, [panel], width);
}

/** `course` must not be empty. */
function panels(course: readonly CoursePoint[], all: readonly Panel[], width: number): TopLevelSpec {
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
        tip: `epoch ${formatPosition(point.position)}: ${panel.tip(point)}`,
      }));
      const isSmall = rows.every(({ value }) => Math.abs(value) < 0.01);
      const label = best === undefined ? undefined : panel.label?.(best);
      const labelled = i === all.length - 1;
      const x = {
        field: 'epoch',
        type: 'quantitative' as const,
        scale: { domain: [first, last], nice: false, padding: 8 },
        axis: { values: ticks, format: 'd', labels: labelled, ticks: false, title: labelled ? 'epoch' : null },
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
