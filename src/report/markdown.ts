/** The report as Markdown, for pull requests and notebooks: the same rows as the terminal tables. */
import {
  formatBits,
  formatWidth,
  formatBytes,
  formatCount,
  formatDims,
  formatMetric,
  formatMs,
  formatSeconds,
  metricLabel,
  printable,
} from './format.js';
import type {
  BenchReport,
  EvaluateReport,
  InspectReport,
  ProfileReport,
  PruneReport,
  QuantizeReport,
  Report,
  TrainReport,
  RemovableUnits,
} from './report.js';
import { fidelitiesOf } from './fidelity.js';
import { fixedCount, fixedReason, groupName, layerCells, LAYERS_HEAD, tiedWeights } from './groups.js';
import {
  branchCells,
  branchHead,
  changedGroups,
  outcomesOf,
  pruningTitle,
  stepsCaption,
  stepTable,
  WIDTHS_HEAD,
  widthCells,
  widthsCaption,
} from './pruning.js';
import { recoveryRows, recoverySentence } from './recovery.js';
import type { RecoveredReport } from './recovery.js';
import { agreementSentence, budgetSentence, klWidths, latenciesOf } from './summary.js';
import { benchTable, benchTimes, benchTitle, BENCH_CAPTION, TIMES_CAPTION, TIMES_TITLE } from './bench.js';
import { fidelityParts } from './markdown/fidelity.js';
import { compressParts } from './markdown/compress.js';
import { distillParts } from './markdown/distill.js';
import { comparisonTable, epochParts, inline, number, settingsParts, table, titled } from './markdown/parts.js';
import { timeTable } from './time.js';
import { endSentence, trainingTitle } from './training.js';

/** GitHub-flavoured Markdown with a final newline. */
export function reportToMarkdown(report: Report): string {
  const parts = [...bodyOf(report), ...timeParts(report), ...warningLines(report), ...footer(report)];
  return `${parts.join('\n\n')}\n`;
}

function bodyOf(report: Report): string[] {
  switch (report.command) {
    case 'inspect':
      return inspectParts(report);
    case 'evaluate':
      return evaluateParts(report);
    case 'profile':
      return profileParts(report);
    case 'quantize':
      return quantizeParts(report);
    case 'prune':
      return pruneParts(report);
    case 'compress':
      return compressParts(report);
    case 'train':
      return trainParts(report);
    case 'bench':
      return benchParts(report);
    case 'distill':
      return distillParts(report);
  }
}

function benchParts(report: BenchReport): string[] {
  const { head, rows, names } = benchTable(report, 'wide');
  const align = `${'l'.repeat(names)}${'r'.repeat(head.length - names)}`;
  const times = benchTimes(report);
  return [
    `# ${benchTitle(report)}`,
    table(head, rows, align),
    BENCH_CAPTION,
    ...(times ? [`## ${TIMES_TITLE}`, table(times.head, times.rows, 'lllr'), TIMES_CAPTION] : []),
  ];
}

function quantizeParts(report: QuantizeReport): string[] {
  const budget = budgetSentence(report);
  const others = [
    ...(report.sweep ?? []).map((point) => ({ ...point, method: report.method })),
    ...(report.baselines ?? []),
  ];
  return [
    `# ${inline(report.output)}`,
    `${inline(report.model)} quantized with ${inline(report.method)}, seed ${report.seed}, target ${report.target}.${budget === undefined ? '' : ` ${budget}`}`,
    comparisonTable(report.before, report.after),
    ...recoveryParts(report),
    ...titled('Other widths and methods', others.length, () =>
      table(
        ['method', 'bits', 'file size', metricLabel(others[0].metric.name)],
        others.map((one) => [
          one.method,
          one.bits === undefined ? undefined : formatBits(one.bits),
          formatBytes(one.bytes),
          formatMetric(one.metric),
        ]),
        'lrrr',
      ),
    ),
    ...titled('Layers', report.layers.length, () =>
      table(
        ['layer', 'op', 'bits', 'execution', 'bytes before', 'bytes', 'sensitivity'],
        report.layers.map((layer) => [
          layer.name,
          layer.op,
          formatWidth(layer),
          layer.execution,
          layer.bytesBefore === undefined ? undefined : formatBytes(layer.bytesBefore),
          formatBytes(layer.bytes),
          number(layer.sensitivity),
        ]),
        'llrlrrr',
      ),
    ),
    ...(report.sensitivityCheck ? [agreementSentence(report.sensitivityCheck)] : []),
    ...settingsParts(report),
  ];
}

