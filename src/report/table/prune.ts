/** The terminal table of `prune`. */
import {
  branchCells,
  branchHead,
  changedGroups,
  outcomesOf,
  pruningTitle,
  stepsCaption,
  stepTable,
  thinnedSteps,
  WIDTHS_HEAD,
  widthCells,
  widthsCaption,
} from '../pruning.js';
import { recoverySentence } from '../recovery.js';
import type { PruneReport } from '../report.js';
import { comparisonGrid, grid, heading, moreLine, nameGrid, wrapped } from './grid.js';
import type { Paint } from './grid.js';

/** Groups and branches that are listed; the others are counted. */
const ROWS = 16;

export function pruneLines(report: PruneReport, paint: Paint, columns: number): string[] {
  const recovery = recoverySentence(report);
  return [
    heading(pruningTitle(report), report.model, paint, columns),
    '',
    ...comparisonGrid(report.before, report.after, paint),
    ...stepLines(report, paint, columns),
    ...widthLines(report, paint, columns),
    ...branchLines(report, paint, columns),
    ...(recovery === undefined ? [] : ['', ...wrapped(recovery, columns)]),
    ...outcomesOf(report).flatMap(({ text, met }, i) => [
      ...(i === 0 ? [''] : []),
      ...wrapped(text, columns).map((line) => (met ? line : paint(line, 'red'))),
    ]),
  ];
}

function stepLines(report: PruneReport, paint: Paint, columns: number): string[] {
  if (report.steps.length === 0) return [];
  const shown = thinnedSteps(report);
  const { head, rows } = stepTable(report, shown, false);
  const align = head.map((title) => (title === '' ? 'l' : 'r')).join('');
  return [
    '',
    ...wrapped(stepsCaption(report), columns),
    ...grid(head, rows, align, paint),
    ...moreLine(report.steps.length - shown.length, ['step', 'steps'], columns),
  ];
}

function widthLines(report: PruneReport, paint: Paint, columns: number): string[] {
  if (report.groups.length === 0) return [];
  const shown = changedGroups(report, ROWS);
  const table = nameGrid(WIDTHS_HEAD, shown.map(widthCells), paint, columns, 'llrrr');
  return [
    '',
    ...wrapped(widthsCaption(report), columns),
    ...(shown.length === 0 ? [] : table),
    ...moreLine(
      changedGroups(report).length - shown.length,
      ['group, which lost less,', 'groups, which lost less,'],
      columns,
    ),
  ];
}

function branchLines(report: PruneReport, paint: Paint, columns: number): string[] {
  const { removed } = report;
  if (removed.length === 0) return [];
  return [
    '',
    ...nameGrid(branchHead(report), removed.slice(0, ROWS).map(branchCells), paint, columns),
    ...moreLine(removed.length - ROWS, ['branch', 'branches'], columns),
  ];
}
