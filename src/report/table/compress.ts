/** The terminal table of `compress`, and the plan that it shows before the long work. */
import {
  classTable,
  compressionTitle,
  learnings,
  limitOutcomes,
  PLAN_CAPTION,
  planTable,
  safetySentence,
  STATES_CAPTION,
  stateTable,
} from '../compressing.js';
import type { ShownPlan } from '../compressing.js';
import type { TextTable } from '../pruning.js';
import { recoverySentence } from '../recovery.js';
import type { CompressReport } from '../report.js';
import { widthGroups } from '../summary.js';
import { formatBytes, formatCount, formatWidth } from '../format.js';
import { comparisonGrid, grid, heading, nameGrid, painter, wrapped } from './grid.js';
import type { Paint } from './grid.js';

/** Rows of the plan, and classes, that are listed. */
const ROWS = 12;

export function compressLines(report: CompressReport, paint: Paint, columns: number): string[] {
  const original = report.states[0]!.quality;
  const safety = safetySentence(report);
  const { answers } = report;
  return [
    heading(compressionTitle(report), report.model, paint, columns),
    '',
    ...comparisonGrid(report.before, report.after, paint),
    '',
    ...planText({ plan: report.plan, measure: report.measure, original }, paint),
    '',
    STATES_CAPTION,
    ...textGrid(stateTable(report), paint),
    '',
    ...widthLines(report, paint),
    ...(answers === undefined ? [] : ['', ...classLines(answers, paint, columns)]),
    ...learnings(report).flatMap((each) => ['', ...wrapped(`${each.title}. ${recoverySentence(each) ?? ''}`, columns)]),
    ...(safety === undefined ? [] : ['', ...wrapped(safety, columns)]),
    ...limitOutcomes(report.limits).flatMap(({ text, met }, i) => [
      ...(i === 0 ? [''] : []),
      ...wrapped(text, columns).map((line) => (met ? line : paint(line, 'red'))),
    ]),
  ];
}

/** The plan for people who wait, without colours. */
export function planLines(plan: ShownPlan): string[] {
  return planText(plan, painter(false));
}

function planText(plan: ShownPlan, paint: Paint): string[] {
  return [PLAN_CAPTION, ...textGrid(planTable(plan, ROWS), paint)];
}

function widthLines({ layers }: CompressReport, paint: Paint): string[] {
  const stored = layers.flatMap(({ bits, execution, bytes, params, ...layer }) =>
    bits === undefined || execution === undefined
      ? []
      : [{ ...layer, bits, execution, bytes: bytes.after, params: params.after, macs: undefined }],
  );
  const rows = widthGroups(stored).map((group) => [
    formatWidth(group),
    group.execution,
    String(group.layers),
    group.params === undefined ? '' : formatCount(group.params),
    formatBytes(group.bytes),
  ]);
  return grid(['bits', 'execution', 'layers', 'weights', 'bytes'], rows, 'rlrrr', paint);
}

function classLines(answers: NonNullable<CompressReport['answers']>, paint: Paint, columns: number): string[] {
  const { head, rows } = classTable(answers, ROWS);
  const left = answers.classes.length - rows.length;
  return [
    ...nameGrid(head, rows, paint, columns),
    ...(left > 0
      ? wrapped(`${left.toLocaleString('en-US')} more classes, which agree more, are in --json and --report.`, columns)
      : []),
  ];
}

function textGrid({ head, rows }: TextTable, paint: Paint): string[] {
  const align = head.map((title, i) => (title === '' || i === 0 ? 'l' : 'r')).join('');
  return grid(head, rows, align, paint);
}
