/** What the reports say in words and rows, independent of the medium: terminal, Markdown and HTML print the same rows. */
import {
  formatBits,
  formatWidth,
  formatBytes,
  formatCount,
  formatMetric,
  formatMetricChange,
  formatMs,
  formatRatio,
  isLowerBetter,
  metricLabel,
} from './format.js';
import type { Latency, Measurement, Metric, QuantizeReport, QuantizedLayer, SensitivityCheck } from './report.js';

/** Whether a change is what the user wants to see. */
export type Verdict = 'better' | 'worse' | 'same';

/** One line of a before/after comparison; cells of values that were not measured are absent. */
export interface ComparisonRow {
  readonly label: string;
  readonly before?: string;
  readonly after?: string;
  readonly change?: string;
  readonly verdict?: Verdict;
}

/** What a comparison of two models and its columns are called. */
export interface Sides {
  readonly title: string;
  readonly before: string;
  readonly after: string;
  /** What agreement is agreement with. */
  readonly reference?: 'teacher';
}

export const BEFORE_AND_AFTER: Sides = { title: 'Before and after', before: 'before', after: 'after' };
export const TEACHER_AND_STUDENT: Sides = {
  ...{ title: 'Teacher and student', before: 'teacher', after: 'student', reference: 'teacher' },
};

/** All latencies of a measurement, smallest batch first. */
export function latenciesOf(measurement: Pick<Measurement, 'latency' | 'latencies'>): Latency[] {
  const { latency, latencies } = measurement;
  const all = latencies ?? [];
  const list = latency === undefined || all.some((one) => one.batch === latency.batch) ? all : [latency, ...all];
  return [...list].sort((a, b) => a.batch - b.batch);
}

/** All metrics of a measurement, the main one first. */
export function metricsOf(measurement: Pick<Measurement, 'metric' | 'metrics'>): Metric[] {
  const { metric, metrics } = measurement;
  const others = (metrics ?? []).filter((one) => one.name !== metric?.name);
  return metric === undefined ? others : [metric, ...others];
}

/**
 * Rows for file size, gzip size, parameters, MACs, metrics and latency per batch size; a row appears when either side was measured.
 * @param before empty for a file that is compared with nothing
 */
export function comparisonRows(
  before: Partial<Measurement>,
  after: Measurement,
  { reference }: Pick<Sides, 'reference'> = {},
): ComparisonRow[] {
  const rows: (ComparisonRow | undefined)[] = [
    amountRow('file size', before.bytes, after.bytes, formatBytes),
    amountRow('gzip size', before.gzipBytes, after.gzipBytes, formatBytes),
    amountRow('parameters', before.params, after.params, formatCount, 'fewer', 'more'),
    amountRow('MACs', before.macs, after.macs, formatCount, 'fewer', 'more'),
    ...metricRows(metricsOf(before), metricsOf(after), reference),
    ...metricRows(valOf(before), valOf(after), reference).map((row) => ({ ...row, label: `${row.label} on VAL` })),
    ...latencyRows(latenciesOf(before), latenciesOf(after)),
  ];
  return rows.filter((row) => row !== undefined);
}

function valOf({ val }: Partial<Measurement>): Metric[] {
  return val === undefined ? [] : [val];
}

function amountRow(
  label: string,
  before: number | undefined,
  after: number | undefined,
  format: (value: number) => string,
  less = 'smaller',
  more = 'larger',
): ComparisonRow | undefined {
  if (before === undefined && after === undefined) return undefined;
  const both = before !== undefined && after !== undefined;
  return {
    label,
    before: before === undefined ? undefined : format(before),
    after: after === undefined ? undefined : format(after),
    change: both ? formatRatio(before, after, less, more) : undefined,
    verdict: both ? verdictOf(before - after, 0.005 * before) : undefined,
  };
}

function metricRows(
  before: readonly Metric[],
  after: readonly Metric[],
  reference: Sides['reference'],
): ComparisonRow[] {
  return pairsBy(before, after, (metric) => metric.name).map(({ key, was, is }) => ({
    label: metricLabel(key, reference),
    before: was && formatMetric(was),
    after: is && formatMetric(is),
    change: was && is && formatMetricChange(was, is),
    verdict: was && is && verdictOf(isLowerBetter(key) ? was.value - is.value : is.value - was.value, 0),
  }));
}

