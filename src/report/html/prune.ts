/** Body of the HTML report of `prune`. */
import { formatCount, metricLabel } from '../format.js';
import { plotsOf } from '../plots.js';
import {
  branchCells,
  branchHead,
  changedGroups,
  outcomesOf,
  stepsCaption,
  stepTable,
  WIDTHS_HEAD,
  widthCells,
  widthsCaption,
} from '../pruning.js';
import type { PrunedLayer, PruneReport } from '../report.js';
import { comparisonRows } from '../summary.js';
import { comparisonCards, comparisonSection } from './comparison.js';
import { html } from './markup.js';
import type { Content } from './markup.js';
import { cardGrid, dataTable, notice, plotSections, section, textTable } from './parts.js';
import type { Card } from './parts.js';
import { recoverySection } from './recovery.js';
import { makingSection, verificationSection } from './shared.js';

export async function pruneBody(report: PruneReport): Promise<Content[]> {
  const outcomes = outcomesOf(report);
  const met = outcomes.filter((outcome) => outcome.met).map(({ text }) => text);
  return [
    cardGrid(headlineCards(report)),
    met.length === 0 ? undefined : html`<p class="sub outcome">${met.join(' ')}</p>`,
    ...outcomes.filter((outcome) => !outcome.met).map(({ text }) => notice(text)),
    ...(await plotSections(plotsOf(report))),
    comparisonSection(report.before, report.after),
    stepSection(report),
    recoverySection(report),
    widthSection(report),
    branchSection(report),
    layerSection(report),
    verificationSection(report),
    makingSection(report, [['method', report.method]]),
  ];
}

/** File size, MACs (else parameters), the main metric and latencies. */
function headlineCards({ before, after }: PruneReport): Card[] {
  const metric = after.metric && metricLabel(after.metric.name);
  const cost = before.macs === undefined || after.macs === undefined ? 'parameters' : 'MACs';
  const rows = comparisonRows(before, after).filter(
    ({ label }) => label === 'file size' || label === cost || label === metric || label.startsWith('latency'),
  );
  return comparisonCards(rows).slice(0, 5);
}

function stepSection(report: PruneReport): Content {
  if (report.steps.length === 0) return undefined;
  return section('Steps', stepsCaption(report), textTable(stepTable(report, report.steps, true)));
}

function widthSection(report: PruneReport): Content {
  const changed = changedGroups(report);
  if (report.groups.length === 0) return undefined;
  return section(
    'Widths',
    widthsCaption(report),
    changed.length === 0
      ? undefined
      : textTable({ head: WIDTHS_HEAD, rows: changed.map(widthCells) }, ['name', 'text']),
  );
}

function branchSection(report: PruneReport): Content {
  const { removed } = report;
  if (removed.length === 0) return undefined;
  const divergence = removed.some((branch) => branch.divergence !== undefined)
    ? ' The last column is the divergence of the model with this alone.'
    : '';
  return section(
    'Branches and layers taken out',
    `Branches by the sum that they fed, whose skip stays; layers by the projection that stands for them.${divergence}`,
    textTable({ head: branchHead(report), rows: removed.map(branchCells) }, ['name']),
  );
}

function layerSection({ layers }: PruneReport): Content {
  if (layers.length === 0) return undefined;
  const change = (values: { before: number; after: number } | undefined): string | undefined =>
    values && `${formatCount(values.before)} → ${formatCount(values.after)}`;
  return section(
    'Layers',
    undefined,
    dataTable<PrunedLayer>(
      [
        { head: '#', kind: 'number', cell: (_, i) => i + 1 },
        { head: 'layer', kind: 'name', cell: (row) => row.name },
        { head: 'op', kind: 'text', cell: (row) => row.op },
        { head: 'output channels', kind: 'number', cell: (row) => change(row.channels) },
        { head: 'parameters', kind: 'number', cell: (row) => change(row.params) },
        { head: 'MACs', kind: 'number', cell: (row) => change(row.macs) },
        { head: '', kind: 'text', cell: (row) => (row.channels.after === 0 ? 'removed' : undefined) },
      ],
      layers,
    ),
  );
}
