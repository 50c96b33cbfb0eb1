/** The choice of a student in every medium. */
import { describe, expect, it } from 'vitest';
import { distillReport } from '../testing/reports.js';
import { candidatesTable } from './distillation.js';
import { reportToHtml } from './html.js';
import { reportToMarkdown } from './markdown.js';
import { distillReportSchema, type CandidateRound, type ProposedCandidate } from './report.js';
import { reportToTable } from './table.js';

const round = (steps: number, score: number): CandidateRound => ({
  ...{ steps, alignment: 0.25, cka: 0.5, quality: 0.8 },
  score,
});
const candidate = (name: string, more: Partial<ProposedCandidate>): ProposedCandidate => ({
  ...{ name, bytes: 312_000, macs: 12_400_000, ms: 0.4567, rounds: [], chosen: false, ...more },
});
const CANDIDATES = [
  candidate('resnet8', { rounds: [round(50, 0.61)] }),
  candidate('resnet56', { refused: '3.4 MB where 400 kB are allowed', ms: undefined }),
  candidate('lenet5 <b>', { rounds: [round(50, 0.6), round(100, 0.7012)] }),
  candidate('resnet14, width 0.5', { rounds: [round(50, 0.64), round(100, 0.7)], chosen: true }),
];
const report = distillReport({ candidates: CANDIDATES });

describe('candidates', () => {
  it('stand in the order of how far they came, the chosen one first', () => {
    const { head, rows } = candidatesTable(report);
    expect(head).toEqual(['student', 'size', 'MACs', 'time', 'steps', '1 - D', 'CKA', 'VAL', 'scores', 'outcome']);
    expect(rows.map(([name]) => name)).toEqual(['resnet14, width 0.5', 'lenet5 <b>', 'resnet8', 'resnet56']);
    expect(rows[1]!.slice(1)).toEqual([
      ...['312 kB', '12.4 M', '0.457 ms', '100', '0.750', '0.500', '0.800', '0.600 0.701'],
      'left after round 2',
    ]);
    expect(rows[3]!.slice(3)).toEqual(['', '', '', '', '', '', '3.4 MB where 400 kB are allowed']);
  });

  it('leave out what nothing is known of', () => {
    const bare = CANDIDATES.map(({ name, bytes, chosen }) => ({ name, bytes, chosen, rounds: [], refused: 'no' }));
    expect(candidatesTable({ candidates: bare }).head).toEqual(['student', 'size', 'outcome']);
    expect(candidatesTable({})).toEqual({ head: [], rows: [] });
  });

  it('are in the report of every medium, escaped', async () => {
    expect(distillReportSchema.parse(JSON.parse(JSON.stringify(report))).candidates).toEqual(
      JSON.parse(JSON.stringify(CANDIDATES)),
    );
    const markdown = reportToMarkdown(report);
    expect(markdown).toMatch(/## Choice of the student\n\nStudents that were considered/);
    expect(markdown).toContain('| resnet14, width 0.5 | 312 kB | 12.4 M |');
    const html = await reportToHtml(report);
    expect(html).toContain('Choice of the student');
    expect(html).toContain('lenet5 &lt;b&gt;');
    expect(html).not.toContain('lenet5 <b>');
    const table = reportToTable(report, { columns: 80, colour: false });
    expect(table).toContain('resnet14, width 0.5 was chosen of 4 students:');
    expect(table).toContain('1 more candidate is in --json and --report.');
    expect(Math.max(...table.split('\n').map((line) => line.length))).toBeLessThanOrEqual(80);
    expect(reportToMarkdown(distillReport())).not.toContain('Choice of the student');
    expect(await reportToHtml(distillReport())).not.toContain('Choice of the student');
  });
});
