/** Plots of a pruning: quality on VAL against what is left of the cost, and widths and work of every layer before and after. */
import type { TopLevelSpec } from 'vega-lite';
import { formatCount, formatMetric, formatShare, metricHead, significant } from '../format.js';
import { distanceTitle } from '../quality.js';
import { pruningScore, STAGES } from '../pruning.js';
import type { StageKey } from '../pruning.js';
import type { PrunedLayer, PruneReport, Quality } from '../report.js';
import { beforeAfterPanel, panels } from './layer-panels.js';
import { COLOURS, legendLayout, logTicks, plotWidth, unitSuffix } from './theme.js';

/** Output channels of every layer, before and after. */
export function widthsPlot(layers: readonly PrunedLayer[], width: number): TopLevelSpec {
  const look = { title: 'output channels', height: 170, si: '' };
  return panels(layers, [beforeAfterPanel(layers, look, ({ channels }) => channels, formatCount)], width);
}

/** Multiply-accumulates of every layer, before and after. */
export function layerMacsPlot(layers: readonly PrunedLayer[], width: number): TopLevelSpec {
  const look = { title: 'MACs per sample', height: 170, si: '' };
  return panels(layers, [beforeAfterPanel(layers, look, ({ macs }) => macs ?? {}, formatCount)], width);
}

const STAGE_COLOURS: Readonly<Record<StageKey, string>> = {
  cut: COLOURS.series[5],
  refitted: COLOURS.series[1],
  normalized: COLOURS.series[3],
  aligned: COLOURS.series[2],
  recovered: COLOURS.series[0],
};

/** Shares further below the best one than this, in points, are drawn at the lower edge. */
const SPAN = 25;
/** So many of them are labelled with their values. */
const LABELLED = 6;

interface Dot {
  readonly stage: string;
  /** Percent of the cost that is left. */
  readonly left: number;
  readonly quality: Quality;
  /** Words before the value in the tooltip. */
  readonly what: string;
  readonly accepted: boolean;
}

/** Which cost the steps are placed by: MACs where all were counted, else parameters. */
export function placedBy({ before, steps }: PruneReport): 'macs' | 'params' | undefined {
  return (['macs', 'params'] as const).find(
    (cost) => (before[cost] ?? 0) > 0 && steps.every((step) => step[cost] !== undefined),
  );
}

/**
 * Quality on VAL against the share of the original's cost that is left, a line for each state inside a step.
 * Shares are on a linear axis, cut off far below the best; divergences on a logarithmic one.
 */
export function dynamicsPlot(report: PruneReport, cost: 'macs' | 'params', width: number): TopLevelSpec {
  const inner = plotWidth(width);
  const dots = dotsOf(report, cost);
  const stages = STAGES.filter(({ label }) => dots.some(({ stage }) => stage === label));
  const labels = stages.map(({ label }) => label);
  const { rows, y, title, original } = placedRows(report, dots, inner);
  const least = dots.reduce((low, { left }) => Math.min(low, left), 99);
  const x = {
    field: 'left',
    type: 'quantitative' as const,
    scale: { domain: [least, 100], reverse: true, nice: false, padding: 10 },
    axis: {
      title: cost === 'macs' ? 'MACs left' : 'parameters left',
      labelExpr: "format(datum.value, '~g') + ' %'",
      tickCount: Math.min(8, Math.floor(inner / 60)),
    },
  };
  const color = {
    field: 'stage',
    type: 'nominal' as const,
    scale: { domain: labels, range: stages.map(({ key }) => STAGE_COLOURS[key]) },
    legend: legendLayout(labels, inner),
  };
  const text = { type: 'text' as const, fontSize: 10, color: COLOURS.muted };
  const muted = { color: { value: COLOURS.muted } };
  const points = (filter: string, look: { filled: boolean; shape?: string }) => ({
    transform: [{ filter }],
    mark: { type: 'point' as const, ...look, size: look.shape === undefined ? 45 : 70, strokeWidth: 1.5, opacity: 1 },
  });
  return {
    width: inner,
    height: 280,
    title,
    data: { values: rows },
    encoding: { x, y, color, description: { field: 'tip' } },
    layer: [
      ...(original === undefined
        ? []
        : [
            {
              data: { values: [{ value: original.value, text: original.text }] },
              mark: { type: 'rule' as const, strokeDash: [4, 3] },
              encoding: { ...muted, x: { value: 0 }, x2: { value: inner }, description: { field: 'text' } },
            },
            {
              data: { values: [{ value: original.value, text: original.text }] },
              mark: { ...text, align: 'right' as const, dy: -7 },
              encoding: { ...muted, x: { value: inner }, text: { field: 'text' }, description: { field: 'text' } },
            },
          ]),
      {
        transform: [{ filter: 'datum.accepted' }],
        mark: { type: 'line', strokeWidth: 1.5, opacity: 0.8 },
        encoding: { order: { field: 'order', type: 'quantitative' }, description: { field: 'stage' } },
      },
      points('datum.accepted && !datum.below && !datum.start', { filled: true }),
      points('!datum.accepted && !datum.below', { filled: false }),
      points('datum.accepted && datum.below', { filled: true, shape: 'triangle-down' }),
      points('!datum.accepted && datum.below', { filled: false, shape: 'triangle-down' }),
      {
        transform: [{ filter: "datum.label !== ''" }],
        mark: { ...text, dy: -11 },
        encoding: { ...muted, text: { field: 'label' } },
      },
    ],
  };
}

