/** The plots of a comparison: trade-offs with their Pareto front, methods on a radar, courses of single trials over each other. */
import { metricHead, metricLabel } from './format.js';
import { coursesPlot } from './plots/courses.js';
import type { Plot } from './plots/plot.js';
import { radarPlot } from './plots/radar.js';
import type { RadarAxis, RadarEntry } from './plots/radar.js';
import { BYTES, TIME_LEFT, tradeoffPlot } from './plots/tradeoff.js';
import type { CostAxis, TradeoffPoint } from './plots/tradeoff.js';
import type { BenchCurve, BenchReport, BenchRow, Statistic } from './report.js';

export function benchPlots(report: BenchReport): Plot[] {
  return [
    ...subjectsOf(report).flatMap((one) => [
      tradeoffOf(one, BYTES, ({ bytes }) => ({ before: bytes.before?.mean, after: bytes.after.mean })),
      tradeoffOf(one, TIME_LEFT, ({ latency }) => ({ before: latency && 1, after: latency?.mean })),
    ]),
    radarOf(report),
    ...(['pruning', 'training'] as const).map((kind) => coursesOf(report, kind)),
  ].filter((plot) => plot !== undefined);
}

/** Rows that share a front. */
interface Subject extends Pick<BenchReport, 'rows'> {
  /** Where it is one of several. */
  readonly name?: string;
}

/** Students of one teacher compete with each other; networks that several commands were applied to have fronts of their own. */
function subjectsOf({ of, rows }: BenchReport): Subject[] {
  const names = [...new Set(rows.map(({ model }) => model))];
  if (of.length === 1 || names.length === 1) return [{ rows }];
  return names.map((name) => ({ name, rows: rows.filter(({ model }) => model === name) }));
}

interface Cost {
  readonly before?: number | undefined;
  readonly after?: number | undefined;
}

/** A point per method and set of options; the originals are grey. One point alone says nothing. */
function tradeoffOf(
  { name: subject, rows }: Subject,
  axis: CostAxis,
  costOf: (row: BenchRow) => Cost,
): Plot | undefined {
  const name = rows.find(({ metric }) => metric)?.metric?.name;
  if (name === undefined) return undefined;
  const measured = rows.filter(({ metric }) => metric?.name === name);
  const pointOf = (series: string, cost: number, value: number, what: string): TradeoffPoint => ({
    ...{ series, cost, name: what, metric: { name, value, split: 'test', samples: 0 } },
  });
  const originals = new Map(
    measured.flatMap((row): [string, TradeoffPoint][] => {
      const { before: cost } = costOf(row);
      const value = row.metric?.before?.mean;
      if (cost === undefined || value === undefined) return [];
      return [[row.model, { ...pointOf('original', cost, value, row.model), reference: true }]];
    }),
  );
  const files = measured.flatMap((row): TradeoffPoint[] => {
    const { after } = costOf(row);
    return after === undefined ? [] : [pointOf(row.method, after, row.metric!.after.mean, whatOf(row))];
  });
  const points = [...originals.values(), ...files].filter(({ cost }) => cost > 0);
  if (files.length === 0 || points.length < 2) return undefined;
  const isBytes = axis === BYTES;
  return {
    id: [isBytes ? 'tradeoff' : 'tradeoff-time', subject ?? []].flat().join('-'),
    title: `Accuracy against ${isBytes ? 'bytes' : 'time'}${subject === undefined ? '' : `, ${subject}`}`,
    caption: `${metricLabel(name)} of the written files on TEST against ${isBytes ? 'their bytes' : "the time of the largest batch, relative to the original's"}, means over the seeds. Up and to the left is better; no file is better and cheaper than those on the dashed line.`,
    span: 'half',
    spec: (width) => tradeoffPlot(points, width, { axis, front: true }),
  };
}

function whatOf({ model, options }: Pick<BenchRow, 'model' | 'options'>): string {
  return [model, ...Object.entries(options).map(([name, set]) => `${name} ${set}`)].join(', ');
}

