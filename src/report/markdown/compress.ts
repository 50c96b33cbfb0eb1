/** The Markdown report of `compress`. */
import {
  classTable,
  compressionTitle,
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
import { branchCells, branchHead } from '../pruning.js';
import type { TextTable } from '../pruning.js';
import { recoveryRows, recoverySentence } from '../recovery.js';
import type { CompressReport } from '../report.js';
import { comparisonTable, inline, settingsParts, table, titled } from './parts.js';

export function compressParts(report: CompressReport): string[] {
  const outcomes = limitOutcomes(report.limits).map(({ text }) => ` ${inline(text)}`);
  const safety = safetySentence(report);
  const { answers } = report;
  const original = report.states[0]!.quality;
  return [
    `# ${inline(report.output)}`,
    `${inline(report.model)} compressed with ${inline(compressionTitle(report))}.${outcomes.join('')}`,
    ...(safety === undefined ? [] : [inline(safety)]),
    comparisonTable(report.before, report.after),
    ...captioned('Stages', STATES_CAPTION, stateTable(report)),
    ...captioned('Plan', PLAN_CAPTION, planTable({ plan: report.plan, measure: report.measure, original })),
    ...(answers === undefined ? [] : captioned('Classes', '', classTable(answers))),
    ...(answers === undefined ? [] : captioned('Worst samples', WORST_CAPTION, worstTable(answers))),
    ...learnings(report).flatMap((each) => captioned(each.title, recoverySentence(each) ?? '', recoveryRows(each))),
    ...titled('Branches and layers taken out', report.removed.length, () =>
      table(branchHead(report), report.removed.map(branchCells), 'lrrrr'),
    ),
    ...titled('Layers', report.layers.length, () => table(LAYERS_HEAD, report.layers.map(layerCells), 'llrrrlr')),
    ...settingsParts(report),
  ];
}

function captioned(title: string, caption: string, { head, rows }: TextTable): string[] {
  const align = head.map((name, i) => (i === 0 || name === '' ? 'l' : 'r')).join('');
  const text = table(head, rows, align);
  return titled(title, rows.length, () => (caption === '' ? text : `${inline(caption)}\n\n${text}`));
}
