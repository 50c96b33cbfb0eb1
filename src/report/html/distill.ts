/** Body of the HTML report of `distill`. */
import { CANDIDATES_CAPTION, candidatesTable, mappingCaption, mappingTable, outcomeSentence } from '../distillation.js';
import { formatMetric, metricLabel } from '../format.js';
import { isMappingDrawn, plotsOf } from '../plots.js';
import type { DistillReport } from '../report.js';
import { comparisonRows, TEACHER_AND_STUDENT } from '../summary.js';
import { comparisonCards, comparisonSection } from './comparison.js';
import { fidelitySection } from './fidelity.js';
import { html } from './markup.js';
import type { Content } from './markup.js';
import { cardGrid, plotSections, section, textTable } from './parts.js';
import type { Card } from './parts.js';
import { makingSection } from './shared.js';
import { epochSection } from './train.js';

export async function distillBody(report: DistillReport): Promise<Content[]> {
  return [
    cardGrid(headlineCards(report)),
    html`<p class="sub outcome">${outcomeSentence(report)}</p>`,
    comparisonSection(report.before, report.after, TEACHER_AND_STUDENT),
    ...(await plotSections(plotsOf(report))),
    candidatesSection(report),
    mappingSection(report),
    report.fidelity && fidelitySection(report.fidelity),
    epochSection(report),
    makingSection(report, [
      ['method', report.method],
      ['teacher', report.teacher],
      ['student', report.student],
    ]),
  ];
}

/** File size, the latency of the smallest batch, the main metric, the agreement, and MACs (else parameters). */
function headlineCards({ before, after, fidelity }: DistillReport): Card[] {
  const all = comparisonRows(before, after, TEACHER_AND_STUDENT);
  const cost = before.macs === undefined || after.macs === undefined ? 'parameters' : 'MACs';
  const { metric } = after;
  const labelOf = (name: string): string => metricLabel(name, 'teacher');
  const row = (label: string | undefined, shown = label): Card[] =>
    comparisonCards(
      all.filter((one) => one.label === label).map((one) => ({ ...one, label: shown ?? one.label })),
      'teacher',
    );
  return [
    ...row('file size'),
    ...row(all.find(({ label }) => label.startsWith('latency'))?.label),
    ...(metric === undefined
      ? []
      : row(labelOf(metric.name), `${labelOf(metric.name)} on ${metric.split.toUpperCase()}`)),
    ...agreementCard(fidelity),
    ...row(cost),
  ];
}

function agreementCard(fidelity: DistillReport['fidelity']): Card[] {
  if (fidelity?.agreement === undefined) return [];
  const percent = (value: number): string => formatMetric({ name: 'agreement', value });
  const { split, agreement, agreementWhenRight: right } = fidelity;
  return [
    {
      label: `agreement on ${split.toUpperCase()}`,
      value: percent(agreement),
      note: html`with the teacher${right === undefined ? undefined : html`<br />${percent(right)} where it is right`}`,
    },
  ];
}

function candidatesSection(report: DistillReport): Content {
  const table = candidatesTable(report);
  if (table.rows.length === 0) return undefined;
  const kinds = table.head.map((head) => (head === 'student' ? 'name' : head === 'outcome' ? 'text' : 'number'));
  return section('Choice of the student', CANDIDATES_CAPTION, textTable(table, kinds));
}

/** A table of the mapping where it is too long to be drawn. */
function mappingSection(report: DistillReport): Content {
  if (isMappingDrawn(report)) return undefined;
  const table = mappingTable(report);
  return table.rows.length === 0
    ? undefined
    : section('Layers held against each other', mappingCaption(report), textTable(table, ['name', 'name']));
}
