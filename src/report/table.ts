/** Terminal tables of the reports: aligned, at most 100 columns wide, coloured only when asked. */
import CliTable from 'cli-table3';
import {
  formatBits,
  formatBytes,
  formatCount,
  formatDims,
  formatMetric,
  formatMetricChange,
  formatMs,
  formatSeconds,
  metricLabel,
  printable,
  significant,
  truncateMiddle,
} from './format.js';
import type {
  EvaluateReport,
  InspectReport,
  Measurement,
  Metric,
  ProfileReport,
  QuantizeReport,
  RemovableUnits,
  Report,
  TrainReport,
} from './report.js';
import { fixedCount, fixedReason, groupName, tiedWeights } from './groups.js';
import { recoverySentence } from './recovery.js';
import { agreementSentence, budgetSentence, comparisonRows, latenciesOf, widthGroups } from './summary.js';
import type { Verdict } from './summary.js';
import { courseCells, courseHead, courseOf, endSentence, thinnedCourse, trainingTitle } from './training.js';

export interface TableOptions {
  /** ANSI colours; leave off unless the output is a terminal. */
  colour?: boolean;
  /** Columns available, at most 100 are used. */
  columns?: number;
}

type Paint = (text: string, style: 'bold' | 'dim' | 'green' | 'red' | 'yellow') => string;
const ANSI = { bold: [1, 22], dim: [2, 22], green: [32, 39], red: [31, 39], yellow: [33, 39] } as const;
const MAX_COLUMNS = 100;

/** The report as text for a terminal, with a final newline. */
export function reportToTable(report: Report, options: TableOptions = {}): string {
  const paint: Paint = (text, style) =>
    options.colour === true ? `\u001b[${ANSI[style][0]}m${text}\u001b[${ANSI[style][1]}m` : text;
  const columns = Math.max(40, Math.min(MAX_COLUMNS, options.columns ?? MAX_COLUMNS));
  const lines = [...bodyOf(report, paint, columns), '', ...footer(report, paint)];
  return `${lines.join('\n')}\n`;
}

function bodyOf(report: Report, paint: Paint, columns: number): string[] {
  switch (report.command) {
    case 'inspect':
      return inspectLines(report, paint, columns);
    case 'evaluate':
      return evaluateLines(report, paint, columns);
    case 'profile':
      return profileLines(report, paint, columns);
    case 'quantize':
      return quantizeLines(report, paint, columns);
    case 'train':
      return trainLines(report, paint, columns);
  }
}

function quantizeLines(report: QuantizeReport, paint: Paint, columns: number): string[] {
  const groups = widthGroups(report.layers).map((group) => [
    formatBits(group.bits),
    group.execution,
    String(group.layers),
    group.params === undefined ? '' : formatCount(group.params),
    formatBytes(group.bytes),
  ]);
  const budget = budgetSentence(report);
  const recovery = recoverySentence(report);
  return [
    heading(`${report.method}, seed ${report.seed}, target ${report.target}`, report.model, paint, columns),
    '',
    ...comparisonGrid(report.before, report.after, paint),
    '',
    ...grid(['bits', 'execution', 'layers', 'weights', 'bytes'], groups, 'rlrrr', paint),
    ...sweepLines(report, paint),
    ...(report.sensitivityCheck === undefined
      ? []
      : ['', ...wrapped(agreementSentence(report.sensitivityCheck), columns)]),
    ...(recovery === undefined ? [] : ['', ...wrapped(recovery, columns)]),
    ...(budget === undefined ? [] : ['', report.budget?.met === false ? paint(budget, 'red') : budget]),
  ];
}

function trainLines(report: TrainReport, paint: Paint, columns: number): string[] {
  const course = thinnedCourse(courseOf(report)).map((point) => courseCells(point, report));
  return [
    heading(trainingTitle(report), report.model, paint, columns),
    '',
    ...comparisonGrid(report.before, report.after, paint),
    ...(course.length === 0 ? [] : ['', ...grid(courseHead(report), course, 'rrrrrrl', paint)]),
    '',
    ...wrapped(endSentence(report), columns),
  ];
}

