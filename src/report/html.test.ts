/** The HTML report stands alone, cannot be broken by names, and draws only what was measured. */
import { describe, expect, it } from 'vitest';
import {
  compressReport,
  distillReport,
  evaluateReport,
  inspectReport,
  profileReport,
  pruneReport,
  quantizeReport,
  quantizedLayers,
  trainingHistory,
  trainReport,
} from '../testing/reports.js';
import { reportToHtml } from './html.js';
import { reportToMarkdown } from './markdown.js';

/** Everything that would load or run something. */
const OUTSIDE = /https?:|<script|<link|<img|<iframe|\ssrc=|@import|url\((?!#)|\son\w+=/i;
const EVIL = `"><script>alert(1)</script><img src=x onerror=alert(1)>`;

describe('reportToHtml', () => {
  it.each([
    quantizeReport(),
    pruneReport(),
    compressReport(),
    evaluateReport(),
    profileReport(),
    inspectReport(),
    trainReport(),
    distillReport(),
  ])('$command is self-contained', async (report) => {
    const page = await reportToHtml(report);
    expect(page).toMatch(/^<!doctype html>/);
    expect(page).toContain('prefers-color-scheme: dark');
    expect(page).toContain('name="viewport"');
    expect(page).toContain('<svg ');
    expect(page.replaceAll('&#39;', "'")).not.toMatch(OUTSIDE);
    expect(page).not.toMatch(/NaN|undefined|\[object/);
  });

  it('escapes names, paths and messages everywhere', async () => {
    const layers = quantizedLayers(2).map((layer) => ({ ...layer, name: EVIL, note: EVIL }));
    const report = quantizeReport({
      layers,
      model: EVIL,
      output: EVIL,
      method: EVIL,
      warnings: [EVIL],
      commandLine: EVIL,
      settings: { [EVIL]: EVIL },
    });
    const page = await reportToHtml(report);
    expect(page).not.toMatch(/<script|<img/);
    expect(page).toContain('&lt;script&gt;');
  });

  it('escapes what a distillation is told by names of layers, terms and models', async () => {
    const { mapping, flow, history } = distillReport();
    const report = distillReport({
      ...{ teacher: EVIL, student: EVIL, method: EVIL, stages: [{ name: EVIL, seconds: 1 }] },
      mapping: mapping!.map((pair) => ({ ...pair, student: EVIL, teacher: EVIL })),
      flow: { ...flow!, student: [{ name: EVIL, depth: 0.5, change: 1 }] },
      history: history.map((point) => ({ ...point, terms: { [EVIL]: 1 } })),
    });
    const page = await reportToHtml(report);
    expect(page).not.toMatch(/<script|<img/);
    expect(page).toContain('&lt;script&gt;');
    expect(reportToMarkdown(report)).not.toMatch(/(?<!\\)<(script|img)/);
  });

  it('has gradients, and the agreement with and without them, where they were computed', async () => {
    const sensitivityCheck = { kendallTau: 0.4, withoutGradient: 0.1, layers: 16 };
    const layers = quantizedLayers(2).map((layer) => ({ ...layer, gradient: 0.0125 }));
    for (const report of [
      quantizeReport({ layers, sensitivityCheck }),
      { ...profileReport(), layers, sensitivityCheck },
    ]) {
      const page = await reportToHtml(report);
      expect(page).toContain('>gradient</th>');
      expect(page).toContain('0.0125');
      expect(page).toContain('0.40, 0.10 without the gradient term (16 layers)');
      expect(reportToMarkdown(report)).toContain('0.40, 0.10 without the gradient term (16 layers)');
    }
    expect(reportToMarkdown({ ...profileReport(), layers })).toMatch(/\| gradient \|.*\n.*\n.*\| 0\.0125 \|/);
    expect(await reportToHtml(profileReport())).not.toContain('>gradient</th>');
  });

  it('is the same text for the same report', async () => {
    expect(await reportToHtml(quantizeReport())).toBe(await reportToHtml(quantizeReport()));
  });

  it('draws every plot whose values were measured, in a wide and a narrow form', async () => {
    const page = await reportToHtml(quantizeReport());
    for (const id of ['tradeoff', 'latency', 'bits', 'kl', 'bytes', 'flow']) expect(page).toContain(`id="${id}"`);
    expect(page.match(/class="wide"/g)).toHaveLength(6);
    expect(page.match(/class="narrow"/g)).toHaveLength(6);
  });

  it('leaves out plots and sections without values', async () => {
    const layers = quantizedLayers(2).map(({ name, op, bits, execution, bytes }) => ({
      name,
      op,
      bits,
      execution,
      bytes,
    }));
    const page = await reportToHtml(
      quantizeReport({ layers, sweep: undefined, before: { bytes: 9 }, after: { bytes: 5 } }),
    );
    for (const id of ['tradeoff', 'latency', 'kl', 'bytes', 'flow']) expect(page).not.toContain(`id="${id}"`);
    expect(page).toContain('id="bits"');
    expect(page).not.toContain('sensitivity, largest');
  });

  it('puts the figures on cards and says how to reproduce them', async () => {
    const page = await reportToHtml(quantizeReport({ commandLine: "flow-compress quantize 'a b.onnx'" }));
    expect(page).toMatch(/<div class="value">125 kB<\/div>/);
    expect(page).toContain('8.00x smaller');
    expect(page).toContain('flow-compress quantize &#39;a b.onnx&#39;');
  });

  it('shows a training on cards, in plots and in words', async () => {
    const page = await reportToHtml(trainReport());
    for (const id of ['course', 'learning-rate']) expect(page).toContain(`id="${id}"`);
    expect(page).toMatch(/top-1 on TEST<\/div>\s*<div class="value">91\.73 %/);
    expect(page).toContain('epoch 27 of 30');
    expect(page).toContain('Stopped after 30 epochs');
    expect(page).toContain('Before and after');
  });

  it('shows a training from random weights, and one of a single epoch, without what is not there', async () => {
    const page = await reportToHtml(
      trainReport({ before: undefined, history: trainingHistory(1), settings: undefined }),
    );
    expect(page).not.toMatch(/<svg|before|NaN|undefined|>change</);
    expect(page).toContain('What was measured');
    await expect(reportToHtml(trainReport({ history: [], after: { bytes: 5 } }))).resolves.toContain('</html>');
  });

  it('copes with no layers at all and with KL of zero', async () => {
    await expect(reportToHtml(quantizeReport({ layers: [] }))).resolves.toContain('</html>');
    const zero = quantizedLayers(2).map((layer) => ({ ...layer, kl: { '2': 0, '4': -1e-9 } }));
    await expect(reportToHtml(quantizeReport({ layers: zero }))).resolves.toContain('id="kl"');
  });
});

describe('reportToMarkdown', () => {
  it('has a row per comparison and layer, and no markup from names', () => {
    const layers = quantizedLayers(2).map((layer) => ({ ...layer, name: `a|b${EVIL}` }));
    const text = reportToMarkdown(quantizeReport({ layers }));
    expect(text).toContain('| file size | 1 MB | 125 kB | 8.00x smaller |');
    expect(text).toContain('a\\|b');
    expect(text).not.toMatch(/(?<!\\)<script/);
  });

  it('tells of a training what it changed, how it ended and what each epoch gave', () => {
    const text = reportToMarkdown(trainReport());
    expect(text).toContain(
      'in.onnx trained: adamw, 30 epochs, seed 7. Stopped after 30 epochs; the weights of epoch 27',
    );
    expect(text).toContain('| top-1 | 91.23 % | 91.73 % | +0.50 pp |');
    expect(text).toMatch(/\| 27 \| 2,700 \|.*\| best \|/);
    expect(text).toContain('| learning rate | 0.001 |');
    expect(reportToMarkdown(trainReport({ before: undefined }))).toContain('| top-1 | 91.73 % |');
  });

  it.each([evaluateReport(), profileReport(), inspectReport(), pruneReport(), trainReport(), distillReport()])(
    '$command has tables of equal width',
    (report) => {
      const tables = reportToMarkdown(report)
        .split('\n\n')
        .filter((part) => part.startsWith('| '));
      expect(tables.length).toBeGreaterThan(0);
      for (const table of tables) {
        const cells = table.split('\n').map((line) => line.split(/(?<!\\)\|/).length);
        expect(new Set(cells).size).toBe(1);
      }
    },
  );
});
