/** What the reports say about a pruning, in every medium. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { prunedLayers, pruneReport, pruningSteps, recoverySummary } from '../testing/reports.js';
import { reportToHtml } from './html.js';
import { reportToMarkdown } from './markdown.js';
import { plotsOf, plotToSvg } from './plots.js';
import { changedGroups, outcomesOf, stepTable, thinnedSteps, widthsCaption } from './pruning.js';
import { recoveryRows, recoverySentence } from './recovery.js';
import type { PruneReport, PruningStep, Quality } from './report.js';
import { reportToTable } from './table.js';

/** The same steps without labels: with the agreement, or with the divergence alone. */
function unlabelled(steps: readonly PruningStep[], agreement: boolean): PruningStep[] {
  const bare = (quality: Quality | undefined): Quality => ({
    divergence: quality?.divergence ?? 0,
    ...(agreement && { agreement: quality?.agreement }),
  });
  return steps.map(({ cut, refitted, aligned, recovered, ...step }) => ({
    ...{ ...step, cut: bare(cut), refitted: bare(refitted), aligned: bare(aligned), recovered: bare(recovered) },
  }));
}

const WITH_AGREEMENT = pruneReport({
  ...{ original: { divergence: 0 }, recovery: undefined, steps: unlabelled(pruningSteps(5), true) },
});
const WITH_DIVERGENCE = pruneReport({
  ...{ original: { divergence: 0 }, recovery: undefined, steps: unlabelled(pruningSteps(5), false) },
});

async function svgOf(report: PruneReport, id: string): Promise<string> {
  return await plotToSvg(
    plotsOf(report).find((plot) => plot.id === id)!,
    978,
  );
}

describe('the steps', () => {
  it('stand behind the original, with every measured state and what became of them', () => {
    const { head, rows } = stepTable(pruneReport(), pruneReport().steps, true);
    expect(head).toEqual('step,MACs,params,units,branches,cut,re-fitted,aligned,learned,updates,time,'.split(','));
    expect(rows[0]).toEqual(['', '40.0 M', '250 k', '', '', '92.00 %', '', '', '', '', '', 'original']);
    const measured = ['72.00 %', '88.40 %', '89.60 %', '90.96 %', '60', '14 s', 'kept'];
    expect(rows[2]).toEqual(['2', '32.8 M (82 %)', '200 k', '41', '1', ...measured]);
    expect(rows.map((row) => row.at(-1))).toEqual(['original', 'kept', 'kept', 'kept', 'taken back', 'kept']);
  });

  it('have no column for what was not measured', () => {
    const steps = pruningSteps(3).map(({ step, units, params, cut, accepted, seconds }) => ({
      ...{ step, units, params, cut, accepted, seconds, branches: [] },
    }));
    const { head, rows } = stepTable(pruneReport({ steps }), steps, false);
    expect(head).toEqual(['step', 'params', 'units', 'cut', '']);
    expect(rows.every((row) => row.length === head.length)).toBe(true);
  });

  it('show the agreement without labels, and the divergence without that', () => {
    expect(stepTable(WITH_AGREEMENT, WITH_AGREEMENT.steps, false).rows[1]).toContain('83.00 %');
    expect(stepTable(WITH_DIVERGENCE, WITH_DIVERGENCE.steps, false).rows[1]).toContain('0.400');
    expect(reportToTable(WITH_AGREEMENT)).toContain('Agreement with the original on VAL after each part');
    expect(reportToTable(WITH_DIVERGENCE)).toContain('KL divergence from the original, in nats, on VAL after');
    expect(reportToTable(pruneReport({ ...WITH_DIVERGENCE, measure: 'relative-error' }))).toContain('Relative error');
    for (const report of [WITH_AGREEMENT, WITH_DIVERGENCE])
      expect(reportToTable(report).split('change')[1]!.split('Drop')[0]).not.toMatch(/Top-1/);
  });

  it('are thinned to the first, the last, the last one kept and others', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 100 }), fc.nat(), (count, at) => {
        const best = at % count;
        const steps = pruningSteps(count).map((step, i) => ({ ...step, accepted: i <= best }));
        const shown = thinnedSteps({ steps });
        expect(shown.length).toBeLessThanOrEqual(10);
        for (const i of [0, best, count - 1]) expect(shown).toContain(steps[i]);
        expect(shown).toEqual(steps.filter((step) => shown.includes(step)));
      }),
    );
    expect(reportToTable(pruneReport({ steps: pruningSteps(40) }))).toMatch(/\d+ more steps are in --json/);
    expect(reportToTable(pruneReport())).not.toContain('more step');
  });
});