function pruneParts(report: PruneReport): string[] {
  const outcomes = outcomesOf(report).map(({ text }) => ` ${inline(text)}`);
  const { head, rows } = stepTable(report, report.steps, true);
  const changed = changedGroups(report);
  return [
    `# ${inline(report.output)}`,
    `${inline(report.model)} pruned with ${inline(pruningTitle(report))}.${outcomes.join('')}`,
    comparisonTable(report.before, report.after),
    ...titled(
      'Steps',
      report.steps.length,
      () => `${stepsCaption(report)}\n\n${table(head, rows, `${'r'.repeat(head.length - 1)}l`)}`,
    ),
    ...recoveryParts(report),
    ...titled('Widths', changed.length, () =>
      [widthsCaption(report), table(WIDTHS_HEAD, changed.map(widthCells), 'llrrr')].join('\n\n'),
    ),
    ...titled('Branches and layers taken out', report.removed.length, () =>
      table(branchHead(report), report.removed.map(branchCells), 'lrrrr'),
    ),
    ...settingsParts(report),
  ];
}

function recoveryParts(report: RecoveredReport): string[] {
  const sentence = recoverySentence(report);
  if (sentence === undefined) return [];
  const { head, rows } = recoveryRows(report);
  return titled(
    'Recovery',
    rows.length,
    () => `${inline(sentence)}\n\n${table(head, rows, `${'r'.repeat(head.length - 1)}l`)}`,
  );
}

function trainParts(report: TrainReport): string[] {
  return [
    `# ${inline(report.output)}`,
    `${inline(report.model)} trained: ${inline(trainingTitle(report))}. ${inline(endSentence(report))}`,
    comparisonTable(report.before, report.after),
    ...epochParts(report),
    ...settingsParts(report),
  ];
}

function evaluateParts(report: EvaluateReport): string[] {
  const batches = [...new Set(report.files.flatMap((file) => latenciesOf(file).map((one) => one.batch)))].sort(
    (a, b) => a - b,
  );
  const metric = report.files.find((file) => file.metric !== undefined)?.metric;
  return [
    '# Evaluation',
    table(
      [
        'file',
        'size',
        'gzip',
        metric === undefined ? 'metric' : metricLabel(metric.name),
        ...batches.map((batch) => `batch ${batch}`),
      ],
      report.files.map((file) => [
        file.path,
        formatBytes(file.bytes),
        file.gzipBytes === undefined ? undefined : formatBytes(file.gzipBytes),
        file.metric && formatMetric(file.metric),
        ...batches.map((batch) => {
          const latency = latenciesOf(file).find((one) => one.batch === batch);
          return latency && formatMs(latency.medianMs);
        }),
      ]),
      `l${'r'.repeat(3 + batches.length)}`,
    ),
    ...fidelitiesOf(report).flatMap(({ title, fidelity }) => fidelityParts(fidelity, inline(title))),
  ];
}

