/** Bodies of the HTML reports of `inspect`, `evaluate` and `profile`. */
import {
  formatBytes,
  formatCount,
  formatDims,
  formatMetric,
  formatMetricChange,
  formatMs,
  metricLabel,
  significant,
} from '../format.js';
import { plotsOf } from '../plots.js';
import { fidelitiesOf } from '../fidelity.js';
import {
  FIXED_CAPTION,
  fixedCount,
  fixedReason,
  groupName,
  GROUPS_CAPTION,
  KEPT_LAYERS_CAPTION,
  layerCells,
  LAYERS_CAPTION,
  LAYERS_HEAD,
  tiedWeights,
} from '../groups.js';
import type { EvaluateReport, InspectReport, ProfileReport, RemovableUnits } from '../report.js';
import { agreementSentence, klWidths, latenciesOf, metricsOf } from '../summary.js';
import { fidelitySection } from './fidelity.js';
import type { Content, Markup } from './markup.js';
import { cardGrid, dataTable, factList, plotSections, section, settingFacts, textTable } from './parts.js';
import type { Card } from './parts.js';
import { dataFacts } from './shared.js';

export async function inspectBody({ model, ...report }: InspectReport): Promise<Content[]> {
  const cards: Card[] = [
    {
      label: 'file size',
      value: formatBytes(model.bytes),
      note: model.gzipBytes && `gzip ${formatBytes(model.gzipBytes)}`,
    },
    { label: 'parameters', value: formatCount(model.params) },
    ...(model.macs === undefined ? [] : [{ label: 'MACs per sample', value: formatCount(model.macs) }]),
    { label: 'opset', value: String(model.opset), note: `IR ${model.irVersion}` },
  ];
  const values = (list: InspectReport['model']['inputs']): string =>
    list.map((value) => `${value.name}: ${value.type}, ${formatDims(value.dims)}`).join('; ');
  return [
    cardGrid(cards),
    section(
      'Model',
      undefined,
      factList([
        ['inputs', values(model.inputs)],
        ['outputs', values(model.outputs)],
        ['producer', model.producer],
        ['nodes', model.nodes],
      ]),
    ),
    ...(await plotSections(plotsOf({ ...report, model }))),
    section(
      'Layers',
      undefined,
      dataTable(
        [
          { head: '#', kind: 'number', cell: (_, i) => i + 1 },
          { head: 'layer', kind: 'name', cell: (row) => row.name },
          { head: 'op', kind: 'text', cell: (row) => row.op },
          { head: 'weight', kind: 'text', cell: (row) => row.weightDims && formatDims(row.weightDims) },
          { head: 'output', kind: 'text', cell: (row) => row.outputDims && formatDims(row.outputDims) },
          { head: 'parameters', kind: 'number', cell: (row) => formatCount(row.params) },
          { head: 'MACs', kind: 'number', cell: (row) => (row.macs === undefined ? undefined : formatCount(row.macs)) },
          { head: 'bytes', kind: 'number', cell: (row) => formatBytes(row.bytes) },
          { head: 'note', kind: 'text', cell: (row) => row.note },
        ],
        model.rows,
      ),
    ),
    ...removableSections(model.removable),
    ...listSection('Not supported', undefined, model.unsupported ?? [], (rows) =>
      dataTable(
        [
          { head: 'node', kind: 'name', cell: (row) => row.node },
          { head: 'op', kind: 'text', cell: (row) => row.op },
          { head: 'why', kind: 'text', cell: (row) => row.reason },
        ],
        rows,
      ),
    ),
  ];
}

function removableSections(removable: RemovableUnits | undefined): Markup[] {
  if (!removable) return [];
  return [
    ...listSection('Removable units', GROUPS_CAPTION, removable.groups, (groups) =>
      dataTable(
        [
          { head: '#', kind: 'number', cell: (_, i) => i + 1 },
          { head: 'layers', kind: 'name', cell: groupName },
          { head: 'kind', kind: 'text', cell: (row) => row.kind },
          { head: 'units', kind: 'number', cell: (row) => row.units },
          { head: 'parameters', kind: 'number', cell: (row) => formatCount(row.params) },
          { head: 'MACs', kind: 'number', cell: (row) => (row.macs === undefined ? undefined : formatCount(row.macs)) },
          { head: 'tied weights', kind: 'text', cell: (row) => tiedWeights(row, true) },
        ],
        groups,
      ),
    ),
    ...listSection('Not removable', FIXED_CAPTION, removable.fixed, (lines) =>
      dataTable(
        [
          { head: 'layer', kind: 'name', cell: (row) => row.layer },
          { head: 'op', kind: 'text', cell: (row) => row.op },
          { head: 'units', kind: 'number', cell: fixedCount },
          { head: 'why', kind: 'text', cell: fixedReason },
        ],
        lines,
      ),
    ),
    ...listSection('Removable layers', LAYERS_CAPTION, removable.layers ?? [], (layers) =>
      textTable({ head: LAYERS_HEAD, rows: layers.map(layerCells) }, ['name']),
    ),
    ...listSection('Layers without a projection', KEPT_LAYERS_CAPTION, removable.kept ?? [], (lines) =>
      textTable({ head: ['layer', 'why'], rows: lines.map(({ layer, reason }) => [layer, reason]) }, ['name', 'text']),
    ),
  ];
}

