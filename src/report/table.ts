/** Terminal tables of the reports: aligned, at most 100 columns wide, coloured only when asked. */
import {
  formatBits,
  formatWidth,
  formatBytes,
  formatCount,
  formatDims,
  formatMetric,
  formatMetricChange,
  formatMs,
  formatSeconds,
  metricHead,
  metricLabel,
  printable,
  significant,
} from './format.js';
import type {
  BenchReport,
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
import { fidelitiesOf } from './fidelity.js';
import { fixedCount, fixedReason, groupName, layerCells, LAYERS_HEAD, tiedWeights } from './groups.js';
import { recoverySentence } from './recovery.js';
import { agreementSentence, budgetSentence, latenciesOf, widthGroups } from './summary.js';
import { compressLines } from './table/compress.js';
import { distillLines } from './table/distill.js';
import { fidelityLines } from './table/fidelity.js';
import { comparisonGrid, fit, grid, heading, nameGrid, painter, wrapped } from './table/grid.js';
import type { Paint } from './table/grid.js';
import { benchTable, benchTitle, BENCH_CAPTION } from './bench.js';
import { pruneLines } from './table/prune.js';
import { courseTable, endSentence, trainingTitle } from './training.js';

export interface TableOptions {
  /** ANSI colours; leave off unless the output is a terminal. */
  colour?: boolean;
  /** Columns available, at most 100 are used. */
  columns?: number;
}

const MAX_COLUMNS = 100;

/** The report as text for a terminal, with a final newline. */
export function reportToTable(report: Report, options: TableOptions = {}): string {
  const paint = painter(options.colour === true);
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
    case 'prune':
      return pruneLines(report, paint, columns);
    case 'compress':
      return compressLines(report, paint, columns);
    case 'train':
      return trainLines(report, paint, columns);
    case 'bench':
      return benchLines(report, paint, columns);
    case 'distill':
      return distillLines(report, paint, columns);
  }
}

function quantizeLines(report: QuantizeReport, paint: Paint, columns: number): string[] {
  const groups = widthGroups(report.layers).map((group) => [
    formatWidth(group),
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
  const { head, rows, align } = courseTable(report);
  return [
    heading(trainingTitle(report), report.model, paint, columns),
    '',
    ...comparisonGrid(report.before, report.after, paint),
    ...(rows.length === 0 ? [] : ['', ...grid(head, rows, align, paint)]),
    '',
    ...wrapped(endSentence(report), columns),
  ];
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
    filesMetricHead(report.files),
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
    ...fidelitiesOf(report).flatMap(({ title, fidelity }) => [
      ...['', heading(printable(title), '', paint, columns)],
      ...fidelityLines(fidelity, paint, columns),
    ]),
  ];
}

function filesMetricHead(files: readonly Measurement[]): string {
  const metric = files.find((file) => file.metric !== undefined)?.metric;
  return metric === undefined ? 'metric' : metricHead(metric.name);
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

function removableLines(
  { groups, fixed, layers = [], kept: unmoved = [] }: RemovableUnits,
  paint: Paint,
  columns: number,
): string[] {
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
    ...(layers.length === 0 ? [] : ['', ...nameGrid(LAYERS_HEAD, layers.map(layerCells), paint, columns)]),
    ...(unmoved.length === 0
      ? []
      : [
          '',
          ...nameGrid(
            ['no projection for', 'why'],
            unmoved.map(({ layer, reason }) => [layer, reason]),
            paint,
            columns,
            'll',
          ),
        ]),
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

function benchLines(report: BenchReport, paint: Paint, columns: number): string[] {
  const { head, rows, names } = benchTable(report, 'narrow');
  const align = `${'l'.repeat(names)}${'r'.repeat(head.length - names)}`;
  const cells = rows.map((row) => row.map((cell) => printable(cell)));
  return [
    heading(benchTitle(report), report.folder, paint, columns),
    '',
    ...grid(head, cells, align, paint),
    '',
    ...wrapped(BENCH_CAPTION, columns),
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
