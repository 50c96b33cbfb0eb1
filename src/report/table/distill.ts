/** The terminal table of `distill`. */
import { candidatesTable, mappingTable } from '../distillation.js';
import { baseName, printable, truncateMiddle } from '../format.js';
import type { DistillReport } from '../report.js';
import { TEACHER_AND_STUDENT } from '../summary.js';
import { thinned } from '../thinning.js';
import { endSentence, trainingTitle } from '../training.js';
import { fidelityLines } from './fidelity.js';
import { comparisonGrid, grid, heading, moreLine, wrapped } from './grid.js';
import type { Paint } from './grid.js';

/** Pairs of layers that are listed; the others are counted. */
const ROWS = 16;

export function distillLines(report: DistillReport, paint: Paint, columns: number): string[] {
  const { student, teacher, method, fidelity } = report;
  return [
    heading(
      `${printable(method)}, ${trainingTitle(report)}`,
      `${baseName(student)} learned from ${baseName(teacher)}`,
      paint,
      columns,
    ),
    '',
    ...comparisonGrid(report.before, report.after, paint, TEACHER_AND_STUDENT),
    '',
    ...wrapped(endSentence(report), columns),
    ...(fidelity === undefined ? [] : ['', ...fidelityLines(fidelity, paint, columns)]),
    ...candidateLines(report, paint, columns),
    ...mappingLines(report, paint, columns),
  ];
}

/** Those that were tried, the chosen one first; the others are counted. */
function candidateLines(report: DistillReport, paint: Paint, columns: number): string[] {
  const all = report.candidates ?? [];
  const tried = all.filter(({ rounds, chosen }) => chosen || rounds.length > 0);
  if (tried.length === 0) return [];
  const { head, rows } = candidatesTable({ candidates: tried });
  const wanted = ['student', 'size', 'MACs', 'time', 'scores'];
  const kept = [...head.keys()].filter((i) => wanted.includes(head[i]!));
  const pick = (cells: readonly string[]): string[] =>
    kept.map((i) => truncateMiddle(printable(cells[i]!), Math.floor(columns / 2)));
  return [
    '',
    ...wrapped(`${rows[0]![0]!} was chosen of ${String(all.length)} students:`, columns),
    ...grid(pick(head), rows.map(pick), `l${'r'.repeat(kept.length - 1)}`, paint),
    ...moreLine(all.length - tried.length, ['candidate', 'candidates'], columns),
  ];
}

/** The two columns of names share what the numbers leave. */
function mappingLines(report: DistillReport, paint: Paint, columns: number): string[] {
  const { head, rows } = mappingTable(report);
  if (rows.length === 0) return [];
  const shown = thinned(rows, () => false, ROWS);
  const numbers = head.slice(2).map((title, i) => Math.max(title.length, ...shown.map((row) => row[i + 2].length)));
  const room = numbers.reduce((left, width) => left - width - 2, columns - 2);
  const cells = shown.map((row) =>
    row.map((cell, i) => (i < 2 ? truncateMiddle(printable(cell), Math.floor(room / 2)) : cell)),
  );
  return [
    '',
    ...grid(head, cells, `ll${'r'.repeat(numbers.length)}`, paint),
    ...moreLine(rows.length - shown.length, ['pair', 'pairs'], columns),
  ];
}
