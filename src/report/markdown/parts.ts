/** What the Markdown reports are made of: titles, pipe tables, escaped text, and the tables that many of them have. */
import { formatSetting, printable, settingLabel, significant } from '../format.js';
import type { Measurement, TrainReport } from '../report.js';
import { BEFORE_AND_AFTER, comparisonRows } from '../summary.js';
import type { Sides } from '../summary.js';
import { courseTable } from '../training.js';
import type { TrainedReport } from '../training.js';

/** What was measured of two models; one column where there is nothing to compare with. */
export function comparisonTable(
  before: Measurement | undefined,
  after: Measurement,
  sides: Sides = BEFORE_AND_AFTER,
): string {
  const rows = comparisonRows(before ?? {}, after, sides);
  if (before === undefined)
    return table(
      ['', 'measured'],
      rows.map((row) => [row.label, row.after]),
      'lr',
    );
  return table(
    ['', sides.before, sides.after, 'change'],
    rows.map((row) => [row.label, row.before, row.after, row.change]),
    'lrrl',
  );
}

/** The course of a training. */
export function epochParts(report: TrainedReport): string[] {
  const { head, rows, align } = courseTable(report);
  return titled('Epochs', rows.length, () => table(head, rows, align));
}

export function settingsParts({ settings = {} }: Pick<TrainReport, 'settings'>): string[] {
  const rows = Object.entries(settings).map(([key, value]) => [settingLabel(key), formatSetting(value)]);
  return titled('Settings', rows.length, () => table(['setting', 'value'], rows, 'll'));
}

export function titled(title: string, count: number, content: () => string): string[] {
  return count === 0 ? [] : [`## ${title}`, content()];
}

export function number(value: number | undefined): string | undefined {
  return value === undefined ? undefined : significant(value, 3);
}

/** A pipe table; `align` has one letter per column, l or r. */
export function table(
  head: readonly string[],
  rows: readonly (readonly (string | undefined)[])[],
  align: string,
): string {
  const line = (cells: readonly (string | undefined)[]): string =>
    `| ${cells.map((cell) => inline(cell ?? '')).join(' | ')} |`;
  const rule = `| ${[...align].map((letter) => (letter === 'r' ? '---:' : '---')).join(' | ')} |`;
  return [line(head), rule, ...rows.map(line)].join('\n');
}

/** Text of a model or a path that cannot become Markdown or HTML. */
export function inline(text: string): string {
  return printable(text).replace(/[\\`*_[\]<>|#]/g, (one) => `\\${one}`);
}
