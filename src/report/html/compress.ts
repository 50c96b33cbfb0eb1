/** Body of the HTML report of `compress`: how small, how fast, how good and how safe first, how it came about below. */
import {
  classTable,
  layerCells,
  LAYERS_HEAD,
  learnings,
  limitOutcomes,
  PLAN_CAPTION,
  planTable,
  safetySentence,
  STATES_CAPTION,
  stateTable,
  WORST_CAPTION,
  worstTable,
} from '../compressing.js';
import { metricLabel } from '../format.js';
import { plotsOf } from '../plots.js';
import { branchCells, branchHead } from '../pruning.js';
import type { TextTable } from '../pruning.js';
import { recoveryRows, recoverySentence } from '../recovery.js';
import type { CompressReport } from '../report.js';
import { comparisonRows } from '../summary.js';
import { comparisonCards, comparisonSection } from './comparison.js';
import { html } from './markup.js';
import type { Content } from './markup.js';
import { cardGrid, notice, plotSections, section, textTable } from './parts.js';
import type { Card } from './parts.js';
import { makingSection, verificationSection } from './shared.js';

export async function compressBody(report: CompressReport): Promise<Content[]> {
  const outcomes = limitOutcomes(report.limits);
  const met = outcomes.filter((outcome) => outcome.met).map(({ text }) => text);
  const safety = safetySentence(report);
  const { answers } = report;
  const original = report.states[0]!.quality;
  return [
    cardGrid(headlineCards(report)),
    safety === undefined ? undefined : html`<p class="sub outcome">${safety}</p>`,
    met.length === 0 ? undefined : html`<p class="sub outcome">${met.join(' ')}</p>`,
    ...outcomes.filter((outcome) => !outcome.met).map(({ text }) => notice(text)),
    answers && captioned('Classes', undefined, classTable(answers)),
    ...(await plotSections(plotsOf(report))),
    comparisonSection(report.before, report.after),
    captioned('Stages', STATES_CAPTION, stateTable(report)),
    captioned('Plan', PLAN_CAPTION, planTable({ plan: report.plan, measure: report.measure, original })),
    answers && captioned('Worst samples', WORST_CAPTION, worstTable(answers)),
    ...learnings(report).map((each) => captioned(each.title, recoverySentence(each), recoveryRows(each))),
    report.removed.length === 0
      ? undefined
      : captioned(
          'Branches and layers taken out',
          'Branches by the sum that they fed, whose skip stays; layers by the projection that stands for them.',
          {
            head: branchHead(report),
            rows: report.removed.map(branchCells),
          },
        ),
    captioned('Layers', undefined, { head: LAYERS_HEAD, rows: report.layers.map(layerCells) }),
    verificationSection(report),
    makingSection(report, [['method', report.method]]),
  ];
}

/** File size, latencies, the main metric and the agreement. */
function headlineCards({ before, after }: CompressReport): Card[] {
  const wanted = new Set([
    'file size',
    metricLabel('agreement'),
    ...(after.metric ? [metricLabel(after.metric.name)] : []),
  ]);
  const rows = comparisonRows(before, after).filter(({ label }) => wanted.has(label) || label.startsWith('latency'));
  return comparisonCards(rows).slice(0, 5);
}

function captioned(title: string, caption: string | undefined, table: TextTable): Content {
  return table.rows.length === 0 ? undefined : section(title, caption, textTable(table, ['name']));
}
