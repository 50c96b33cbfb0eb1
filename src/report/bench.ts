/** A comparison of methods as rows of text, for every medium. */
import { formatBytes, formatCount, formatMetric, formatSeconds, metricLabel, significant } from './format.js';
import type { BenchReport, BenchRow, Statistic } from './report.js';

/** Column heads and cells; the first `names` columns are text, the others figures. */
export interface BenchTable {
  readonly head: readonly string[];
  readonly rows: readonly string[][];
  readonly names: number;
}

/** Columns of a wide table, for pages; a narrow one is for terminals. */
export type BenchWidth = 'wide' | 'narrow';

/** Columns that no row has anything in are left out. */
export function benchTable({ rows }: Pick<BenchReport, 'rows'>, width: BenchWidth): BenchTable {
  const swept = [...new Set(rows.flatMap(({ options }) => Object.keys(options)))];
  const metrics = [...new Set(rows.flatMap(({ metric }) => (metric ? [metric.name] : [])))];
  const label = metrics.length === 1 ? metricLabel(metrics[0]!) : 'metric';
  const batches = [...new Set(rows.flatMap(({ latencies = [] }) => latencies.map(({ batch }) => batch)))];
  const isWide = width === 'wide';
  const columns: { head: string; cell: (row: BenchRow) => string; wide?: boolean }[] = [
    { head: 'model', cell: ({ model }) => model },
    ...swept.map((name) => ({ head: name, cell: ({ options }: BenchRow) => options[name] ?? '' })),
    { head: 'method', cell: ({ method }) => method },
    { head: `${label} before`, cell: ({ metric }) => (metric?.before ? figure(metric.before, metric.name) : '') },
    { head: `${label} after`, cell: ({ metric }) => (metric ? figure(metric.after, metric.name) : '') },
    {
      head: `${label} on VAL`,
      cell: ({ val, metric }) => (val && metric ? figure(val.after, metric.name) : ''),
      wide: true,
    },
    { head: 'same class', cell: ({ agreement }) => (agreement ? figure(agreement, 'agreement') : '') },
    { head: 'parameters', cell: ({ params }) => (params ? formatCount(params.after.mean) : ''), wide: true },
    { head: 'bytes', cell: ({ bytes }) => formatBytes(bytes.after.mean) },
    {
      head: 'smaller',
      cell: ({ bytes: { before, after } }) => (before ? `${significant(before.mean / after.mean, 3)}x` : ''),
    },
    { head: 'MACs left', cell: ({ macs }) => (macs ? figure(macs, 'share') : '') },
    ...batches
      .toSorted((a, b) => a - b)
      .map((batch) => ({
        head: `ms, batch ${String(batch)}`,
        cell: ({ latencies = [] }: BenchRow): string => {
          const found = latencies.find((one) => one.batch === batch);
          return found ? significant(found.after.mean, 3) : '';
        },
        wide: true,
      })),
    { head: 'time left', cell: ({ latency }) => (latency ? figure(latency, 'share') : '') },
    { head: 'updates', cell: ({ updates }) => (updates ? updates.mean.toFixed(0) : '') },
    { head: 'seconds', cell: ({ seconds }) => seconds.mean.toFixed(0) },
    { head: 'seeds', cell: ({ seeds }) => String(seeds) },
  ];
  const used = columns.filter(
    ({ cell, wide = false }) => (isWide || !wide) && (rows.length === 0 || rows.some((row) => cell(row) !== '')),
  );
  return {
    head: used.map(({ head }) => head),
    rows: rows.map((row) => used.map(({ cell }) => cell(row))),
    names: used.findIndex(({ head }) => head === 'method') + 1,
  };
}

/** Stages that are told, the longest ones. */
const STAGES_SHOWN = 5;

/** Where the time of each row went, the longest stages first; undefined where nobody knows. */
export function benchTimes({ rows }: Pick<BenchReport, 'rows'>): Pick<BenchTable, 'head' | 'rows'> | undefined {
  const known = rows.filter(({ stages }) => stages);
  if (known.length === 0) return undefined;
  return {
    head: ['model', 'method', 'stages', 'seconds'],
    rows: known.map(({ model, method, options, stages = [], seconds }) => [
      model,
      [method, ...Object.entries(options).map(([name, value]) => `${name} ${value}`)].join(', '),
      stages
        .toSorted((a, b) => b.seconds - a.seconds)
        .slice(0, STAGES_SHOWN)
        .map((stage) => `${stage.name} ${formatSeconds(stage.seconds)}`)
        .join(', '),
      seconds.mean.toFixed(0),
    ]),
  };
}

export const TIMES_TITLE = 'Where the time went';
export const TIMES_CAPTION = `The ${String(STAGES_SHOWN)} longest stages of a run, means over the seeds.`;

export function benchTitle({ of, rows }: Pick<BenchReport, 'of' | 'rows'>): string {
  const methods = new Set(rows.map(({ method }) => method)).size;
  const models = new Set(rows.map(({ model }) => model)).size;
  const what = `${String(methods)} ${methods === 1 ? 'method' : 'methods'}`;
  return of.length === 1
    ? `${what} of ${of[0]!}`
    : `${what} on ${String(models)} ${models === 1 ? 'model' : 'models'}: ${of.join(', ')}`;
}

export const BENCH_CAPTION =
  'Figures that do not say otherwise are of TEST, and of the written files, means over the seeds; behind ± the largest less the smallest.';

/** Mean, and the largest less the smallest where they differ. */
function figure({ mean, least, most }: Statistic, metric: string): string {
  const isShare = metric === 'share';
  const text = isShare ? `${(100 * mean).toFixed(1)} %` : formatMetric({ name: metric, value: mean });
  if (most === least) return text;
  const width = metric === 'sqnrDb' || metric === 'loss' ? most - least : 100 * (most - least);
  return `${text} ±${width.toFixed(isShare ? 1 : 2)}`;
}
