/** Courses of several trials over each other: a line per trial, a colour per method. */
import type { TopLevelSpec } from 'vega-lite';
import { formatMetric, isFraction, metricHead, printable } from '../format.js';
import { COLOURS, legendLayout, plotWidth, unitSuffix } from './theme.js';

export interface Course {
  readonly series: string;
  /** What the trial is, for its tooltip. */
  readonly what: string;
  readonly points: readonly { readonly at: number; readonly score: number }[];
}

/** Shares further below the best one than this, in points, are drawn at the lower edge. */
const SPAN = 25;

/** Score against the share of the cost that is left (`pruning`, from right to left) or against epochs (`training`). */
export function coursesPlot(
  courses: readonly Course[],
  kind: 'pruning' | 'training',
  metric: string,
  width: number,
): TopLevelSpec {
  const inner = plotWidth(width);
  const factor = isFraction(metric) ? 100 : 1;
  const scores = courses.flatMap(({ points }) => points.map(({ score }) => score * factor));
  const high = scores.reduce((a, b) => Math.max(a, b));
  const least = scores.reduce((a, b) => Math.min(a, b));
  const low = factor === 100 ? Math.max(least, high - SPAN) : least;
  const isPruning = kind === 'pruning';
  const names = [...new Set(courses.map(({ series }) => printable(series)))];
  const rows = courses.flatMap(({ series, what, points }, trial) =>
    points.map(({ at, score }) => {
      const where = isPruning ? `${(100 * at).toFixed(1)} % left` : `epoch ${Number(at.toFixed(1))}`;
      return {
        ...{ trial, series: printable(series), at: isPruning ? 100 * at : at },
        value: Math.max(score * factor, low),
        below: score * factor < low,
        tip: printable(`${what}, ${where}: ${formatMetric({ name: metric, value: score })}`),
      };
    }),
  );
  const margin = Math.max(0.06 * (high - low), 1e-3 * Math.max(1, Math.abs(high)));
  const shape = (below: boolean) => ({
    transform: [{ filter: below ? 'datum.below' : '!datum.below' }],
    mark: {
      ...{ type: 'point' as const, filled: true, size: below ? 70 : 26, opacity: 1 },
      ...(below && { shape: 'triangle-down' as const }),
    },
    encoding: { description: { field: 'tip' } },
  });
  return {
    width: inner,
    height: 260,
    title: `${metricHead(metric)} on VAL${unitSuffix(metric)}`,
    data: { values: rows },
    encoding: {
      x: {
        ...{ field: 'at', type: 'quantitative' },
        scale: { nice: false, zero: false, padding: 8, reverse: isPruning },
        axis: isPruning
          ? { title: 'cost left', labelExpr: "format(datum.value, '~g') + ' %'", tickCount: Math.floor(inner / 60) }
          : { title: 'epoch', tickCount: Math.floor(inner / 60), tickMinStep: 1, format: 'd' },
      },
      y: {
        ...{ field: 'value', type: 'quantitative' },
        scale: { domain: [low - margin, high + margin], nice: false, zero: false },
        axis: { title: null, tickCount: 6 },
      },
      color: {
        ...{ field: 'series', type: 'nominal' },
        scale: { domain: names, range: names.map((_, i) => COLOURS.series[i % COLOURS.series.length]!) },
        legend: legendLayout(names, inner),
      },
    },
    layer: [
      {
        mark: { type: 'line', strokeWidth: 1.3, opacity: 0.75 },
        encoding: { detail: { field: 'trial' }, order: { field: 'at' }, description: { field: 'series' } },
      },
      shape(false),
      shape(true),
    ],
  };
}
