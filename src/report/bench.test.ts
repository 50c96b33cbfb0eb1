import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { benchReport } from '../testing/reports.js';
import { benchTable, benchTitle } from './bench.js';
import { reportToHtml } from './html.js';
import { reportToMarkdown } from './markdown.js';
import { plotsOf, plotToSvg } from './plots.js';
import { paretoFront } from './plots/tradeoff.js';
import { parseReport } from './report.js';
import { reportToTable } from './table.js';

describe('the report of a comparison', () => {
  const report = benchReport();

  it('has a row per method and options, with what several seeds differ by', () => {
    const { head, rows, names } = benchTable(report, 'narrow');
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
    expect(benchTable({ rows: [second!] }, 'narrow').head).not.toContain('time left');
    expect(benchTable({ rows: [{ ...second!, options: {} }] }, 'narrow').head[1]).toBe('method');
  });

  it('has VAL, parameters, times by batch and stages where there is room', () => {
    const of = (mean: number) => ({ after: { mean, least: mean, most: mean } });
    const [first, second] = report.rows;
    const full = {
      ...{ ...first!, val: of(0.91), params: of(12_300), stages: [{ name: 'cut', seconds: 3 }] },
      latencies: [1, 32].map((batch) => ({ batch, ...of(0.25 * batch) })),
    };
    const rows = [full, second!];
    const { head, rows: cells } = benchTable({ rows }, 'wide');
    const cell = (row: number, column: string): string => cells[row]![head.indexOf(column)]!;
    expect(['top-1 on VAL', 'parameters', 'ms, batch 1', 'ms, batch 32'].map((column) => cell(0, column))).toEqual([
      ...['91.00 %', '12.3 k', '0.250', '8.00'],
    ]);
    expect(cell(1, 'ms, batch 32')).toBe('');
    expect(benchTable({ rows }, 'narrow').head).not.toContain('parameters');
    expect(benchTable(report, 'wide').head).not.toContain('parameters');
    const whole = reportToMarkdown({ ...report, rows });
    expect(whole).toContain('| net.onnx | idap, reduce 0.5 | cut 3.0 s |');
    expect(reportToMarkdown(report)).not.toContain('Where the time went');
  });

  it('is shown in every medium', async () => {
    expect(parseReport(JSON.parse(JSON.stringify(report)))).toEqual(report);
    for (const text of [reportToTable(report), reportToMarkdown(report), await reportToHtml(report)]) {
      expect(text).toContain(benchTitle(report));
      expect(text).toContain('idap');
      expect(text).toContain('92.00 %');
    }
    expect(plotsOf(report).map(({ id }) => id)).toEqual(['tradeoff', 'tradeoff-time']);
  });

  it('draws a front for every network that several commands were applied to', () => {
    const rows = [...report.rows, ...report.rows.map((row) => ({ ...row, model: 'b.onnx' }))];
    const ids = (of: typeof report.of) => plotsOf({ ...report, of, rows }).map(({ id }) => id);
    expect(ids(['prune'])).toEqual(['tradeoff', 'tradeoff-time']);
    expect(ids(['train', 'prune'])).toEqual([
      ...['tradeoff-net.onnx', 'tradeoff-time-net.onnx', 'tradeoff-b.onnx', 'tradeoff-time-b.onnx'],
    ]);
  });

  it('tells more methods apart than there are colours', async () => {
    const svgOf = (count: number): Promise<string> => {
      const rows = Array.from({ length: count }, (_, i) => ({
        ...report.rows[0]!,
        method: `m${String(i)}`,
        bytes: { ...report.rows[0]!.bytes, after: { mean: 1e5 * (1 + i), least: 0, most: 0 } },
      }));
      return plotToSvg(plotsOf({ ...report, rows })[0]!, 462);
    };
    const looks = async (count: number): Promise<number> => {
      const symbols = [...(await svgOf(count)).matchAll(/aria-label="m\d+[^>]*?d="([^"]+)"[^>]*?fill="([^"]+)"/g)];
      expect(symbols).toHaveLength(count);
      return new Set(symbols.map(([, path, fill]) => `${path!} ${fill!}`)).size;
    };
    expect(await looks(6)).toBe(6);
    expect(await looks(9)).toBe(9);
  });

  it('compares methods on a radar only where all of them were tried', async () => {
    const [first, second] = report.rows;
    const counts = { agreement: first!.agreement!, macs: first!.macs! };
    const rows = [first!, { ...second!, ...counts, options: { reduce: '0.5' } }];
    const radar = (with_: typeof rows) => plotsOf({ ...report, rows: with_ }).find(({ id }) => id === 'radar');
    const svg = await plotToSvg(radar(rows)!, 462);
    expect(svg).toContain('idap: score kept 98.9 %');
    expect(svg).toContain('l1: bytes saved 70 %');
    // Tooltips speak of figures, never of positions.
    expect(svg).not.toMatch(/<title>x:/);
    // Not measured of both.
    expect(svg).not.toContain('time saved');
    const alone = {
      ...first!,
      options: { reduce: '0.9' },
      bytes: { ...first!.bytes, after: { mean: 1, least: 1, most: 1 } },
    };
    expect(await plotToSvg(radar([...rows, alone])!, 462)).toBe(svg);
    expect(radar(report.rows)).toBeUndefined();
    expect(radar([first!])).toBeUndefined();
  });

  it('draws the courses of all trials', async () => {
    const points = [1, 0.8, 0.5].map((at) => ({ at, score: at }));
    const curves = [0, 1].flatMap((seed) =>
      (['pruning', 'training'] as const).map((kind) => ({
        ...{ model: 'net.onnx', method: 'idap', options: { reduce: '0.5' }, seed, kind, metric: 'top1', points },
      })),
    );
    const plots = plotsOf({ ...report, curves }).filter(({ id }) => id.startsWith('courses'));
    expect(plots.map(({ id }) => id)).toEqual(['courses-pruning', 'courses-training']);
    const svg = await plotToSvg(plots[0]!, 978);
    for (const seed of [0, 1])
      expect(svg).toContain(`idap, net.onnx, reduce 0.5, seed ${String(seed)}, 80.0 % left: 80.00 %`);
  });
});

describe('the Pareto front', () => {
  it('has exactly the points that no other one beats, for scores and for losses', () => {
    const entry = fc.record({ cost: fc.integer({ min: 1, max: 9 }), value: fc.integer({ min: 0, max: 9 }) });
    fc.assert(
      fc.property(fc.array(entry, { minLength: 1, maxLength: 12 }), fc.boolean(), (entries, isLoss) => {
        const name = isLoss ? 'loss' : 'top1';
        const points = entries.map(({ cost, value }) => ({
          ...{ series: 's', cost, metric: { name, value, split: 'test' as const, samples: 0 } },
        }));
        const gain = ({ metric }: (typeof points)[number]): number => (isLoss ? -metric.value : metric.value);
        const beaten = (one: (typeof points)[number]): boolean =>
          points.some(
            (other) =>
              other.cost <= one.cost && gain(other) >= gain(one) && (other.cost < one.cost || gain(other) > gain(one)),
          );
        const key = ({ cost, metric }: (typeof points)[number]): string => `${String(cost)} ${String(metric.value)}`;
        const front = paretoFront(points).map((point) => `${String(point.cost)} ${String(point.metric.value)}`);
        expect(new Set(front).size).toBe(front.length);
        expect([...front].sort()).toEqual([...new Set(points.filter((one) => !beaten(one)).map(key))].sort());
      }),
    );
  });
});