/** What was measured before and after; one column where there is nothing before. */
function comparisonGrid(before: Measurement | undefined, after: Measurement, paint: Paint): string[] {
  const rows = comparisonRows(before ?? {}, after);
  if (before === undefined)
    return grid(
      ['', 'measured'],
      rows.map((row) => [row.label, row.after ?? '']),
      'lr',
      paint,
    );
  const cells = rows.map((row) => [
    row.label,
    row.before ?? '',
    row.after ?? '',
    painted(row.change ?? '', row.verdict, paint),
  ]);
  return grid(['', 'before', 'after', 'change'], cells, 'lrrl', paint);
}

function sweepLines(report: QuantizeReport, paint: Paint): string[] {
  const reference = report.before.metric;
  const row = (name: string, bits: number | undefined, bytes: number, metric: Metric): string[] => [
    printable(name),
    bits === undefined ? '' : formatBits(bits),
    formatBytes(bytes),
    formatMetric(metric),
    reference === undefined || reference.name !== metric.name ? '' : formatMetricChange(reference, metric),
  ];
  const rows = [
    ...(report.sweep ?? []).map((point) => row(report.method, point.bits, point.bytes, point.metric)),
    ...(report.baselines ?? []).map((point) => row(point.method, point.bits, point.bytes, point.metric)),
  ];
  if (rows.length === 0) return [];
  const metric = report.sweep?.[0]?.metric.name ?? report.baselines?.[0]?.metric.name ?? 'metric';
  return ['', ...grid(['method', 'bits', 'file size', metricLabel(metric), 'change'], rows, 'lrrrr', paint)];
}

function evaluateLines(report: EvaluateReport, paint: Paint, columns: number): string[] {
  const [first] = report.files;
  const batches = [...new Set(report.files.flatMap((file) => latenciesOf(file).map((one) => one.batch)))].sort(
    (a, b) => a - b,
  );
  const shownBatches = batches.slice(0, 3);
  const head = [
    'file',
    'size',
    'ratio',
    'gzip',
    metricHead(report.files),
    'change',
    ...shownBatches.map((b) => `batch ${b}`),
  ];
  const rows = report.files.map((file, index) => [
    file.path,
    formatBytes(file.bytes),
    index === 0 ? '' : `${significant(first.bytes / Math.max(1, file.bytes), 3)}x`,
    file.gzipBytes === undefined ? '' : formatBytes(file.gzipBytes),
    file.metric === undefined ? '' : formatMetric(file.metric),
    index === 0 || file.metric === undefined || first.metric?.name !== file.metric.name
      ? ''
      : formatMetricChange(first.metric, file.metric),
    ...shownBatches.map((batch) => {
      const latency = latenciesOf(file).find((one) => one.batch === batch);
      return latency === undefined ? '' : formatMs(latency.medianMs);
    }),
  ]);
  const notes = batches.length > shownBatches.length ? ['', 'More batch sizes are in --json and --report.'] : [];
  const title = `${report.files.length === 1 ? '1 file' : `${report.files.length} files`}, target ${report.target}`;
  return [
    heading(title, report.data?.source ?? '', paint, columns),
    '',
    ...nameGrid(head, rows, paint, columns),
    ...notes,
  ];
}

function metricHead(files: readonly Measurement[]): string {
  const metric = files.find((file) => file.metric !== undefined)?.metric;
  return metric === undefined ? 'metric' : metricLabel(metric.name).replace(' with the original', '');
}

