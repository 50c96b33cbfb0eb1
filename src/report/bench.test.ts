import { describe, expect, it } from 'vitest';
import { benchReport } from '../testing/reports.js';
import { benchTable, benchTitle } from './bench.js';
import { reportToHtml } from './html.js';
import { reportToMarkdown } from './markdown.js';
import { plotsOf } from './plots.js';
import { parseReport } from './report.js';
import { reportToTable } from './table.js';

describe('the report of a comparison', () => {
  const report = benchReport();

  it('has a row per method and options, with what several seeds differ by', () => {
    const { head, rows, names } = benchTable(report);
    expect(head.slice(0, names)).toEqual(['model', 'reduce', 'method']);
    const cell = (row: number, column: string): string => rows[row]![head.indexOf(column)]!;
    expect(cell(0, 'top-1 after')).toBe('92.00 % ±1.00');
    expect(cell(1, 'top-1 after')).toBe('88.00 %');
    expect(cell(0, 'smaller')).toBe('2.00x');
    expect(cell(0, 'time left')).toBe('55.0 % ±10.0');
    // Not measured: empty, not zero.
    expect(cell(1, 'time left')).toBe('');
  });

  it('leaves out columns that nothing is known of', () => {
    const [, second] = report.rows;
    expect(benchTable({ rows: [second!] }).head).not.toContain('time left');
    expect(benchTable({ rows: [{ ...second!, options: {} }] }).head[1]).toBe('method');
  });

  it('is shown in every medium', async () => {
    expect(parseReport(JSON.parse(JSON.stringify(report)))).toEqual(report);
    for (const text of [reportToTable(report), reportToMarkdown(report), await reportToHtml(report)]) {
      expect(text).toContain(benchTitle(report));
      expect(text).toContain('idap');
      expect(text).toContain('92.00 %');
    }
    expect(plotsOf(report)).toHaveLength(1);
  });
});