function profileParts(report: ProfileReport): string[] {
  const widths = klWidths(report.layers);
  const graded = report.layers.some((layer) => layer.gradient !== undefined);
  return [
    `# Profile of ${inline(report.model)}`,
    table(
      [
        ...['layer', 'op', 'parameters', 'sensitivity', 'flow', 'flow change', ...(graded ? ['gradient'] : [])],
        ...widths.map((width) => `KL ${width} bits`),
      ],
      report.layers.map((layer) => [
        layer.name,
        layer.op,
        layer.params === undefined ? undefined : formatCount(layer.params),
        number(layer.sensitivity),
        number(layer.flow),
        number(layer.flowChange),
        ...(graded ? [number(layer.gradient)] : []),
        ...widths.map((width) => number(layer.kl?.[width])),
      ]),
      `ll${'r'.repeat(4 + (graded ? 1 : 0) + widths.length)}`,
    ),
    ...(report.sensitivityCheck ? [agreementSentence(report.sensitivityCheck)] : []),
  ];
}

function inspectParts({ model }: InspectReport): string[] {
  const signature = (kind: string, values: InspectReport['model']['inputs']): string[][] =>
    values.map((value) => [kind, `${value.name}: ${value.type}, ${formatDims(value.dims)}`]);
  const unsupported = model.unsupported ?? [];
  return [
    `# ${inline(model.path)}`,
    table(
      ['', ''],
      [
        ...signature('input', model.inputs),
        ...signature('output', model.outputs),
        ['opset', String(model.opset)],
        ['parameters', formatCount(model.params)],
        ['MACs', model.macs === undefined ? undefined : formatCount(model.macs)],
        ['file size', formatBytes(model.bytes)],
      ],
      'll',
    ),
    table(
      ['layer', 'op', 'weight', 'parameters', 'MACs', 'bytes', 'note'],
      model.rows.map((row) => [
        row.name,
        row.op,
        row.weightDims && formatDims(row.weightDims),
        formatCount(row.params),
        row.macs === undefined ? undefined : formatCount(row.macs),
        formatBytes(row.bytes),
        row.note,
      ]),
      'lllrrrl',
    ),
    ...removableParts(model.removable),
    ...titled('Not supported', unsupported.length, () =>
      table(
        ['node', 'op', 'why'],
        unsupported.map((one) => [one.node, one.op, one.reason]),
        'lll',
      ),
    ),
  ];
}

function removableParts(removable: RemovableUnits | undefined): string[] {
  if (!removable) return [];
  const { groups, fixed, layers = [], kept = [] } = removable;
  return [
    ...titled('Removable units', groups.length, () =>
      table(
        ['layers', 'kind', 'units', 'parameters each', 'MACs each', 'tied weights'],
        groups.map((group) => [
          groupName(group),
          group.kind,
          String(group.units),
          formatCount(group.params),
          group.macs === undefined ? undefined : formatCount(group.macs),
          tiedWeights(group, true),
        ]),
        'llrrrl',
      ),
    ),
    ...titled('Not removable', fixed.length, () =>
      table(
        ['layer', 'op', 'units', 'why'],
        fixed.map((line) => [line.layer, line.op, fixedCount(line), fixedReason(line)]),
        'llrl',
      ),
    ),
    ...titled('Removable layers', layers.length, () => table(LAYERS_HEAD, layers.map(layerCells), 'lrrr')),
    ...titled('Layers without a projection', kept.length, () =>
      table(
        ['layer', 'why'],
        kept.map(({ layer, reason }) => [layer, reason]),
        'll',
      ),
    ),
  ];
}

function timeParts(report: Report): string[] {
  const { head, rows } = timeTable(report);
  return titled('Where the time went', rows.length, () => table(head, rows, 'lrr'));
}

function warningLines(report: Report): string[] {
  const warnings = report.warnings ?? [];
  return warnings.length === 0 ? [] : [warnings.map((text) => `> ${inline(text)}`).join('\n>\n')];
}

function footer(report: Report): string[] {
  const engine = report.environment === undefined ? '' : `, ${inline(report.environment.engine)}`;
  const command = report.commandLine === undefined ? [] : [`\`\`\`sh\n${printable(report.commandLine)}\n\`\`\``];
  return [...command, `${formatSeconds(report.seconds)}${engine}.`];
}