function inspectLines(report: InspectReport, paint: Paint, columns: number): string[] {
  const { model } = report;
  const facts = [
    ...model.inputs.map((value) => ['input', `${printable(value.name)}  ${value.type}  ${formatDims(value.dims)}`]),
    ...model.outputs.map((value) => ['output', `${printable(value.name)}  ${value.type}  ${formatDims(value.dims)}`]),
    ['opset', `${model.opset} (IR ${model.irVersion})`],
    ...(model.producer === undefined ? [] : [['producer', printable(model.producer)]]),
    ['parameters', formatCount(model.params)],
    ...(model.macs === undefined ? [] : [['MACs', formatCount(model.macs)]]),
    [
      'file size',
      formatBytes(model.bytes) + (model.gzipBytes === undefined ? '' : ` (gzip ${formatBytes(model.gzipBytes)})`),
    ],
  ];
  const rows = model.rows.map((row) => [
    row.name,
    row.op,
    row.weightDims === undefined ? '' : formatDims(row.weightDims).replaceAll(' ', ''),
    row.outputDims === undefined ? '' : formatDims(row.outputDims).replaceAll(' ', ''),
    formatCount(row.params),
    row.macs === undefined ? '' : formatCount(row.macs),
    formatBytes(row.bytes),
  ]);
  const notes = model.rows.flatMap((row) => (row.note === undefined ? [] : [[row.name, row.note]]));
  const unsupported = (model.unsupported ?? []).map((one) => [one.node, one.op, one.reason]);
  return [
    heading('inspect', model.path, paint, columns),
    '',
    ...facts.map(([label, value]) => fit(`${paint(label.padEnd(12), 'dim')}${value}`, columns, label.length)),
    '',
    ...nameGrid(['layer', 'op', 'weight', 'output', 'params', 'MACs', 'bytes'], rows, paint, columns),
    ...(model.removable === undefined ? [] : removableLines(model.removable, paint, columns)),
    ...(notes.length === 0 ? [] : ['', ...nameGrid(['layer', 'note'], notes, paint, columns, 'll')]),
    ...(unsupported.length === 0
      ? []
      : ['', paint('Not supported', 'yellow'), ...nameGrid(['node', 'op', 'why'], unsupported, paint, columns, 'lll')]),
  ];
}

function removableLines({ groups, fixed }: RemovableUnits, paint: Paint, columns: number): string[] {
  const rows = groups.map((group) => [
    groupName(group),
    group.kind,
    String(group.units),
    formatCount(group.params),
    group.macs === undefined ? '' : formatCount(group.macs),
    tiedWeights(group, false),
  ]);
  const kept = fixed.map((line) => [line.layer, line.op, fixedCount(line), fixedReason(line)]);
  const head = ['units of', 'kind', 'units', 'params each', 'MACs each', 'tied weights'];
  return [
    '',
    ...(rows.length === 0 ? ['No units can be removed.'] : nameGrid(head, rows, paint, columns, 'llrrrl')),
    ...(kept.length === 0
      ? []
      : ['', ...nameGrid(['not removable', 'op', 'units', 'why'], kept, paint, columns, 'llrl')]),
  ];
}

function profileLines(report: ProfileReport, paint: Paint, columns: number): string[] {
  const widths = [...new Set(report.layers.flatMap((layer) => Object.keys(layer.kl ?? {})))].sort(
    (a, b) => Number(a) - Number(b),
  );
  const graded = report.layers.some((layer) => layer.gradient !== undefined);
  const shown = widths.slice(0, 3);
  const number = (value: number | undefined, digits = 3): string =>
    value === undefined ? '' : significant(value, digits);
  const rows = report.layers.map((layer) => [
    layer.name,
    layer.op,
    layer.params === undefined ? '' : formatCount(layer.params),
    number(layer.sensitivity),
    number(layer.flow),
    number(layer.flowChange),
    ...(graded ? [number(layer.gradient, 2)] : []),
    ...shown.map((width) => number(layer.kl?.[width], 2)),
  ]);
  const gradient = graded ? ['gradient'] : [];
  const head = [
    'layer',
    'op',
    'params',
    'sensitivity',
    'flow',
    'change',
    ...gradient,
    ...shown.map((width) => `KL ${width}b`),
  ];
  const { sensitivityCheck: check } = report;
  return [
    heading(`profile, target ${report.target}`, report.model, paint, columns),
    '',
    ...nameGrid(head, rows, paint, columns),
    ...(widths.length > shown.length ? ['', 'More widths are in --json and --report.'] : []),
    ...(check === undefined ? [] : ['', ...wrapped(agreementSentence(check), columns)]),
  ];
}