describe('the widths', () => {
  it('are those of the groups that lost units, and count the others', () => {
    const { groups } = pruneReport();
    expect(changedGroups({ groups })).toEqual(groups.slice(1));
    expect(changedGroups({ groups }, 1)).toEqual([groups[1]]);
    expect(widthsCaption({ groups })).toBe('3 groups lost units; 1 kept all.');
    const text = reportToTable(pruneReport());
    expect(text).toMatch(/\/block0\/conv1\/Conv +filters +16 +7 +43\.8 %/);
    expect(text).toMatch(/no layer +inputs +2,048 +1,024 +50 %/);
    expect(text).not.toContain('/block0/conv2/Conv');
  });

  it('keep the largest losses in their order when there are many', () => {
    const groups = Array.from({ length: 40 }, (_, i) => ({
      ...{ layers: [`layer${i}`], kind: 'filters' as const, before: 64, after: (i * 13) % 40 },
    }));
    const text = reportToTable(pruneReport({ groups }));
    const shown = [...text.matchAll(/^layer(\d+) /gm)].map((match) => Number(match[1]));
    expect(shown).toHaveLength(16);
    expect(shown).toEqual([...shown].sort((a, b) => a - b));
    expect(shown.every((i) => groups[i].after < 16)).toBe(true);
    expect(text).toContain('24 more groups, which lost less, are in --json and --report.');
  });
});

