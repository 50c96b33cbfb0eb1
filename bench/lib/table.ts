/** Plain Markdown tables, padded so that they read well in a terminal too. */

export type Row = readonly string[];

/** A table with a header; columns named in `left` (by index) are aligned left, all others right. */
export function markdownTable(header: Row, rows: readonly Row[], left: readonly number[] = [0]): string {
  const cells = [header, ...rows].map((row) => row.map((cell) => cell.replace(/\|/g, '\\|').replace(/\n/g, ' ')));
  const widths = header.map((_, column) => Math.max(3, ...cells.map((row) => [...(row[column] ?? '')].length)));
  const line = (row: Row): string =>
    `| ${widths.map((width, column) => padded(row[column] ?? '', width, left.includes(column))).join(' | ')} |`;
  const rule = `| ${widths.map((width, column) => (left.includes(column) ? '-'.repeat(width) : `${'-'.repeat(width - 1)}:`)).join(' | ')} |`;
  return [line(cells[0]), rule, ...cells.slice(1).map(line)].join('\n');
}

function padded(text: string, width: number, left: boolean): string {
  const space = ' '.repeat(width - [...text].length);
  return left ? text + space : space + text;
}

/** Replaces what stands between `<!-- NAME:begin -->` and `<!-- NAME:end -->`. @throws Error when the marks are not there */
export function replaceBlock(text: string, name: string, block: string): string {
  const begin = `<!-- ${name}:begin -->`;
  const end = `<!-- ${name}:end -->`;
  const from = text.indexOf(begin);
  const to = text.indexOf(end);
  if (from < 0 || to < from) throw new Error(`There are no lines ${begin} and ${end} to write between.`);
  return `${text.slice(0, from + begin.length)}\n\n${block}\n\n${text.slice(to)}`;
}

/** Median of the values; NaN of none. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}
