/** What is said and drawn of a distillation, in every medium. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { distillationHistory, distillReport, flowPoints, layerMapping, top1 } from '../testing/reports.js';
import { learnedFrom, mappingCaption, mappingTable, outcomeSentence, placedLayers } from './distillation.js';
import { reportToHtml } from './html.js';
import { reportToMarkdown } from './markdown.js';
import { isMappingDrawn, plotsOf, plotToSvg } from './plots.js';
import type { DistillReport } from './report.js';
import { reportToTable } from './table.js';
import { timeTable } from './time.js';

const REPORT = distillReport();

async function svgOf(report: DistillReport, id: string, width = 978): Promise<string> {
  const plot = plotsOf(report).find((one) => one.id === id);
  expect(plot, id).toBeDefined();
  return await plotToSvg(plot!, width);
}

function countOf(text: string, pattern: RegExp): number {
  return (text.match(pattern) ?? []).length;
}

describe('the outcome', () => {
  it('is told in two sentences', () => {
    expect(learnedFrom(REPORT)).toBe('student.onnx learned from teacher.onnx by fad');
    expect(outcomeSentence(REPORT)).toBe(
      'The student is 2.00x smaller and 1.60x faster than the teacher. It keeps 98.2 % of its top-1 ' +
        '(91.73 % of 93.39 %) and gives the same class in 94.31 % of the samples.',
    );
  });

  it.each([
    [{ before: { bytes: 100 }, after: { bytes: 100 }, fidelity: undefined }, 'The student is as large as the teacher.'],
    [
      { before: { bytes: 100 }, after: { bytes: 150 } },
      'The student is 1.50x larger than the teacher. It gives the same class in 94.31 % of the samples.',
    ],
    [
      {
        before: { bytes: 10, metric: { ...top1(20), name: 'sqnrDb' } },
        after: { bytes: 5, metric: { ...top1(15), name: 'sqnrDb' } },
        fidelity: undefined,
      },
      'The student is 2.00x smaller than the teacher. It has 15.0 dB output SQNR (−5.0 dB).',
    ],
    [
      { before: { bytes: 10, metric: top1(0) }, after: { bytes: 5, metric: top1(0.1) }, fidelity: undefined },
      'The student is 2.00x smaller than the teacher. It has 10.00 % top-1 (+10.00 pp).',
    ],
    [
      {
        before: { bytes: 10, metric: { ...top1(1), name: 'agreement' } },
        after: { bytes: 5, metric: { ...top1(0.9), name: 'agreement' } },
        fidelity: undefined,
      },
      'The student is 2.00x smaller than the teacher.',
    ],
  ])('says no more than is known, %#', (overrides, sentence) => {
    expect(outcomeSentence(distillReport(overrides))).toBe(sentence);
  });

  it('compares latencies of one batch size', () => {
    const latency = (batch: number, medianMs: number) => ({ batch, medianMs, p90Ms: medianMs, provider: 'cpu' });
    const report = distillReport({
      before: { bytes: 10, latencies: [latency(1, 4), latency(8, 30)] },
      after: { bytes: 5, latencies: [latency(8, 10), latency(32, 40)] },
    });
    expect(outcomeSentence(report)).toContain('2.00x smaller and 3.00x faster than');
  });
});

describe('the layers', () => {
  it('have a row per pair with the flow of both, and only columns that are known', () => {
    expect(mappingTable(REPORT).head).toEqual(['student', 'teacher', 'CKA', 'weight', 'flow change', "teacher's"]);
    expect(mappingTable(REPORT).rows[1]).toEqual([
      ...['/block1/conv/Conv', '/block2/conv/Conv', '0.700', '0.0444', '0.833', '1.11'],
    ]);
    const bare = { mapping: [{ student: 'a', teacher: 'b', weight: 0 }] };
    expect(mappingTable(bare)).toEqual({ head: ['student', 'teacher', 'weight'], rows: [['a', 'b', '0']] });
    expect(mappingCaption(REPORT)).toContain('CKA');
    expect(mappingCaption(bare)).not.toContain('CKA');
    expect(mappingTable({}).rows).toEqual([]);
  });

  it('stand at the depths of the flow, or else evenly', () => {
    expect(placedLayers(REPORT).teacher).toHaveLength(17);
    expect(placedLayers(REPORT).student.map(({ depth }) => depth)).toEqual(
      [0, 1, 2, 3, 4, 5, 6, 7, 8].map((i) => i / 8),
    );
    const mapping = layerMapping(4, 3);
    const { student, teacher } = placedLayers({ mapping, flow: { student: flowPoints(2, 0), teacher: [] } });
    expect(student.map(({ depth }) => depth)).toEqual([0, 1 / 3, 2 / 3, 1]);
    expect(teacher.map(({ depth }) => depth)).toEqual([0, 0.5, 1]);
    expect(placedLayers({ mapping: layerMapping(1, 1) }).student).toEqual([{ name: '/block0/conv/Conv', depth: 0.5 }]);
  });

  it('are all in the Markdown, thinned in the terminal, drawn up to 40 and a table beyond', async () => {
    const of = (pairs: number): DistillReport => distillReport({ mapping: layerMapping(pairs, 110), flow: undefined });
    expect([1, 40, 41].map((pairs) => isMappingDrawn(of(pairs)))).toEqual([true, true, false]);
    expect(isMappingDrawn({})).toBe(false);
    expect(countOf(reportToMarkdown(of(60)), /^\| \/block/gm)).toBe(60);
    const text = reportToTable(of(60));
    const rows = countOf(text, /^\/block/gm);
    expect(rows).toBeLessThanOrEqual(16);
    expect(text).toContain(`${60 - rows} more pairs are in --json and --report.`);
    expect(text).toContain('/block59/conv/Conv');
    expect(reportToTable(of(9))).not.toContain('more pair');
    const [drawn, listed] = [await reportToHtml(of(40)), await reportToHtml(of(41))];
    expect(drawn).toContain('id="mapping"');
    expect(drawn).not.toContain('<td class="name">/block');
    expect(listed).not.toContain('id="mapping"');
    expect(countOf(listed, /<td class="name">\/block/g)).toBe(82);
  });
});

describe('the plots', () => {
  it('have a panel for the loss, each of its terms and the score, with tooltips where a term was there', async () => {
    const svg = await svgOf(REPORT, 'course');
    for (const title of [
      'training loss, mean over the epoch',
      'term: task',
      'term: answers',
      'term: flow',
      'top-1 on VAL, %',
    ])
      expect(svg).toContain(`>${title}<`);
    expect(countOf(svg, /<title>epoch \d+: task /g)).toBeGreaterThanOrEqual(30);
    expect(svg).not.toMatch(/<title>epoch [123]: flow /);
    expect(svg).toMatch(/<title>epoch 4: flow 0\.0/);
    expect(countOf(svg, /stroke-dasharray="4,3"/g)).toBe(5);
    expect(svg).toContain('>epoch 27: 91.97 %<');
    expect(svg).toContain('>0.001<');
  });

  it('need two evaluations for a course', () => {
    const ids = plotsOf(distillReport({ history: distillationHistory(1) })).map(({ id }) => id);
    expect(ids).toEqual(['flow-depth', 'mapping', 'latency']);
  });

  it('draw a term of zero or below on a linear axis', async () => {
    const history = distillationHistory(5).map((point, i) => ({
      ...point,
      terms: { answers: i === 2 ? 0 : 10 ** -i },
    }));
    const svg = await svgOf(distillReport({ history }), 'course');
    expect(svg).not.toMatch(/NaN|Infinity/);
    // Ticks of a linear axis from 0 to 1, not of a logarithmic one.
    expect(svg).toContain('>0.2<');
    expect(svg).not.toContain('>0.001<');
  });

  it('have a line with a point per layer for both models', async () => {
    const svg = await svgOf(REPORT, 'flow-depth');
    expect(countOf(svg, /<title>teacher, \/block\d+\/conv\/Conv: /g)).toBe(17);
    expect(countOf(svg, /<title>student, \/block\d+\/conv\/Conv: /g)).toBe(9);
    expect(plotsOf(distillReport({ flow: undefined })).map(({ id }) => id)).not.toContain('flow-depth');
  });

  it('join the pairs, the heavier the wider, with dashes where nothing is held', async () => {
    const svg = await svgOf(REPORT, 'mapping');
    const widths = [...svg.matchAll(/<line aria-label="[^"]*weight ([^"]+)"[^>]*stroke-width="([\d.]+)"/g)].map(
      ([, weight, thickness]) => [Number(weight), Number(thickness)],
    );
    expect(widths).toHaveLength(9);
    const largest = Math.max(...widths.map(([weight]) => weight));
    for (const [weight, thickness] of widths) expect(thickness).toBeCloseTo(0.8 + (4.2 * weight) / largest, 1);
    expect(countOf(svg, /stroke-dasharray="3,3"/g)).toBe(1);
    // Of the teacher's 17 layers 8 have no partner.
    expect(countOf(svg, /opacity="0\.35"/g)).toBe(8);
    for (const text of ['student', 'teacher', 'input', 'output', 'block1/conv']) expect(svg).toContain(`>${text}<`);
  });

  it('name layers without letting names touch, those of pairs first', async () => {
    const mapping = [{ student: '/block0/conv/Conv', teacher: '/block151/conv/Conv', weight: 1 }];
    const flow = { student: flowPoints(1, 0), teacher: flowPoints(200, 0) };
    const svg = await svgOf(distillReport({ mapping, flow }), 'mapping');
    const heights = [...svg.matchAll(/text-anchor="start" transform="translate\([\d.]+,([\d.]+)\)"[^>]*>block/g)].map(
      ([, y]) => Number(y),
    );
    heights.sort((a, b) => a - b);
    expect(heights.length).toBeGreaterThan(30);
    const gaps = heights.slice(1).map((y, i) => y - heights[i]);
    expect(Math.min(...gaps)).toBeGreaterThanOrEqual(10.5);
    expect(svg).toContain('>block151/conv<');
  });

  it('fit a phone and a desktop for any number of layers', { timeout: 30_000 }, async () => {
    for (const [student, teacher] of [
      [1, 1],
      [1, 200],
      [40, 3],
    ] as const) {
      const report = distillReport({
        mapping: layerMapping(student, teacher).map((pair) => ({ ...pair, weight: 0 })),
        flow: { student: flowPoints(student, 0.1), teacher: flowPoints(teacher, 0.2) },
      });
      for (const plot of plotsOf(report)) {
        for (const width of [340, 978]) {
          const svg = await plotToSvg(plot, width, false);
          const natural = Number(/ width="([\d.]+)"/.exec(svg)?.[1]);
          expect(natural, `${plot.id} at ${width}`).toBeLessThanOrEqual(width * 1.06);
          expect(natural, `${plot.id} at ${width}`).toBeGreaterThan(width * 0.9);
          expect(svg).not.toMatch(/NaN|Infinity/);
        }
      }
    }
  });
});

describe('the renderings', () => {
  it('put the answers first on the page', async () => {
    const page = await reportToHtml(REPORT);
    expect(page).toMatch(/file size<\/div>\s*<div class="value">500 kB<\/div>\s*<div class="note">teacher 1 MB <span/);
    expect(page).toMatch(/latency, batch 1<\/div>\s*<div class="value">1\.25 ms/);
    expect(page).toMatch(/top-1 on TEST<\/div>\s*<div class="value">91\.73 %/);
    expect(page).toMatch(/agreement on TEST<\/div>\s*<div class="value">94\.31 %/);
    expect(page).toMatch(/<p class="sub outcome">The student is 2\.00x smaller/);
    expect(page.indexOf('outcome">')).toBeLessThan(page.indexOf('<section'));
    for (const id of ['course', 'learning-rate', 'flow-depth', 'mapping', 'latency'])
      expect(page).toContain(`id="${id}"`);
  });

  it('leave out what was not measured', async () => {
    const bare = distillReport({
      ...{ before: { bytes: 9 }, after: { bytes: 5 }, history: [], mapping: undefined, flow: undefined },
      ...{ fidelity: undefined, settings: undefined, stages: undefined },
    });
    const page = await reportToHtml(bare);
    expect(page).not.toMatch(/<svg|NaN|undefined|Fidelity|Layers held|top-1 on TEST/);
    expect(reportToTable(bare)).not.toMatch(/fidelity|undefined|CKA/);
    expect(reportToMarkdown(bare)).not.toMatch(/## (Fidelity|Layers|Epochs)|undefined/);
  });

  it('show teacher and student, the end of the training, the fidelity and the pairs in the terminal', () => {
    const text = reportToTable(REPORT);
    expect(text).toMatch(/^fad, adamw, 30 epochs, seed 7 {2}student\.onnx learned from teacher\.onnx\n/);
    expect(text).toMatch(/\n +teacher +student +change\n/);
    expect(text).toMatch(/top-1 +93\.39 % +91\.73 % +−1\.66 pp/);
    expect(text).toContain('Stopped after 30 epochs; the weights of epoch 27 were written');
    expect(text).toMatch(/same class as the teacher +94\.31 %\n/);
    expect(text).toMatch(/\n\/block0\/conv\/Conv +\/block0\/conv\/Conv +0\.500 +0\.0222 +0\.800 +0\.800\n/);
  });

  it('tell the terms of every epoch in the Markdown', () => {
    const text = reportToMarkdown(REPORT);
    expect(text).toContain('| epoch | updates | loss | task | answers | flow | VAL top-1 | learning rate | time |  |');
    expect(text).toMatch(/\| 1 \| 100 \| 2\.300 \| 2\.10 \| 4\.00 \| {2}\| 42\.00 % \|/);
    expect(text).toMatch(/\| 27 \| 2,700 \|.*\| best \|/);
    expect(text).toContain('| file size | 1 MB | 500 kB | 2.00x smaller |');
  });
});

describe('the time', () => {
  it('adds up to the whole', () => {
    expect(timeTable(REPORT).rows).toEqual([
      ['read', '1.5 s', '0.5 %'],
      ['train', '4 min 15 s', '92.7 %'],
      ['measure', '12 s', '4.5 %'],
      ['everything else', '6.3 s', '2.3 %'],
    ]);
    const seconds = fc.double({ min: 0, max: 1e4, noNaN: true });
    fc.assert(
      fc.property(fc.array(seconds, { minLength: 1, maxLength: 8 }), seconds, (parts, whole) => {
        const stages = parts.map((part, i) => ({ name: `stage ${i}`, seconds: part }));
        const { rows } = timeTable(distillReport({ stages, seconds: whole }));
        if (Math.max(whole, ...parts) === 0) return;
        const sum = rows.reduce((total, [, , share]) => total + Number.parseFloat(share), 0);
        // Shares are rounded to 0.1 points, and a rest below half a point has no row.
        expect(Math.abs(sum - 100)).toBeLessThanOrEqual(0.06 * rows.length + 0.5);
      }),
    );
  });

  it('is that of the training and the rest where nobody took the stages', () => {
    expect(timeTable(distillReport({ stages: undefined })).rows).toEqual([
      ['training', '4 min 15 s', '92.7 %'],
      ['everything else', '20 s', '7.3 %'],
    ]);
    expect(reportToMarkdown(distillReport({ stages: undefined }))).toContain('| training | 4 min 15 s | 92.7 % |');
  });
});