describe('the outcome', () => {
  const drop = { metric: 'top1', allowed: 0.005, measured: 0.0042, met: true };
  it.each([
    [
      { budget: { of: 'macs', requested: 0.5, achieved: 0.502, met: true } },
      'Budget met: MACs reduced by 50.2 %, asked for 50 %.',
    ],
    [
      { budget: { of: 'latency', requested: 0.3, achieved: -0.02, met: false } },
      'Budget NOT met: latency increased by 2 %, asked for 30 %.',
    ],
    [{ drop }, 'Drop kept to: top-1 on VAL fell by 0.42 pp, 0.50 pp allowed.'],
    [{ drop: { ...drop, measured: -0.001 } }, 'Drop kept to: top-1 on VAL rose by 0.10 pp, 0.50 pp allowed.'],
    [
      { drop: { ...drop, metric: 'loss', measured: 0.1, met: false } },
      'Drop NOT kept to: loss on VAL rose by 0.1000, 0.0050 allowed.',
    ],
    [
      { drop: { ...drop, metric: 'sqnrDb', allowed: 2, measured: 1 } },
      'Drop kept to: output SQNR on VAL fell by 1.0 dB, 2.0 dB allowed.',
    ],
  ] as const)('%#', (given, text) => {
    expect(outcomesOf(given).map((outcome) => outcome.text)).toEqual([text]);
  });

  it('is red and a notice where it missed', async () => {
    const missed = pruneReport({ drop: { ...drop, measured: 0.01, met: false } });
    const red = /\u001b\[31mDrop NOT kept to.*\u001b\[39m/; // eslint-disable-line no-control-regex
    expect(reportToTable(missed, { colour: true })).toMatch(red);
    expect(reportToTable(pruneReport(), { colour: true })).not.toMatch(/31mDrop|31mBudget/);
    expect(await reportToHtml(missed)).toMatch(/class="notice"><p>Drop NOT kept to/);
    expect(await reportToHtml(pruneReport())).not.toContain('class="notice"');
    expect(reportToMarkdown(missed)).toContain('Drop NOT kept to');
    expect(outcomesOf({})).toEqual([]);
  });
});

describe('a pruned model that learned', () => {
  it('is told like a rounded one', () => {
    expect(recoverySentence(pruneReport({ recovery: recoverySummary({ bestStep: 0 }) }))).toContain(
      'no state was better on VAL than the pruned model',
    );
    expect(reportToTable(pruneReport()).replace(/\s+/g, ' ')).toContain(
      'on VAL 0.0500 nats, 90.00 % top-1 before, 0.0200 nats, 91.58 % top-1 after.',
    );
    expect(reportToMarkdown(pruneReport())).toMatch(/\| 270 \|.*\| written \|/);
  });

  it('shows the agreement where there are no labels', async () => {
    const quality = (agreement: number): Quality => ({ divergence: 0.1, agreement });
    const points = recoverySummary().points.map(({ top1, ...point }) => ({ ...point, agreement: top1 }));
    const recovery = recoverySummary({ before: quality(0.9), after: quality(0.95), points });
    const report = pruneReport({ recovery });
    expect(recoverySentence(report)).toContain('0.100 nats, 95.00 % agreement after.');
    expect(recoveryRows(report).head).toContain('VAL agreement');
    expect(await svgOf(report, 'recovery')).toContain('>agreement on VAL, %<');
  });
});

describe('the page and its plots', () => {
  it('answers how much smaller, faster and less accurate first, and shows the whole course', async () => {
    const page = await reportToHtml(pruneReport());
    const cards = page.slice(0, page.indexOf('<section'));
    for (const text of ['2.00x smaller', '1.82x fewer', '−0.50 pp', '1.60x faster', 'Budget met', 'Drop kept to'])
      expect(cards).toContain(text);
    for (const id of ['dynamics', 'latency', 'widths', 'layer-macs', 'recovery']) expect(page).toContain(`id="${id}"`);
    for (const text of ['taken back', 'no layer', '/block6/Add', '32.8 M (82 %)']) expect(page).toContain(text);
    expect(page).toMatch(/64 → 0<\/td>[^]*removed<\/td>/);
  });

  it('has nothing for what was not measured', async () => {
    const layers = prunedLayers(3).map(({ name, op, channels, params }) => ({ name, op, channels, params }));
    const report = pruneReport({
      ...{ layers, steps: [], groups: [], removed: [], recovery: undefined, budget: undefined, drop: undefined },
      ...{ settings: undefined, before: { bytes: 9 }, after: { bytes: 5 } },
    });
    const page = await reportToHtml(report);
    expect(page).not.toMatch(/NaN|undefined|id="(dynamics|latency|layer-macs|recovery)"/);
    expect(page).not.toMatch(/<h2>(Steps|Widths|Recovery|Branches and layers taken out)</);
    expect(page).toContain('id="widths"');
    expect(reportToTable(report)).not.toMatch(/step|group|Budget|Drop|Recovery|branch/);
    await expect(reportToHtml(pruneReport({ layers: [] }))).resolves.toContain('</html>');
  });

  it.each([
    ['one step', pruneReport({ steps: pruningSteps(1), layers: prunedLayers(1) })],
    ['many steps', pruneReport({ steps: pruningSteps(40), layers: prunedLayers(160) })],
    ['agreement', WITH_AGREEMENT],
    ['divergence', WITH_DIVERGENCE],
    [
      'nothing lost',
      pruneReport({ steps: pruningSteps(2).map((s) => ({ ...s, cut: { divergence: 0 }, macs: 40_000_000 })) }),
    ],
  ])('%s fits a phone and a desktop', { timeout: 30_000 }, async (_, report) => {
    for (const plot of plotsOf(report)) {
      for (const width of [340, 978]) {
        const svg = await plotToSvg(plot, width, false);
        const natural = Number(/ width="([\d.]+)"/.exec(svg)?.[1]);
        expect(natural, `${plot.id} at ${width}`).toBeLessThanOrEqual(width * 1.06);
        expect(natural, `${plot.id} at ${width}`).toBeGreaterThan(width * 0.9);
        expect(svg).not.toContain('NaN');
      }
    }
  });

  it('places every state by its share of the MACs, and the recovery behind the last step', async () => {
    const svg = await svgOf(pruneReport(), 'dynamics');
    expect(svg).toContain('<title>step 2, re-fitted, 82 % left: 88.40 %</title>');
    expect(svg).toContain('<title>step 4, learned (taken back), 64 % left: 86.72 %</title>');
    expect(svg).toContain('<title>after the last cut, learned, 55 % left: 91.58 %</title>');
    expect(svg).toContain('>original: 92.00 %<');
    expect(svg).toContain('>60.00 %<');
    // Five steps of four states and the recovery; the beginning of the lines is no mark of its own.
    expect(svg.match(/<title>(step|after)/g)).toHaveLength(21);
    expect(svg.match(/<title>original/g)).toHaveLength(1);
    expect(svg.match(/<title>(cut|re-fitted|aligned|learned)</g)).toHaveLength(4);
    const caption = (report: PruneReport): string => plotsOf(report).find(({ id }) => id === 'dynamics')!.caption;
    expect(caption(pruneReport())).toContain('Triangles lie below the axis. Hollow points were taken back.');
    expect(caption(pruneReport({ steps: pruningSteps(1) }))).not.toContain('Hollow');
    expect(caption(WITH_DIVERGENCE)).not.toContain('Triangles');
    const { steps } = WITH_DIVERGENCE;
    const exact = { ...WITH_DIVERGENCE, steps: [{ ...steps[0]!, recovered: { divergence: 0 } }, ...steps.slice(1)] };
    expect(await svgOf(exact, 'dynamics')).not.toMatch(/Infinity|NaN/);
    expect(await svgOf(exact, 'dynamics')).toContain('<title>step 1, learned, 91 % left: 0</title>');
    expect(await svgOf(WITH_DIVERGENCE, 'dynamics')).toContain('<title>step 1, cut, 91 % left: 0.400</title>');
  });

  it('goes by the parameters where MACs are unknown, and is left out where both are', async () => {
    const { before } = pruneReport();
    const svg = await svgOf(pruneReport({ before: { ...before, macs: undefined } }), 'dynamics');
    expect(svg).toContain('>parameters left<');
    expect(svg).toContain('step 2, cut, 80 % left');
    const bare = pruneReport({ before: { ...before, macs: undefined, params: undefined } });
    expect(plotsOf(bare).map(({ id }) => id)).not.toContain('dynamics');
  });

  it('draws two bars per layer, before and after', async () => {
    for (const [id, tip] of [
      ['widths', '7. /block6/conv/Conv: 0 after, 64 before'],
      ['layer-macs', '7. /block6/conv/Conv: 0 after, 1.94 M before'],
    ] as const) {
      const svg = await svgOf(pruneReport(), id);
      expect(svg.match(/<title>\d+\. [^<]* after, [^<]* before</g)).toHaveLength(18);
      expect(svg).toContain(tip);
    }
  });
});
