/** The rows of a fidelity: what was measured, with its unit, and nothing else. */
import { describe, expect, it } from 'vitest';
import { evaluateReport, fidelityOf } from '../testing/reports.js';
import { fidelitiesOf, fidelityCaption, fidelityRows } from './fidelity.js';
import { reportToHtml } from './html.js';
import { fidelitySection } from './html/fidelity.js';
import { reportToMarkdown } from './markdown.js';
import { fidelityParts } from './markdown/fidelity.js';
import type { Fidelity } from './report.js';
import { evaluateReportSchema, fidelitySchema } from './report.js';
import { reportToTable } from './table.js';
import { fidelityLines } from './table/fidelity.js';

/** Two files, the second of which was held against a teacher whose name is trouble. */
function compared() {
  const { files, ...report } = evaluateReport();
  const [first, second] = files;
  return { ...report, teacher: 'models/<b>|teacher\u001b.onnx', files: [first, { ...second, fidelity: fidelityOf() }] };
}

describe('evaluate with a teacher', () => {
  it('has a section for each file that was held against it, in every rendering', async () => {
    const report = evaluateReportSchema.parse(compared());
    expect(fidelitiesOf(report)).toEqual([
      { title: expect.stringContaining('Fidelity of out.onnx to <b>') as string, fidelity: fidelityOf() },
    ]);
    const table = reportToTable(report);
    expect(table).toContain('Fidelity of out.onnx to <b>|teacher .onnx');
    expect(table).toMatch(/same class as the teacher +94.31 %/);
    const markdown = reportToMarkdown(report);
    expect(markdown).toContain('## Fidelity of out.onnx to \\<b\\>\\|teacher .onnx');
    expect(markdown).toContain('| KL divergence | 0.0812 nats |');
    const page = await reportToHtml(report);
    expect(page).toContain('Fidelity of out.onnx to &lt;b&gt;|teacher');
    expect(page).toContain('0.0812 nats');
    for (const text of [table, markdown, page]) expect(text.match(/Fidelity of/g)).toHaveLength(1);
  });

  it('has none without a teacher', async () => {
    expect(fidelitiesOf(evaluateReport())).toEqual([]);
    for (const text of [reportToTable(evaluateReport()), await reportToHtml(evaluateReport())])
      expect(text).not.toMatch(/fidelity|teacher/i);
  });
});

const BARE: Fidelity = { split: 'val', samples: 3, measure: 'relative-error', divergence: 0.25 };

describe('a fidelity', () => {
  it('has a row for each figure, those of both models with the teacher beside', () => {
    const rows = fidelityRows(fidelitySchema.parse(fidelityOf()));
    expect(rows.map(({ label, value, teacher }) => [label, value, teacher])).toEqual([
      ['same class as the teacher', '94.31 %', undefined],
      ['same class where the teacher is right', '96.12 %', undefined],
      ['equal confidence', '98.40 %', undefined],
      ['KL divergence', '0.0812 nats', undefined],
      ['CKA of the last features', '0.874', undefined],
      ['information kept', '-0.012', undefined],
      ['last features', '32', '64'],
      ['effective rank', '11.3', '14.2'],
      ['top 10 directions', '96.2 %', '93.7 %'],
      ['diversity', '1.17', '1.21'],
      ['separability', '2.87', '3.41'],
    ]);
    for (const { explanation } of rows) expect(explanation).toMatch(/^.{10,140}\.$/);
  });

  it('leaves out what was not measured', () => {
    expect(fidelityRows(BARE)).toMatchObject([{ label: 'relative error', value: '0.250' }]);
    const { geometry } = fidelityOf();
    const unlabelled = { teacher: geometry!.teacher, student: { ...geometry!.student, separability: undefined } };
    const labels = fidelityRows(fidelityOf({ geometry: unlabelled })).map(({ label }) => label);
    expect(labels).toContain('diversity');
    expect(labels).not.toContain('separability');
  });

  it('says on how many samples', () => {
    expect(fidelityCaption(fidelityOf())).toBe('On 10,000 samples of TEST; values inside the models on 512 of them.');
    expect(fidelityCaption(BARE)).toBe('On 3 samples of VAL.');
  });

  it('is a grid, a Markdown table and a section, each with every row', () => {
    const lines = fidelityLines(fidelityOf(), (text) => text, 60);
    const [markdownTitle, markdown] = fidelityParts(fidelityOf(), 'Of b.onnx');
    const { markup } = fidelitySection(fidelityOf(), 'Of <b>');
    expect(markdownTitle).toBe('## Of b.onnx');
    expect(markup).toContain('<h2>Of &lt;b&gt;</h2>');
    for (const { label, value, teacher = '', explanation } of fidelityRows(fidelityOf())) {
      expect(lines.map((line) => line.split(/ {2,}/))).toContainEqual([label, value, ...(teacher ? [teacher] : [])]);
      expect(markdown).toContain(`| ${label} | ${value} | ${teacher} | ${explanation} |`);
      expect(markup.replaceAll('&#39;', "'")).toContain(`${label}<small>${explanation}</small>`);
    }
    for (const line of lines) expect(line.length).toBeLessThanOrEqual(60);
    expect(fidelityParts(BARE)[1]).toContain('On 3 samples of VAL.');
  });
});
