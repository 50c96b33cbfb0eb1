/** Numbers as people read them: bytes, percentages, times, ratios. Decimal units throughout (1 kB = 1000 bytes). */
import prettyBytes from 'pretty-bytes';
import type { Metric } from './report.js';

/** Metrics that are fractions of samples and print as percentages. */
const FRACTIONS = new Set(['top1', 'top5', 'agreement', 'accuracy', 'miou', 'map', 'f1-macro', 'f1-binary']);
const METRIC_LABELS: Readonly<Record<string, string>> = {
  top1: 'top-1',
  top5: 'top-5',
  agreement: 'agreement with the original',
  sqnrDb: 'output SQNR',
  'f1-macro': 'F1, mean of classes',
  'f1-binary': 'F1 of class 1',
};

/** `1.1 MB`, `153 kB`: three significant digits, exact below 1 kB. */
export function formatBytes(bytes: number): string {
  return prettyBytes(bytes);
}

/** `40.8 M`, `272 k`: counts of parameters and multiply-accumulates. */
export function formatCount(value: number): string {
  if (value < 10_000) return value.toLocaleString('en-US');
  const units: [number, string][] = [
    [1e12, ' T'],
    [1e9, ' G'],
    [1e6, ' M'],
    [1e3, ' k'],
  ];
  const [scale, unit] = units.find(([limit]) => value >= limit) ?? [1, ''];
  return significant(value / scale, 3) + unit;
}

/** `0.84 ms`, `12.3 ms`, `1.20 s`. */
export function formatMs(ms: number): string {
  return ms >= 1000 ? `${significant(ms / 1000, 3)} s` : `${significant(ms, 3)} ms`;
}

/** `0.4 s`, `75 s`, `12 min 05 s`, `2 h 03 min`. */
export function formatSeconds(value: number): string {
  if (value < 10) return `${value.toFixed(1)} s`;
  const total = Math.round(value);
  if (total < 120) return `${total} s`;
  const pad = (n: number): string => String(n).padStart(2, '0');
  if (total < 3600) return `${Math.floor(total / 60)} min ${pad(total % 60)} s`;
  return `${Math.floor(total / 3600)} h ${pad(Math.floor((total % 3600) / 60))} min`;
}

/** A number with `digits` significant digits and no exponent in the everyday range. */
export function significant(value: number, digits: number): string {
  if (value === 0) return '0';
  const magnitude = Math.floor(Math.log10(Math.abs(value)));
  if (magnitude < -4 || magnitude > 8) return value.toExponential(Math.max(0, digits - 1));
  return value.toFixed(Math.max(0, digits - 1 - magnitude));
}

/** At most `digits` significant digits, without zeros at the end: `0.001`, `2.5e-5`. */
export function shortNumber(value: number, digits: number): string {
  const rounded = Number(value.toPrecision(digits));
  return rounded !== 0 && Math.abs(rounded) < 1e-4 ? rounded.toExponential() : String(rounded);
}

/** `1 epoch`, `1,234 updates`. */
export function counted(count: number, noun: string): string {
  return `${count.toLocaleString('en-US')} ${noun}${count === 1 ? '' : 's'}`;
}

/** Integers plain, averages with two decimals: `4`, `3.97`. */
export function formatBits(bits: number): string {
  return Number.isInteger(bits) ? String(bits) : bits.toFixed(2);
}

/** Stored width of a layer, with the form of storage where it is not codes of a grid: `4`, `3 codebook`. */
export function formatWidth({ bits, format }: { bits: number; format?: string | undefined }): string {
  return format === undefined || format === 'uniform' ? formatBits(bits) : `${formatBits(bits)} ${format}`;
}

/** @param reference what agreement is agreement with */
export function metricLabel(name: string, reference: 'original' | 'teacher' = 'original'): string {
  return METRIC_LABELS[name]?.replace('original', reference) ?? name;
}

/** The label of a metric, short enough for the head of a column. */
export function metricHead(name: string): string {
  return metricLabel(name).replace(' with the original', '');
}

/** True for figures that a better model has less of. */
export function isLowerBetter(metricName: string): boolean {
  return metricName === 'loss' || metricName === 'relative-error';
}

/** True for metrics in 0..1 that print as a percentage. */
export function isFraction(metricName: string): boolean {
  return FRACTIONS.has(metricName.toLowerCase());
}