function footer(report: Report, paint: Paint): string[] {
  const parts = [formatSeconds(report.seconds)];
  if (report.peakRssBytes !== undefined) parts.push(`peak memory ${formatBytes(report.peakRssBytes)}`);
  if (report.environment !== undefined) parts.push(report.environment.engine);
  const warnings = (report.warnings ?? []).map((text) => `${paint('warning:', 'yellow')} ${printable(text)}`);
  const written = 'output' in report ? [`${paint('wrote', 'bold')} ${printable(report.output)}`] : [];
  return [...warnings, ...written, paint(parts.join(' · '), 'dim')];
}

function heading(title: string, subject: string, paint: Paint, columns: number): string {
  const room = Math.max(10, columns - title.length - 2);
  return `${paint(title, 'bold')}  ${paint(truncateMiddle(printable(subject), room), 'dim')}`.trimEnd();
}

/** Lines of at most `columns` characters, broken at spaces. */
function wrapped(text: string, columns: number): string[] {
  const lines = [''];
  for (const word of text.split(' ')) {
    const line = lines[lines.length - 1];
    if (line !== '' && line.length + 1 + word.length > columns) lines.push(word);
    else lines[lines.length - 1] = line === '' ? word : `${line} ${word}`;
  }
  return lines;
}

function fit(line: string, columns: number, invisible: number): string {
  return line.length <= columns + invisible ? line : `${line.slice(0, columns + invisible - 1)}…`;
}

function painted(text: string, verdict: Verdict | undefined, paint: Paint): string {
  if (verdict === 'better') return paint(text, 'green');
  return verdict === 'worse' ? paint(text, 'red') : text;
}

/** A table without rules: two spaces between columns, the head dimmed. `align` has one letter per column, l or r. */
function grid(head: readonly string[], rows: readonly string[][], align: string, paint: Paint): string[] {
  const none = {
    ...{ top: '', 'top-mid': '', 'top-left': '', 'top-right': '', bottom: '', 'bottom-mid': '', 'bottom-left': '' },
    ...{
      'bottom-right': '',
      left: '',
      'left-mid': '',
      mid: '',
      'mid-mid': '',
      right: '',
      'right-mid': '',
      middle: '  ',
    },
  };
  const table = new CliTable({
    chars: none,
    style: { 'padding-left': 0, 'padding-right': 0, head: [], border: [] },
    colAligns: [...align].map((letter) => (letter === 'r' ? 'right' : 'left')),
  });
  table.push(
    head.map((cell) => paint(cell, 'dim')),
    ...rows,
  );
  return table
    .toString()
    .split('\n')
    .map((line) => line.trimEnd());
}

/** A grid whose first column is a name that shrinks (in the middle) and whose last text column is cut until the table fits. */
function nameGrid(
  head: readonly string[],
  rows: readonly string[][],
  paint: Paint,
  columns: number,
  align?: string,
): string[] {
  const clean = rows.map((row) => row.map(printable));
  const gaps = 2 * (head.length - 1);
  const widest = (column: number): number => Math.max(head[column].length, ...clean.map((row) => row[column].length));
  const others = head.slice(1).reduce((sum, _, i) => sum + widest(i + 1), 0);
  const nameWidth = Math.min(Math.max(columns - gaps - others, 16), widest(0));
  const lastRoom = columns - gaps - nameWidth - (others - widest(head.length - 1));
  const fitted = clean.map((row) =>
    row.map((cell, i) => {
      if (i === 0) return truncateMiddle(cell, nameWidth);
      return i === row.length - 1 ? truncateMiddle(cell, Math.max(8, lastRoom)) : cell;
    }),
  );
  return grid(head, fitted, align ?? `l${'r'.repeat(head.length - 1)}`, paint);
}
