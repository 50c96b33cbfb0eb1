/** Body of the HTML report of `quantize`. */
import {
  formatBits,
  formatWidth,
  formatBytes,
  formatCount,
  formatMetric,
  formatMetricChange,
  formatMs,
  metricLabel,
  significant,
} from '../format.js';
import { plotsOf } from '../plots.js';
import type { QuantizedLayer, QuantizeReport } from '../report.js';
import { agreementSentence, budgetSentence, comparisonRows, widthGroups } from '../summary.js';
import type { ComparisonRow } from '../summary.js';
import { comparisonCards, comparisonSection } from './comparison.js';
import type { Content } from './markup.js';
import { cardGrid, dataTable, notice, plotSections, section } from './parts.js';
import type { Card } from './parts.js';
import { recoverySection } from './recovery.js';
import { makingSection, verificationSection } from './shared.js';

export async function quantizeBody(report: QuantizeReport): Promise<Content[]> {
  const rows = comparisonRows(report.before, report.after);
  const budget = budgetSentence(report);
  return [
    cardGrid(headlineCards(report, rows)),
    budget !== undefined && report.budget?.met === false ? notice(budget) : undefined,
    ...(await plotSections(plotsOf(report))),
    comparisonSection(report.before, report.after),
    recoverySection(report),
    tradeoffSection(report),
    widthSection(report),
    layerSection(report),
    verificationSection(report),
    makingSection(report, [['method', report.method]]),
  ];
}

/** Size, main metric, each latency and the average width: after, with before and the change below. */
function headlineCards(report: QuantizeReport, rows: readonly ComparisonRow[]): Card[] {
  const metric = report.after.metric?.name;
  const wanted = rows.filter(
    (row) =>
      row.label === 'file size' ||
      row.label.startsWith('latency') ||
      (metric !== undefined && row.label === metricLabel(metric)),
  );
  const cards = comparisonCards(wanted);
  const { budget } = report;
  if (budget?.unit === 'bits') {
    cards.push({
      label: 'average stored width',
      value: `${formatBits(budget.achieved)} bits`,
      note: `asked for ${formatBits(budget.requested)}`,
    });
  }
  return cards.slice(0, 5);
}

function tradeoffSection(report: QuantizeReport): Content {
  const { sweep = [], baselines = [], before } = report;
  const rows = [...sweep.map((point) => ({ ...point, method: report.method })), ...baselines];
  if (rows.length === 0) return undefined;
  const reference = before.metric;
  return section(
    'Against other widths and methods',
    'Same model, same data, same measurement.',
    dataTable(
      [
        { head: 'method', kind: 'text', cell: (row) => row.method },
        { head: 'bits', kind: 'number', cell: (row) => row.bits && formatBits(row.bits) },
        { head: 'file size', kind: 'number', cell: (row) => formatBytes(row.bytes) },
        { head: metricLabel(rows[0].metric.name), kind: 'number', cell: (row) => formatMetric(row.metric) },
        {
          head: 'change',
          kind: 'number',
          cell: (row) => (reference?.name === row.metric.name ? formatMetricChange(reference, row.metric) : undefined),
        },
        { head: 'latency', kind: 'number', cell: (row) => row.latency && formatMs(row.latency.medianMs) },
      ],
      rows,
    ),
  );
}

function widthSection(report: QuantizeReport): Content {
  const groups = widthGroups(report.layers);
  if (groups.length === 0) return undefined;
  return section(
    'Layers by stored width',
    undefined,
    dataTable(
      [
        { head: 'bits', kind: 'number', cell: (row) => formatWidth(row) },
        { head: 'execution', kind: 'text', cell: (row) => row.execution },
        { head: 'layers', kind: 'number', cell: (row) => row.layers },
        {
          head: 'weights',
          kind: 'number',
          cell: (row) => (row.params !== undefined && formatCount(row.params)) || undefined,
        },
        { head: 'bytes', kind: 'number', cell: (row) => formatBytes(row.bytes) },
      ],
      groups,
    ),
  );
}

function layerSection(report: QuantizeReport): Content {
  if (report.layers.length === 0) return undefined;
  const check = report.sensitivityCheck;
  const caption = check && agreementSentence(check);
  const number = (value: number | undefined): string | undefined =>
    value === undefined ? undefined : significant(value, 3);
  return section(
    'Layers',
    caption,
    dataTable<QuantizedLayer>(
      [
        { head: '#', kind: 'number', cell: (_, i) => i + 1 },
        { head: 'layer', kind: 'name', cell: (row) => row.name },
        { head: 'op', kind: 'text', cell: (row) => row.op },
        { head: 'bits', kind: 'number', cell: (row) => formatWidth(row) },
        { head: 'execution', kind: 'text', cell: (row) => row.execution },
        {
          head: 'weights',
          kind: 'number',
          cell: (row) => (row.params === undefined ? undefined : formatCount(row.params)),
        },
        {
          head: 'bytes before',
          kind: 'number',
          cell: (row) => (row.bytesBefore === undefined ? undefined : formatBytes(row.bytesBefore)),
        },
        { head: 'bytes', kind: 'number', cell: (row) => formatBytes(row.bytes) },
        { head: 'sensitivity', kind: 'number', cell: (row) => number(row.sensitivity) },
        { head: 'flow', kind: 'number', cell: (row) => number(row.flow) },
        { head: 'flow change', kind: 'number', cell: (row) => number(row.flowChange) },
        { head: 'gradient', kind: 'number', cell: (row) => number(row.gradient) },
        { head: 'KL at this width', kind: 'number', cell: (row) => number(row.kl?.[String(row.bits)]) },
        { head: 'SQNR, dB', kind: 'number', cell: (row) => row.sqnrDb?.toFixed(1) },
        { head: 'note', kind: 'text', cell: (row) => row.note },
      ],
      report.layers,
    ),
  );
}