function latencyRows(before: readonly Latency[], after: readonly Latency[]): ComparisonRow[] {
  return pairsBy(before, after, (latency) => String(latency.batch)).map(({ key, was, is }) => ({
    label: `latency, batch ${key}`,
    before: was && formatMs(was.medianMs),
    after: is && formatMs(is.medianMs),
    change: was && is && formatRatio(was.medianMs, is.medianMs, 'faster', 'slower'),
    verdict: was && is && verdictOf(was.medianMs - is.medianMs, 0.02 * was.medianMs),
  }));
}

function verdictOf(gain: number, tolerance: number): Verdict {
  if (Math.abs(gain) <= tolerance) return 'same';
  return gain > 0 ? 'better' : 'worse';
}

/** Entries of two lists with equal keys side by side, in the order of first appearance. */
function pairsBy<T>(
  left: readonly T[],
  right: readonly T[],
  keyOf: (value: T) => string,
): { key: string; was?: T; is?: T }[] {
  const keys = [...new Set([...left, ...right].map(keyOf))];
  return keys.map((key) => ({
    key,
    was: left.find((value) => keyOf(value) === key),
    is: right.find((value) => keyOf(value) === key),
  }));
}

/** Layers that share a stored width and form, and an execution precision. */
export interface WidthGroup {
  readonly bits: number;
  readonly format?: QuantizedLayer['format'];
  readonly execution: 'int8' | 'float';
  readonly layers: number;
  /** Weights in the group; absent when a layer does not say. */
  readonly params?: number;
  readonly bytes: number;
}

/** Groups layers by (bits, format, execution), narrowest first. */
export function widthGroups(layers: readonly QuantizedLayer[]): WidthGroup[] {
  const groups = new Map<string, QuantizedLayer[]>();
  for (const layer of layers) {
    const key = `${layer.bits}/${layer.format}/${layer.execution}`;
    groups.set(key, [...(groups.get(key) ?? []), layer]);
  }
  return [...groups.values()]
    .map((members) => ({
      bits: members[0].bits,
      format: members[0].format,
      execution: members[0].execution,
      layers: members.length,
      params: sumOrAbsent(members.map((layer) => layer.params)),
      bytes: members.reduce((sum, layer) => sum + layer.bytes, 0),
    }))
    .sort(
      (a, b) =>
        a.bits - b.bits || formatWidth(b).localeCompare(formatWidth(a)) || a.execution.localeCompare(b.execution),
    );
}

function sumOrAbsent(values: readonly (number | undefined)[]): number | undefined {
  let sum = 0;
  for (const value of values) {
    if (value === undefined) return undefined;
    sum += value;
  }
  return sum;
}

/** One sentence about the budget: asked, got, met or not. */
export function budgetSentence(report: QuantizeReport): string | undefined {
  const { budget } = report;
  if (budget === undefined) return undefined;
  const show = budget.unit === 'bytes' ? formatBytes : (bits: number): string => `${formatBits(bits)} bits`;
  const goal = budget.unit === 'bytes' ? 'file size' : 'average stored width';
  const outcome = budget.met ? 'met' : 'NOT met';
  return `Budget ${outcome}: ${goal} ${show(budget.achieved)}, asked for ${show(budget.requested)}.`;
}

/** How well the flow sensitivity ranks the layers that were measured. */
export function agreementSentence({ kendallTau, withoutGradient, layers }: SensitivityCheck): string {
  const other = withoutGradient === undefined ? '' : `, ${withoutGradient.toFixed(2)} without the gradient term`;
  return `Kendall tau of the flow sensitivity against the measured divergence: ${kendallTau.toFixed(2)}${other} (${layers} layers).`;
}

/** Widths for which any layer has a KL value, narrowest first. */
export function klWidths(layers: readonly { kl?: Record<string, number> }[]): string[] {
  const widths = new Set(layers.flatMap((layer) => Object.keys(layer.kl ?? {})));
  return [...widths].sort((a, b) => Number(a) - Number(b));
}