function listSection<T>(
  title: string,
  caption: string | undefined,
  rows: readonly T[],
  table: (rows: readonly T[]) => Markup,
): Markup[] {
  return rows.length === 0 ? [] : [section(title, caption, table(rows))];
}

export async function evaluateBody(report: EvaluateReport): Promise<Content[]> {
  const [first] = report.files;
  const metrics = [...new Set(report.files.flatMap((file) => metricsOf(file).map((metric) => metric.name)))];
  const batches = [...new Set(report.files.flatMap((file) => latenciesOf(file).map((one) => one.batch)))].sort(
    (a, b) => a - b,
  );
  return [
    section(
      'Files side by side',
      'Measured in one run with the same data and session options. Ratios are against the first file.',
      dataTable<EvaluateReport['files'][number]>(
        [
          { head: 'file', kind: 'name', cell: (row) => row.path },
          { head: 'size', kind: 'number', cell: (row) => formatBytes(row.bytes) },
          {
            head: 'ratio',
            kind: 'number',
            cell: (row, i) => (i === 0 || row.bytes === 0 ? undefined : `${significant(first.bytes / row.bytes, 3)}x`),
          },
          { head: 'gzip', kind: 'number', cell: (row) => row.gzipBytes && formatBytes(row.gzipBytes) },
          {
            head: 'parameters',
            kind: 'number',
            cell: (row) => (row.params === undefined ? undefined : formatCount(row.params)),
          },
          { head: 'MACs', kind: 'number', cell: (row) => (row.macs === undefined ? undefined : formatCount(row.macs)) },
          ...metrics.map((name) => ({
            head: metricLabel(name),
            kind: 'number' as const,
            cell: (row: EvaluateReport['files'][number], i: number): Content => metricCell(report, name, row, i),
          })),
          ...batches.map((batch) => ({
            head: `batch ${batch}`,
            kind: 'number' as const,
            cell: (row: EvaluateReport['files'][number]): Content => {
              const latency = latenciesOf(row).find((one) => one.batch === batch);
              return latency && formatMs(latency.medianMs);
            },
          })),
        ],
        report.files,
      ),
    ),
    ...fidelitiesOf(report).map(({ title, fidelity }) => fidelitySection(fidelity, title)),
    ...(await plotSections(plotsOf(report))),
    section(
      'Data',
      undefined,
      factList([
        ...[['target', report.target] as const, ['seed', report.seed] as const, ['teacher', report.teacher] as const],
        ...dataFacts(report.data),
      ]),
    ),
  ];
}

/** The value, with the change against the first file in parentheses. */
function metricCell(
  report: EvaluateReport,
  name: string,
  row: EvaluateReport['files'][number],
  index: number,
): Content {
  const metric = metricsOf(row).find((one) => one.name === name);
  const reference = metricsOf(report.files[0]).find((one) => one.name === name);
  if (metric === undefined) return undefined;
  return index === 0 || reference === undefined
    ? formatMetric(metric)
    : `${formatMetric(metric)} (${formatMetricChange(reference, metric)})`;
}

export async function profileBody(report: ProfileReport): Promise<Content[]> {
  const { before, sensitivityCheck: check } = report;
  const cards: Card[] = [
    { label: 'layers', value: String(report.layers.length) },
    ...(before === undefined ? [] : [{ label: 'file size', value: formatBytes(before.bytes) }]),
    ...(before?.metric === undefined
      ? []
      : [
          {
            label: metricLabel(before.metric.name),
            value: formatMetric(before.metric),
            note: `${before.metric.split} split`,
          },
        ]),
    ...(check === undefined
      ? []
      : [{ label: 'Kendall tau', value: check.kendallTau.toFixed(2), note: 'sensitivity against measured KL' }]),
  ];
  const number = (value: number | undefined): string | undefined =>
    value === undefined ? undefined : significant(value, 3);
  return [
    cardGrid(cards),
    ...(await plotSections(plotsOf(report))),
    section(
      'Layers',
      check && agreementSentence(check),
      dataTable<ProfileReport['layers'][number]>(
        [
          { head: '#', kind: 'number', cell: (_, i) => i + 1 },
          { head: 'layer', kind: 'name', cell: (row) => row.name },
          { head: 'op', kind: 'text', cell: (row) => row.op },
          {
            head: 'parameters',
            kind: 'number',
            cell: (row) => (row.params === undefined ? undefined : formatCount(row.params)),
          },
          { head: 'sensitivity', kind: 'number', cell: (row) => number(row.sensitivity) },
          { head: 'flow', kind: 'number', cell: (row) => number(row.flow) },
          { head: 'flow change', kind: 'number', cell: (row) => number(row.flowChange) },
          { head: 'gradient', kind: 'number', cell: (row) => number(row.gradient) },
          ...klWidths(report.layers).map((width) => ({
            head: `KL at ${width} bits`,
            kind: 'number' as const,
            cell: (row: ProfileReport['layers'][number]): Content => number(row.kl?.[width]),
          })),
          { head: 'note', kind: 'text', cell: (row) => row.note },
        ],
        report.layers,
      ),
    ),
    section(
      'How it was measured',
      undefined,
      factList([
        ['target', report.target],
        ['seed', report.seed],
        ...settingFacts(report.settings),
        ...dataFacts(report.data),
      ]),
    ),
  ];
}
