/** The Markdown report of `distill`. */
import {
  CANDIDATES_CAPTION,
  candidatesTable,
  learnedFrom,
  mappingCaption,
  mappingTable,
  outcomeSentence,
} from '../distillation.js';
import type { DistillReport } from '../report.js';
import { TEACHER_AND_STUDENT } from '../summary.js';
import { endSentence, trainingTitle } from '../training.js';
import { fidelityParts } from './fidelity.js';
import { comparisonTable, epochParts, inline, settingsParts, table, titled } from './parts.js';

export function distillParts(report: DistillReport): string[] {
  const { head, rows } = mappingTable(report);
  const candidates = candidatesTable(report);
  return [
    `# ${inline(report.output)}`,
    inline(outcomeSentence(report)),
    inline(`${learnedFrom(report)}: ${trainingTitle(report)}. ${endSentence(report)}`),
    comparisonTable(report.before, report.after, TEACHER_AND_STUDENT),
    ...(report.fidelity === undefined ? [] : fidelityParts(report.fidelity)),
    ...epochParts(report),
    ...titled(
      'Choice of the student',
      candidates.rows.length,
      () =>
        `${CANDIDATES_CAPTION}\n\n${table(candidates.head, candidates.rows, `l${'r'.repeat(candidates.head.length - 2)}l`)}`,
    ),
    ...titled(
      'Layers',
      rows.length,
      () => `${mappingCaption(report)}\n\n${table(head, rows, `ll${'r'.repeat(head.length - 2)}`)}`,
    ),
    ...settingsParts(report),
  ];
}
