/** The rows of a fidelity: what was measured, with its unit, and nothing else. */
import { describe, expect, it } from 'vitest';
import { fidelityOf } from '../testing/reports.js';
import { fidelityCaption, fidelityRows } from './fidelity.js';
import { fidelitySection } from './html/fidelity.js';
import { fidelityParts } from './markdown/fidelity.js';
import type { Fidelity } from './report.js';
import { fidelitySchema } from './report.js';
import { fidelityLines } from './table/fidelity.js';

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
