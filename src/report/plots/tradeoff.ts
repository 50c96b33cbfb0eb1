/** Plots that compare files: accuracy against bytes, and latency per batch size. */
import type { TopLevelSpec } from 'vega-lite';
import {
  formatBytes,
  formatMetric,
  formatMs,
  isFraction,
  isLowerBetter,
  metricLabel,
  printable,
  truncateMiddle,
} from '../format.js';
import type { Latency, Metric } from '../report.js';
import { COLOURS, LEFT, legendLayout, RIGHT, logTicks, plotWidth, siLabels, unitSuffix } from './theme.js';

/** What a file costs, as the axis of a plot shows it. */
export interface CostAxis {
  readonly title: string;
  readonly scale: 'log' | 'linear';
  /** Vega expression of the labels. */
  readonly labels: string;
  readonly format: (cost: number) => string;
}

export const BYTES: CostAxis = { title: 'file size', scale: 'log', labels: siLabels('B'), format: formatBytes };
/** Share of the time of the original. */
export const TIME_LEFT: CostAxis = {
  ...{ title: 'time left', scale: 'linear', labels: "format(datum.value, '.0%')" },
  format: (share) => `${(100 * share).toFixed(0)} % of the time`,
};

/** One file in the plane of accuracy and cost. Points of a `line` series are joined in order of cost. */
export interface TradeoffPoint {
  readonly series: string;
  /** In the units of the axis, above 0. */
  readonly cost: number;
  readonly metric: Metric;
  /** Short text beside the point. */
  readonly label?: string;
  /** What the point is, for its tooltip. */
  readonly name?: string;
  readonly line?: boolean;
  /** Drawn larger and with a ring: the file this report is about. */
  readonly highlight?: boolean;
  /** The uncompressed model: grey. */
  readonly reference?: boolean;
}

/** Points further below the best one than this (in units of the axis) are drawn at the lower edge, with their value. */
const FRACTION_SPAN = 12;
const DECIBEL_SPAN = 30;

export interface TradeoffLook {
  readonly axis?: CostAxis;
  /** Join the points than which none is both better and cheaper. */
  readonly front?: boolean;
}

/** The points than which no other is as good at less cost or better at the same, cheapest first. */
export function paretoFront(points: readonly TradeoffPoint[]): TradeoffPoint[] {
  const gain = ({ metric }: TradeoffPoint): number => (isLowerBetter(metric.name) ? -metric.value : metric.value);
  const sorted = [...points].sort((a, b) => a.cost - b.cost || gain(b) - gain(a));
  return sorted.filter((point, i) => sorted.slice(0, i).every((other) => gain(other) < gain(point)));
}

/** Metric against cost. All points must share one metric. */
export function tradeoffPlot(
  points: readonly TradeoffPoint[],
  width: number,
  { axis = BYTES, front = false }: TradeoffLook = {},
  height = 260,
): TopLevelSpec {
  const inner = plotWidth(width);
  const { rows, low: lowest, high: highest } = tradeoffRows(points, axis, front ? paretoFront(points) : []);
  const metric = points[0].metric;
  const names = [...new Set(points.map((point) => point.series))];
  const references = new Set(points.filter((point) => point.reference === true).map((point) => point.series));
  const color = {
    field: 'series',
    type: 'nominal' as const,
    scale: { domain: names, range: seriesColours(names, references, COLOURS.muted) },
    legend: legendLayout(names, inner),
  };
  // Colours alone do not tell more methods apart.
  const shapes = {
    field: 'series',
    type: 'nominal' as const,
    scale: { domain: names, range: seriesShapes(names, references) },
    legend: legendLayout(names, inner),
  };
  const shape = names.length - references.size > COLOURS.series.length ? { shape: shapes } : {};
  const cheapest = points.reduce((least, { cost }) => Math.min(least, cost), Infinity);
  const dearest = points.reduce((most, { cost }) => Math.max(most, cost), 0);
  const isLog = axis.scale === 'log';
  const room = 0.06 * (dearest - cheapest || dearest);
  const [low, high] = isLog ? [cheapest / 1.2, dearest * 1.2] : [Math.max(0, cheapest - room), dearest + room];
  const margin = Math.max((highest - lowest) * 0.08, 1e-3 * Math.max(1, Math.abs(highest)));
  const y = {
    field: 'value',
    type: 'quantitative' as const,
    scale: { domain: [lowest - margin, highest + margin], nice: false, zero: false },
    axis: { title: null, tickCount: 6 },
  };
  const x = {
    field: 'cost',
    type: 'quantitative' as const,
    scale: { type: axis.scale, domain: [low, high], nice: false, ...(!isLog && { zero: false }) },
    axis: {
      ...{ title: axis.title, labelExpr: axis.labels, grid: true },
      ...(isLog ? { values: logTicks(low, high) } : { tickCount: 5 }),
    },
  };
  const label = { type: 'text' as const, fontSize: 10, color: COLOURS.muted };
  const text = { text: { field: 'label' }, color: { value: COLOURS.muted } };
  return {
    width: inner,
    height,
    title: metricLabel(metric.name) + unitSuffix(metric.name),
    data: { values: rows },
    encoding: { x, y, color, description: { field: 'tip' } },
    layer: [
      {
        transform: [{ filter: 'datum.front' }],
        mark: { type: 'line', strokeWidth: 1.5, strokeDash: [4, 3], interpolate: 'step-after', aria: false },
        encoding: { order: { field: 'cost' }, color: { value: COLOURS.muted } },
      },
      {
        transform: [{ filter: 'datum.line' }],
        mark: { type: 'line', strokeWidth: 1.5, opacity: 0.7 },
        encoding: { order: { field: 'cost' } },
      },
      {
        transform: [{ filter: '!datum.below' }],
        mark: { type: 'point', filled: true, size: 55, opacity: 1 },
        encoding: shape,
      },
      {
        transform: [{ filter: 'datum.below' }],
        mark: { type: 'point', filled: true, shape: 'triangle-down', size: 80, opacity: 1 },
      },
      {
        transform: [{ filter: 'datum.highlight' }],
        mark: { type: 'point', filled: false, size: 260, strokeWidth: 2, opacity: 1 },
      },
      { transform: [{ filter: "!datum.below && datum.label !== ''" }], mark: { ...label, dy: -12 }, encoding: text },
      {
        transform: [{ filter: "datum.below && datum.label !== ''" }],
        mark: { ...label, dx: 8, align: 'left' },
        encoding: text,
      },
    ],
  };
}

