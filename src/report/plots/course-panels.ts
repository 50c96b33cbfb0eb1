/** What plots over the course of a training are made of: panels above each other that share the axis of epochs or updates. */
import type { TopLevelSpec } from 'vega-lite';
import { formatPosition } from '../training.js';
import { COLOURS, LEFT, logTicks, plotWidth, thinnedTicks } from './theme.js';

/** A point of a course: where it stands on the axis, and whether its weights were written. */
export interface Placed {
  readonly position: number;
  readonly best: boolean;
}

export interface Panel<P extends Placed> {
  /** None where the panel stands alone. */
  readonly title?: string;
  readonly height: number;
  readonly colour: string;
  /** Undefined where it was not measured. */
  readonly value: (point: P) => number | undefined;
  readonly tip: (point: P) => string;
  /** Whether the axis begins at zero; `log` for a logarithmic one where values are positive and far apart. */
  readonly zero: boolean | 'log';
  /** Text beside the line of the best point. */
  readonly label?: (point: P) => string;
}

/** Panels above each other that share the axis of the course; `course` must not be empty. */
export function panels<P extends Placed>(
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
      const rows = course.flatMap((point) => {
        const value = panel.value(point);
        const tip = `${unit} ${formatPosition(point.position)}: ${panel.tip(point)}`;
        return value === undefined ? [] : [{ epoch: point.position, value, best: point.best, tip }];
      });
      const span = panel.zero === 'log' ? wideSpan(rows.map(({ value }) => value)) : undefined;
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
        scale:
          span === undefined
            ? { zero: panel.zero === true, nice: true }
            : { type: 'log' as const, domain: span, nice: false },
        axis: {
          title: null,
          ...(span !== undefined && { values: logTicks(span[0], span[1]) }),
          labelExpr: `datum.value === 0 ? '0' : format(datum.value, '${isSmall ? '~e' : '~g'}')`,
        },
      };
      const onlyBest = { transform: [{ filter: 'datum.best' }] };
      return {
        width: inner,
        height: panel.height,
        ...(panel.title !== undefined && { title: { text: panel.title, frame: 'group' as const, dx: 8 - LEFT } }),
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

/** Values further apart than this factor are on a logarithmic axis, if they may be. */
const WIDE = 20;

/** The ends of a logarithmic axis; undefined where values are not positive or near each other. */
function wideSpan(values: readonly number[]): [number, number] | undefined {
  const low = values.reduce((least, value) => Math.min(least, value), Infinity);
  const high = values.reduce((most, value) => Math.max(most, value), 0);
  return low > 0 && high >= WIDE * low ? [low / 1.15, high * 1.15] : undefined;
}