/** `91.73 %`, `34.1 dB`, or the plain number. */
export function formatMetric(metric: Pick<Metric, 'name' | 'value'>): string {
  if (isFraction(metric.name)) return `${(metric.value * 100).toFixed(2)} %`;
  if (metric.name.endsWith('Db')) return `${metric.value.toFixed(1)} dB`;
  return significant(metric.value, 4);
}

/** Difference of two values of the same metric: `-0.35 pp` (percentage points), `+1.2 dB`. */
export function formatMetricChange(before: Metric, after: Metric): string {
  const { factor, digits, unit } = differenceFormat(after.name);
  return `${signed((after.value - before.value) * factor, digits)}${unit}`;
}

/** A difference of two values of a metric, given as a size: `0.35 pp`. */
export function formatMetricAmount(metricName: string, amount: number): string {
  const { factor, digits, unit } = differenceFormat(metricName);
  return `${(amount * factor).toFixed(digits)}${unit}`;
}

function differenceFormat(metricName: string): { factor: number; digits: number; unit: string } {
  if (isFraction(metricName)) return { factor: 100, digits: 2, unit: ' pp' };
  if (metricName.endsWith('Db')) return { factor: 1, digits: 1, unit: ' dB' };
  return { factor: 1, digits: 4, unit: '' };
}

/** A share of a whole with up to three digits: `50 %`, `50.2 %`. */
export function formatShare(share: number): string {
  return `${shortNumber(100 * share, 3)} %`;
}

/** How many times smaller (or faster): `7.21x smaller`, `1.10x larger`, `same`. */
export function formatRatio(before: number, after: number, less: string, more: string): string | undefined {
  if (before <= 0 || after <= 0) return undefined;
  if (before === after) return 'same';
  const ratio = before > after ? before / after : after / before;
  const text = ratio >= 100 ? ratio.toFixed(0) : ratio >= 10 ? ratio.toFixed(1) : ratio.toFixed(2);
  if (text === '1.00') return 'same';
  return `${text}x ${before > after ? less : more}`;
}

/** Signed with a real minus sign; `0` when it rounds to zero. */
function signed(value: number, digits: number): string {
  const text = Math.abs(value).toFixed(digits);
  if (Number(text) === 0) return `±${text}`;
  return `${value < 0 ? '−' : '+'}${text}`;
}

/** `1 x 3 x 224 x 224`; dynamic dimensions by name or `?`. */
export function formatDims(dims: readonly (number | string)[]): string {
  if (dims.length === 0) return 'scalar';
  return dims.map((dim) => (dim === -1 || dim === '' ? '?' : String(dim))).join(' x ');
}

/** Name of a setting as text: `probeSamples` -> `probe samples`. */
export function settingLabel(key: string): string {
  return key.replace(/[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`);
}

/** A setting as text: lists joined by commas, booleans as yes and no. */
export function formatSetting(value: string | number | boolean | readonly (string | number)[]): string {
  if (typeof value === 'boolean') return value ? 'yes' : 'no';
  return Array.isArray(value) ? value.join(', ') : String(value);
}

/** Text from a model or a path, safe for a terminal: control characters (escape sequences) become spaces. */
export function printable(text: string): string {
  return text.replace(/\p{Cc}+/gu, ' ');
}

/** Shortens in the middle so that both ends of a path stay readable. */
export function truncateMiddle(text: string, width: number): string {
  if (text.length <= width) return text;
  const keep = Math.max(2, width - 1);
  const tail = Math.ceil(keep * 0.6);
  return `${text.slice(0, keep - tail)}…${text.slice(text.length - tail)}`;
}

/**
 * A layer name without what a reader can do without: `/layer1/layer1.0/conv1/Conv` -> `layer1.0/conv1`.
 * Not unique; for labels only.
 */
export function shortLayerName(name: string, op: string): string {
  const parts = printable(name)
    .split('/')
    .filter((part) => part !== '');
  const last = parts.at(-1);
  if (parts.length > 1 && last !== undefined && (last === op || last.startsWith(`${op}_`))) parts.pop();
  const kept = parts.filter((part, i) => !(i + 1 < parts.length && parts[i + 1].startsWith(`${part}.`)));
  return kept.length === 0 ? op : kept.join('/');
}

/** Last part of a path with either kind of slash. */
export function baseName(path: string): string {
  return path.split(/[/\\]/).findLast((part) => part !== '') ?? path;
}
