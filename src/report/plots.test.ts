/** Plots fit the width they were asked for, thin their labels and show the values they were given. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { quantizeReport, quantizedLayers, top1, trainingHistory, trainReport } from '../testing/reports.js';
import { plotsOf, plotToSvg } from './plots.js';
import { legendLayout, logTicks, thinnedTicks } from './plots/theme.js';

/** Natural width of an SVG document in pixels. */
function widthOf(svg: string): number {
  return Number(/ width="([\d.]+)"/.exec(svg)?.[1]);
}

describe('plots', () => {
  it.each([1, 12, 57, 200])('%i layers fit a phone and a desktop', { timeout: 30_000 }, async (count) => {
    for (const plot of plotsOf(quantizeReport({ layers: quantizedLayers(count) }))) {
      for (const width of [340, plot.span === 'full' ? 978 : 462]) {
        const svg = await plotToSvg(plot, width, false);
        expect(widthOf(svg), `${plot.id} at ${width}`).toBeLessThanOrEqual(width * 1.06);
        expect(widthOf(svg), `${plot.id} at ${width}`).toBeGreaterThan(width * 0.9);
      }
    }
  });

  it.each([2, 30, 300])('the course of %i epochs fits a phone and a desktop', async (epochs) => {
    const { training } = trainReport();
    const report = trainReport({
      history: trainingHistory(epochs),
      training: { ...training, bestEpoch: Math.max(1, epochs - 3) },
    });
    for (const plot of plotsOf(report)) {
      for (const width of [340, 978]) {
        const natural = widthOf(await plotToSvg(plot, width, false));
        expect(natural, `${plot.id} at ${width}`).toBeLessThanOrEqual(width * 1.06);
        expect(natural, `${plot.id} at ${width}`).toBeGreaterThan(width * 0.9);
      }
    }
  });

  it('marks the best epoch of a training beside its score, and needs two epochs', async () => {
    const [course, rate] = plotsOf(trainReport());
    expect([course.id, rate.id]).toEqual(['course', 'learning-rate']);
    const svg = await plotToSvg(course, 978);
    expect(svg.match(/stroke-dasharray="4,3"/g)).toHaveLength(2);
    expect(svg).toContain('>epoch 27: 91.97 %<');
    expect(svg).toContain('<title>epoch 12: 89.89 %</title>');
    expect(plotsOf(trainReport({ history: trainingHistory(1) }))).toEqual([]);
  });

  it('labels at most one layer per 24 pixels, the first one among them', () => {
    for (const layers of [1, 2, 57, 200, 1234]) {
      for (const width of [280, 918]) {
        const ticks = thinnedTicks(layers, width);
        expect(ticks[0]).toBe(1);
        expect(ticks.at(-1)).toBeLessThanOrEqual(layers);
        expect(ticks.length).toBeLessThanOrEqual(width / 24 + 1);
      }
    }
  });

  it('draws one bar per layer and gives each a tooltip', async () => {
    const [bits] = plotsOf(quantizeReport({ layers: quantizedLayers(30) })).filter((plot) => plot.id === 'bits');
    const svg = await plotToSvg(bits, 900);
    expect(svg.match(/<title>\d+\. [^<]* bits, /g)).toHaveLength(30);
    expect(svg).toContain('<title>3. /block2/conv/Conv: 4 bits, int8 execution</title>');
  });

  it('marks a point far below the best one with its value instead of squeezing the others', async () => {
    const [tradeoff] = plotsOf(quantizeReport());
    expect(tradeoff.id).toBe('tradeoff');
    expect(await plotToSvg(tradeoff, 462)).toContain('2b: 31.00 %');
  });

  it('compares only points of one metric', () => {
    const report = quantizeReport({ sweep: [], before: { bytes: 10, metric: { ...top1(1), name: 'agreement' } } });
    expect(plotsOf(report).map((plot) => plot.id)).not.toContain('tradeoff');
  });

  it('chooses round ticks inside a logarithmic range', () => {
    expect(logTicks(80_000, 1_200_000)).toEqual([100_000, 200_000, 500_000, 1_000_000]);
    expect(logTicks(1e-6, 1)).toEqual([1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1]);
  });

  it('gives no ticks between ends that have no place on a logarithmic axis', () => {
    const finite = fc.double({ noNaN: true });
    fc.assert(
      fc.property(finite, finite, (low, high) => {
        const ticks = logTicks(low, high);
        expect(ticks.every((tick) => tick >= low && tick <= high && tick > 0)).toBe(true);
        if (!(low > 0) || high === Infinity) expect(ticks).toEqual([]);
      }),
    );
    expect(logTicks(0, 1)).toEqual([]);
    expect(logTicks(0.1, Infinity)).toEqual([]);
    expect(logTicks(Number.NaN, 1)).toEqual([]);
    expect(logTicks(5e-324, 1e-322)).not.toContain(0);
  });

  it('gives a legend as many columns as its longest label allows', () => {
    expect(legendLayout(['a', 'b', 'c'], 400).columns).toBe(3);
    expect(legendLayout(['a', 'x'.repeat(30)], 400).columns).toBe(1);
  });
});
