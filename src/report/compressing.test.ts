/** What the reports say about a compression, in every medium. */
import { describe, expect, it } from 'vitest';
import { compressReport } from '../testing/reports.js';
import { classTable, limitOutcomes, planTable, safetySentence, stateTable, worstTable } from './compressing.js';
import { reportToHtml } from './html.js';
import { reportToMarkdown } from './markdown.js';
import { plotsOf, plotToSvg } from './plots.js';
import { parseReport } from './report.js';
import { reportToTable } from './table.js';

const REPORT = compressReport();
const ORIGINAL = REPORT.states[0]!.quality;
/** A model without class scores, of which only the divergence is known. */
const BARE = compressReport({
  ...{ measure: 'relative-error', answers: undefined, learning: undefined, recovery: undefined },
  plan: REPORT.plan.map((one) => ({ ...one, quality: { divergence: one.quality.divergence }, speedup: undefined })),
  states: REPORT.states.map((one) => ({ ...one, quality: { divergence: one.quality.divergence } })),
});

describe('a compress report', () => {
  it('is read back as it was', () => {
    expect(parseReport(JSON.parse(JSON.stringify(REPORT)))).toEqual(JSON.parse(JSON.stringify(REPORT)));
  });

  it('says of every limit whether it is kept to', () => {
    expect(limitOutcomes(REPORT.limits).map(({ text }) => text)).toEqual([
      'Size met: 62 kB, at most 62.5 kB asked for.',
      'Speed met: 1.71x as fast at batch 32, 1.50x asked for.',
      'Drop kept to: top-1 on VAL fell by 0.40 pp, 1.00 pp allowed.',
    ]);
    const drop = { metric: 'top1', requested: 0.01, achieved: -0.002, met: true };
    expect(limitOutcomes({ drop })[0]!.text).toContain('rose by 0.20 pp');
    const missed = limitOutcomes({ size: { ...REPORT.limits.size!, met: false } });
    expect(missed).toEqual([{ met: false, text: expect.stringContaining('Size NOT met') as string }]);
  });

  it('paints red and notes what is not met', async () => {
    const missed = compressReport({ limits: { size: { ...REPORT.limits.size!, met: false } } });
    expect(reportToTable(missed, { colour: true })).toMatch(/31mSize NOT met/);
    expect(reportToTable(REPORT, { colour: true })).not.toMatch(/31mSize/);
    expect(await reportToHtml(missed)).toContain('class="notice"');
    expect(await reportToHtml(REPORT)).not.toContain('class="notice"');
  });

  it('answers on the first screen how often the model answers the same, and where least often', async () => {
    // 600 x 0.99 + 400 x 0.88 of 1000.
    const sentence =
      'It gives the class of the original in 94.60 % of 1,000 samples of TEST; least often where that is shirt: 88.00 % of 400.';
    expect(safetySentence(REPORT)).toBe(sentence);
    const page = await reportToHtml(REPORT);
    expect(page.indexOf('94.60 %')).toBeLessThan(page.indexOf('<section'));
    for (const text of [reportToTable(REPORT), reportToMarkdown(REPORT)])
      expect(text.replace(/\s+/g, ' ')).toContain(sentence);
  });

  it('lists the planned models, with no column for what was not measured', () => {
    const { head, rows } = planTable({ plan: REPORT.plan, measure: 'kl', original: ORIGINAL });
    expect(head).toEqual(['cut', 'params', 'MACs', 'bits', 'file size', 'speed', 'VAL KL', 'top1', '']);
    expect(rows[0]!.at(0)).toBe('nothing');
    expect(rows.map((row) => row.at(-1))).toEqual(['', 'chosen', 'fits']);
    const bare = planTable({ plan: BARE.plan, measure: BARE.measure, original: { divergence: 0 } });
    expect(bare.head).toEqual(['cut', 'params', 'MACs', 'bits', 'file size', 'VAL error', '']);
  });

  it('keeps the chosen model in a short plan', () => {
    const plan = Array.from({ length: 40 }, (_, i) => ({ ...REPORT.plan[0]!, rung: i, chosen: i === 17 }));
    const { rows } = planTable({ plan, measure: 'kl', original: ORIGINAL }, 12);
    expect(rows.length).toBeLessThanOrEqual(12);
    expect(rows.some((row) => row.includes('chosen'))).toBe(true);
  });

  it('lists the model after every stage', () => {
    const { head, rows } = stateTable(REPORT);
    expect(head).toEqual(['stage', 'file size', 'KL', 'top-1', 'agreement', 'updates']);
    expect(rows.map(([name]) => name)).toEqual(['original', 'cut and fitted', 'learned', 'quantized', 'learned again']);
    expect(stateTable(BARE).head).toEqual(['stage', 'file size', 'error', 'updates']);
  });

  it('lists classes, those that agree least where there are many, and the worst samples with both answers', () => {
    const answers = REPORT.answers!;
    expect(classTable(answers).rows).toEqual([
      ['class 0', '600', '99.00 %', '590', '94.00 %', '93.50 %'],
      ['shirt', '400', '88.00 %', '410', '90.00 %', '87.00 %'],
    ]);
    expect(classTable(answers, 1).rows.map(([name]) => name)).toEqual(['shirt']);
    const unlabelled = { ...answers, classes: answers.classes.map((one) => ({ ...one, labelled: undefined })) };
    expect(classTable(unlabelled).head).toEqual(['class', 'answers of the original', 'agreement']);
    expect(worstTable(answers).rows).toEqual([['1,234', 'shirt', 'shirt (98 %)', 'class 0 (71 %)', '4.20']]);
  });

  it('draws quality against bytes along the stages, and nothing where no share is known', async () => {
    const plot = plotsOf(REPORT).find(({ id }) => id === 'states')!;
    const svg = await plotToSvg(plot, 460);
    for (const name of ['cut and fitted', 'quantized', 'learned again']) expect(svg).toContain(name);
    expect(svg).not.toMatch(/NaN|undefined/);
    expect(plotsOf(BARE).map(({ id }) => id)).not.toContain('states');
  });

  it('says what it can of a model of which only the divergence is known', async () => {
    for (const text of [reportToTable(BARE), reportToMarkdown(BARE), await reportToHtml(BARE)]) {
      expect(text).not.toMatch(/NaN|undefined|\[object/);
      expect(text).not.toContain('class of the original');
    }
  });
});