/** Rows of the plot in axis units, with values far below the best one moved to the lower edge and labelled with what they are. */
function tradeoffRows(
  points: readonly TradeoffPoint[],
  axis: CostAxis,
  front: readonly TradeoffPoint[],
): { rows: object[]; low: number; high: number } {
  const { name } = points[0].metric;
  const factor = isFraction(name) ? 100 : 1;
  const values = points.map((point) => point.metric.value * factor);
  const high = values.reduce((a, b) => Math.max(a, b));
  const least = values.reduce((a, b) => Math.min(a, b));
  const span = factor === 100 ? FRACTION_SPAN : name.endsWith('Db') ? DECIBEL_SPAN : Infinity;
  const low = Math.max(least, high - span);
  const rows = points.map((point, i) => {
    const below = values[i] < low;
    const where = [point.label, below ? formatMetric(point.metric) : undefined]
      .filter((part) => part !== undefined)
      .join(': ');
    const full = [point.series, point.name, `${axis.format(point.cost)}, ${formatMetric(point.metric)}`];
    return {
      series: point.series,
      cost: point.cost,
      front: front.includes(point),
      value: Math.max(values[i], low),
      below,
      label: printable(where),
      line: point.line === true,
      highlight: point.highlight === true,
      tip: printable(full.filter((part) => part !== undefined).join(', ')),
    };
  });
  return { rows, low, high };
}

/** One colour per series; references get `grey` and use none up. */
function seriesColours(names: readonly string[], references: ReadonlySet<string>, grey: string): string[] {
  let used = 0;
  return names.map((name) => (references.has(name) ? grey : COLOURS.series[used++ % COLOURS.series.length]));
}

const SHAPES = ['circle', 'square', 'diamond', 'triangle-up'] as const;

/** Another shape for every round through the colours; references are circles. */
function seriesShapes(names: readonly string[], references: ReadonlySet<string>): string[] {
  let used = 0;
  return names.map((name) => {
    const round = references.has(name) ? 0 : Math.floor(used++ / COLOURS.series.length);
    return SHAPES[round % SHAPES.length]!;
  });
}

/** A file and its measured latencies. */
export interface LatencyEntry {
  readonly label: string;
  readonly latencies: readonly Latency[];
  readonly reference?: boolean;
}

/** Median time per sample, a bar per file in each batch size; the text gives the whole batch, the tick its 90th percentile. */
export function latencyPlot(entries: readonly LatencyEntry[], width: number): TopLevelSpec {
  const left = LEFT + 10;
  const inner = width - left - RIGHT - 14;
  const names = entries.map((entry) => truncateMiddle(printable(entry.label), 40));
  const rows = entries.flatMap((entry, i) =>
    entry.latencies.map((one) => ({
      file: names[i],
      batch: one.batch,
      median: one.medianMs / one.batch,
      p90: one.p90Ms / one.batch,
      text: formatMs(one.medianMs),
      tip: `${names[i]}, batch ${one.batch}: median ${formatMs(one.medianMs)}, 90th percentile ${formatMs(one.p90Ms)}`,
    })),
  );
  const batches = [...new Set(rows.map((row) => row.batch))].sort((a, b) => a - b);
  const longest = rows.reduce((most, row) => Math.max(most, row.median, row.p90), 0);
  const references = new Set(names.filter((_, i) => entries[i].reference === true));
  const y = {
    field: 'batch',
    type: 'ordinal' as const,
    scale: { domain: batches, paddingInner: 0.25, paddingOuter: 0.1 },
    axis: { title: null, labelExpr: "'batch ' + datum.value", minExtent: left, maxExtent: left },
  };
  const yOffset = { field: 'file', type: 'nominal' as const, scale: { domain: names }, sort: null };
  const x = (field: string): object => ({
    field,
    type: 'quantitative',
    scale: { domain: [0, longest * 1.3] },
    axis: { title: 'ms per sample', grid: true, tickCount: 5 },
  });
  const description = { field: 'tip' };
  return {
    width: inner,
    height: batches.length * (entries.length * (rows.length <= 4 ? 38 : 28) + 16),
    data: { values: rows },
    encoding: { y, yOffset },
    layer: [
      {
        mark: { type: 'bar' },
        encoding: {
          x: x('median'),
          color: {
            field: 'file',
            type: 'nominal',
            scale: { domain: names, range: seriesColours(names, references, COLOURS.pale) },
            legend: legendLayout(names, inner),
          },
          description,
        },
      },
      { mark: { type: 'tick', thickness: 1.5, color: COLOURS.muted }, encoding: { x: x('p90') } },
      {
        mark: { type: 'text', align: 'left', dx: 6, fontSize: 11, color: COLOURS.ink },
        encoding: { x: x('p90'), text: { field: 'text' } },
      },
    ],
  };
}
