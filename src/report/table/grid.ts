/** What the terminal tables are made of: colours, headings, wrapped sentences, grids. */
import CliTable from 'cli-table3';
import { printable, truncateMiddle } from '../format.js';
import type { Measurement } from '../report.js';
import { BEFORE_AND_AFTER, comparisonRows } from '../summary.js';
import type { Sides, Verdict } from '../summary.js';

export type Paint = (text: string, style: 'bold' | 'dim' | 'green' | 'red' | 'yellow') => string;
const ANSI = { bold: [1, 22], dim: [2, 22], green: [32, 39], red: [31, 39], yellow: [33, 39] } as const;

/** Codes around text, or nothing. */
export function painter(colour: boolean): Paint {
  return (text, style) => (colour ? `\u001b[${ANSI[style][0]}m${text}\u001b[${ANSI[style][1]}m` : text);
}

export function heading(title: string, subject: string, paint: Paint, columns: number): string {
  const room = Math.max(10, columns - title.length - 2);
  return `${paint(title, 'bold')}  ${paint(truncateMiddle(printable(subject), room), 'dim')}`.trimEnd();
}

/** Lines of at most `columns` characters, broken at spaces. */
export function wrapped(text: string, columns: number): string[] {
  const lines = [''];
  for (const word of text.split(' ')) {
    const line = lines[lines.length - 1];
    if (line !== '' && line.length + 1 + word.length > columns) lines.push(word);
    else lines[lines.length - 1] = line === '' ? word : `${line} ${word}`;
  }
  return lines;
}

export function fit(line: string, columns: number, invisible: number): string {
  return line.length <= columns + invisible ? line : `${line.slice(0, columns + invisible - 1)}…`;
}

function painted(text: string, verdict: Verdict | undefined, paint: Paint): string {
  if (verdict === 'better') return paint(text, 'green');
  return verdict === 'worse' ? paint(text, 'red') : text;
}

/** A table without rules: two spaces between columns, the head dimmed. `align` has one letter per column, l or r. */
export function grid(head: readonly string[], rows: readonly string[][], align: string, paint: Paint): string[] {
  const none = {
    ...{ top: '', 'top-mid': '', 'top-left': '', 'top-right': '', bottom: '', 'bottom-mid': '', 'bottom-left': '' },
    ...{
      'bottom-right': '',
      left: '',
      'left-mid': '',
      mid: '',
      'mid-mid': '',
      right: '',
      'right-mid': '',
      middle: '  ',
    },
  };
  const table = new CliTable({
    chars: none,
    style: { 'padding-left': 0, 'padding-right': 0, head: [], border: [] },
    colAligns: [...align].map((letter) => (letter === 'r' ? 'right' : 'left')),
  });
  table.push(
    head.map((cell) => paint(cell, 'dim')),
    ...rows,
  );
  return table
    .toString()
    .split('\n')
    .map((line) => line.trimEnd());
}

/** A grid whose first column is a name that shrinks (in the middle) and whose last text column is cut until the table fits. */
export function nameGrid(
  head: readonly string[],
  rows: readonly string[][],
  paint: Paint,
  columns: number,
  align?: string,
): string[] {
  const clean = rows.map((row) => row.map(printable));
  const gaps = 2 * (head.length - 1);
  const widest = (column: number): number => Math.max(head[column].length, ...clean.map((row) => row[column].length));
  const others = head.slice(1).reduce((sum, _, i) => sum + widest(i + 1), 0);
  const nameWidth = Math.min(Math.max(columns - gaps - others, 16), widest(0));
  const lastRoom = columns - gaps - nameWidth - (others - widest(head.length - 1));
  const fitted = clean.map((row) =>
    row.map((cell, i) => {
      if (i === 0) return truncateMiddle(cell, nameWidth);
      return i === row.length - 1 ? truncateMiddle(cell, Math.max(8, lastRoom)) : cell;
    }),
  );
  return grid(head, fitted, align ?? `l${'r'.repeat(head.length - 1)}`, paint);
}

/** What was measured of two models; one column where there is nothing to compare with. */
export function comparisonGrid(
  before: Measurement | undefined,
  after: Measurement,
  paint: Paint,
  sides: Sides = BEFORE_AND_AFTER,
): string[] {
  const rows = comparisonRows(before ?? {}, after, sides);
  if (before === undefined)
    return grid(
      ['', 'measured'],
      rows.map((row) => [row.label, row.after ?? '']),
      'lr',
      paint,
    );
  const cells = rows.map((row) => [
    row.label,
    row.before ?? '',
    row.after ?? '',
    painted(row.change ?? '', row.verdict, paint),
  ]);
  return grid(['', sides.before, sides.after, 'change'], cells, 'lrrl', paint);
}

/**
 * Says where the rows are that a table does not show.
 * @param words for one and for several
 */
export function moreLine(count: number, [one, several]: readonly [string, string], columns: number): string[] {
  if (count <= 0) return [];
  const what = count === 1 ? `1 more ${one} is` : `${count.toLocaleString('en-US')} more ${several} are`;
  return wrapped(`${what} in --json and --report.`, columns);
}