/** What the marks of the plot mean, as far as it has them. */
export function dynamicsCaption(report: PruneReport, cost: 'macs' | 'params'): string {
  const { rows } = placedRows(report, dotsOf(report, cost), Infinity);
  return [
    'Each state of the model inside a step, on VAL.',
    ...(rows.some(({ below }) => below) ? ['Triangles lie below the axis.'] : []),
    ...(rows.some(({ accepted }) => !accepted) ? ['Hollow points were taken back.'] : []),
  ].join(' ');
}

/** Every measured state, in order; learning after the last cut is the last of `learned`. */
function dotsOf(report: PruneReport, cost: 'macs' | 'params'): Dot[] {
  const { before, steps, recovery } = report;
  const whole = before[cost] ?? 1;
  const dots = steps.flatMap((step) =>
    STAGES.flatMap(({ key, label }): Dot[] => {
      const quality = step[key];
      const left = (100 * (step[cost] ?? 0)) / whole;
      const what = `step ${step.step}, ${label}${step.accepted ? '' : ' (taken back)'}`;
      return quality === undefined ? [] : [{ stage: label, left, quality, what, accepted: step.accepted }];
    }),
  );
  const last = steps.findLast(({ accepted }) => accepted);
  if (recovery === undefined || last === undefined) return dots;
  const left = (100 * (last[cost] ?? 0)) / whole;
  return [
    ...dots,
    { stage: 'learned', left, quality: recovery.after, what: 'after the last cut, learned', accepted: true },
  ];
}

interface Row {
  readonly stage: string;
  readonly left: number;
  readonly value: number;
  readonly order: number;
  readonly accepted: boolean;
  /** The original, where every line begins. */
  readonly start: boolean;
  /** Below the axis and drawn at its lower edge. */
  readonly below: boolean;
  readonly label: string;
  readonly tip: string;
}

interface Placement {
  readonly rows: Row[];
  readonly title: string;
  readonly y: object;
  /** The line of the original; it has no place on a logarithmic axis. */
  readonly original?: { readonly value: number; readonly text: string };
}

function placedRows(report: PruneReport, dots: readonly Dot[], inner: number): Placement {
  const name = pruningScore(report);
  const share = (left: number): string => `${formatShare(left / 100)} left`;
  if (name === undefined) {
    const high = dots.reduce((most, { quality }) => Math.max(most, quality.divergence), 0) || 1;
    const floor = high * 1e-5;
    const values = dots.map(({ quality }) => Math.max(quality.divergence, floor));
    const domain = [values.reduce((least, value) => Math.min(least, value), high) / 1.3, high * 1.3];
    const rows = dots.map(({ quality, what, ...dot }, order) => ({
      ...{ ...dot, order, value: values[order], start: false, below: false, label: '' },
      tip: `${what}, ${share(dot.left)}: ${significant(quality.divergence, 3)}`,
    }));
    const scale = { type: 'log', domain, nice: false };
    const axis = { title: null, values: logTicks(domain[0], domain[1]), labelExpr: "format(datum.value, '~g')" };
    return { rows, title: distanceTitle(report.measure), y: { field: 'value', type: 'quantitative', scale, axis } };
  }
  const known = dots.flatMap((dot) => {
    const value = dot.quality[name];
    return value === undefined ? [] : [{ ...dot, value: 100 * value }];
  });
  const start = report.original[name];
  const all = [...known.map(({ value }) => value), ...(start === undefined ? [] : [100 * start])];
  const high = all.reduce((most, value) => Math.max(most, value), 0);
  const low = Math.max(
    high - SPAN,
    all.reduce((least, value) => Math.min(least, value), 100),
  );
  const belowCount = known.filter(({ value }) => value < low).length;
  const written = (value: number): string => formatMetric({ name, value: value / 100 });
  const rows = known.map(({ stage, left, value, what, accepted }, i): Row => {
    const below = value < low;
    return {
      ...{ stage, left, accepted, below, value: Math.max(value, low), order: i + 1, start: false },
      label: below && belowCount <= Math.min(LABELLED, inner / 90) ? written(value) : '',
      tip: `${what}, ${share(left)}: ${written(value)}`,
    };
  });
  const margin = Math.max(0.08 * (high - low), 0.1);
  const scale = { domain: [low - margin, high + margin], nice: false, zero: false };
  const y = { field: 'value', type: 'quantitative', scale, axis: { title: null, tickCount: 6 } };
  const title = `${metricHead(name)} on VAL${unitSuffix(name)}`;
  if (start === undefined) return { rows, title, y };
  const original = { value: 100 * start, text: `original: ${written(100 * start)}` };
  const starts = [...new Set(known.map(({ stage }) => stage))].map((stage) => ({
    ...{ stage, left: 100, value: original.value, order: 0, accepted: true, start: true, below: false, label: '' },
    tip: original.text,
  }));
  return { rows: [...starts, ...rows], title, y, original };
}