/** What is better the larger it is, as shares. */
const AXES: readonly { readonly title: string; readonly of: (row: BenchRow) => number | undefined }[] = [
  { title: 'score kept', of: ({ metric }) => metric && share(metric.after, metric.before) },
  { title: 'same class', of: ({ agreement }) => agreement?.mean },
  { title: 'work saved', of: ({ macs }) => macs && 1 - macs.mean },
  { title: 'time saved', of: ({ latency }) => latency && 1 - latency.mean },
  { title: 'bytes saved', of: ({ bytes }) => lessOne(share(bytes.after, bytes.before)) },
];

function share(after: Statistic, before: Statistic | undefined): number | undefined {
  return before === undefined || before.mean === 0 ? undefined : after.mean / before.mean;
}

function lessOne(left: number | undefined): number | undefined {
  return left === undefined ? undefined : 1 - left;
}

/** Fewer axes make no area. */
const FEWEST_AXES = 3;

/**
 * Methods on the axes that all of them have figures for. A method stands for the mean over those models and options that all methods
 * have: what only some were tried with would put the others at a disadvantage.
 */
function radarOf({ rows: all }: BenchReport): Plot | undefined {
  const methods = [...new Set(all.map(({ method }) => method))];
  const rows = all.filter((row) =>
    methods.every((method) => all.some((other) => other.method === method && whatOf(other) === whatOf(row))),
  );
  const known = AXES.flatMap((axis) => {
    const values = methods.map((method) => mean(rows.filter((row) => row.method === method).map(axis.of)));
    const all = values.filter((value) => value !== undefined);
    return all.length === methods.length && methods.length > 0 ? [{ title: axis.title, values: all }] : [];
  });
  if (methods.length < 2 || known.length < FEWEST_AXES) return undefined;
  const axes = known.map(({ title, values }): RadarAxis => ({ title, ...rangeOf(values) }));
  const entries = methods.map((series, i): RadarEntry => ({ series, values: known.map(({ values }) => values[i]!) }));
  return {
    id: 'radar',
    title: 'Methods on all counts',
    caption:
      'Means over the seeds, and over the models and options that all of them have. Further out is better; every axis has the range that is written beside it.',
    span: 'half',
    spec: (width) => radarPlot(axes, entries, width),
  };
}

function mean(values: readonly (number | undefined)[]): number | undefined {
  const known = values.filter((value) => value !== undefined);
  return known.length === values.length && known.length > 0
    ? known.reduce((a, b) => a + b, 0) / known.length
    : undefined;
}

/** Steps of 5 points around the values, with room at the lower end so that the least is no point in the middle. */
function rangeOf(values: readonly number[]): { low: number; high: number } {
  const [least, most] = [Math.min(...values), Math.max(...values)];
  const high = Math.ceil(20 * most - 1e-9) / 20;
  const low = Math.floor(20 * (least - 0.5 * (most - least)) - 1e-9) / 20;
  return { low: Math.min(low, high - 0.05), high };
}

const COURSES = {
  pruning: {
    title: 'Courses of the pruning',
    caption: 'after each step, of every trial, against the share of the cost that is left',
  },
  training: { title: 'Courses of the learning', caption: 'after each epoch, of every trial' },
} as const;

function coursesOf({ curves = [] }: BenchReport, kind: BenchCurve['kind']): Plot | undefined {
  const all = curves.filter((curve) => curve.kind === kind);
  const [first] = all;
  if (first === undefined) return undefined;
  const drawn = all.filter(({ metric }) => metric === first.metric);
  const { title, caption } = COURSES[kind];
  const courses = drawn.map(({ method, points, seed, ...rest }) => ({
    ...{ series: method, points },
    what: [method, whatOf(rest), ...(seed === undefined ? [] : [`seed ${String(seed)}`])].join(', '),
  }));
  return {
    ...{ id: `courses-${kind}`, title, span: 'full' },
    caption: `${metricHead(first.metric)} on VAL ${caption}.`,
    spec: (width) => coursesPlot(courses, kind, first.metric, width),
  };
}
