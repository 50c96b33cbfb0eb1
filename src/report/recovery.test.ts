/** What the reports say about a recovery, in every medium. */
import { describe, expect, it } from 'vitest';
import { quantizeReport, recoverySummary } from '../testing/reports.js';
import { reportToHtml } from './html.js';
import { reportToMarkdown } from './markdown.js';
import { plotsOf, plotToSvg } from './plots.js';
import { recoveryRows, recoverySentence } from './recovery.js';
import { parseReport } from './report.js';
import { reportToTable } from './table.js';

const REPORT = quantizeReport({ recovery: recoverySummary() });
const SENTENCE =
  'Recovery, 300 updates in 3 min 20 s: divergence from the original on VAL 0.0437 nats, 97.88 % top-1 before, ' +
  '0.0200 nats, 98.80 % top-1 after.';

describe('a recovery', () => {
  it('is told in one sentence, also when it brought nothing or had no labels', () => {
    expect(recoverySentence(REPORT)).toBe(SENTENCE);
    expect(recoverySentence(quantizeReport({ recovery: recoverySummary({ bestStep: 0 }) }))).toContain(
      'no state was better on VAL than the rounded model',
    );
    const plain = recoverySummary({
      ...{ measure: 'relative-error', before: { divergence: 0.2 }, after: { divergence: 0.1 }, points: [] },
    });
    expect(recoverySentence(quantizeReport({ recovery: plain }))).toContain(
      'relative error against the original on VAL 0.200 before',
    );
    expect(recoverySentence(quantizeReport())).toBeUndefined();
  });

  it('has a row per evaluation, the rounded model first, and marks what was written', () => {
    const { head, rows } = recoveryRows(REPORT);
    expect(rows).toHaveLength(11);
    expect(rows.every((row) => row.length === head.length)).toBe(true);
    expect(rows[0]).toEqual(['0', '', '0.0437', '97.88 %', '', '']);
    expect(rows.filter((row) => row.at(-1) === 'written')).toEqual([rows[9]]);
    const kept = recoveryRows({ recovery: recoverySummary({ bestStep: 0 }) });
    expect(kept.rows[0]!.at(-1)).toBe('written');
  });

  it('is in the table, the Markdown, the page and the plots', async () => {
    const inOneLine = reportToTable(REPORT).replace(/\s+/g, ' ');
    expect(inOneLine).toContain(SENTENCE);
    expect(reportToTable(quantizeReport())).not.toContain('Recovery');
    const markdown = reportToMarkdown(REPORT);
    expect(markdown).toContain('## Recovery');
    expect(markdown).toMatch(/\| 270 \|.*\| written \|/);
    const page = await reportToHtml(REPORT);
    expect(page).toContain('id="recovery"');
    expect(page).not.toMatch(/NaN|undefined/);
    const plot = plotsOf(REPORT).find(({ id }) => id === 'recovery')!;
    const svg = await plotToSvg(plot, 978);
    expect(svg).toContain('>update 270: 98.80 %<');
    expect(svg.match(/stroke-dasharray="4,3"/g)).toHaveLength(2);
    expect(plotsOf(quantizeReport()).map(({ id }) => id)).not.toContain('recovery');
  });

  it('survives being written and read', () => {
    expect(parseReport(JSON.parse(JSON.stringify(REPORT)))).toEqual(REPORT);
  });
});
