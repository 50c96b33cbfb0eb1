/** Look of every plot: colours that follow the page's light or dark scheme, fixed axis widths, labels that thin out. */
import type { Config } from 'vega-lite';
import { isFraction } from '../format.js';

/**
 * Colours are CSS variables with the light scheme as fallback, so that the same SVG follows `prefers-color-scheme`
 * inside a page that defines them and still looks right on its own.
 */
export const COLOURS = {
  ink: 'var(--fc-ink, #1b2330)',
  muted: 'var(--fc-muted, #5b6675)',
  grid: 'var(--fc-grid, #e3e8ef)',
  pale: 'var(--fc-pale, #c3ccd9)',
  series: [
    'var(--fc-c1, #2563c9)',
    'var(--fc-c2, #c26a05)',
    'var(--fc-c3, #0b8a78)',
    'var(--fc-c4, #b03078)',
    'var(--fc-c5, #6f4fc9)',
    'var(--fc-c6, #64748b)',
  ],
} as const;

/** Pixels left of the plotting area, the same in every panel so that stacked panels line up. */
export const LEFT = 48;
/** Pixels right of it. */
export const RIGHT = 12;

/** Width of the plotting area inside a picture `total` pixels wide. */
export function plotWidth(total: number): number {
  return total - LEFT - RIGHT;
}

export const THEME: Config = {
  background: 'transparent',
  padding: { left: 2, right: RIGHT - 2, top: 4, bottom: 4 },
  font: 'system-ui, sans-serif',
  view: { stroke: null },
  concat: { spacing: 18 },
  title: { anchor: 'start', frame: 'bounds', fontSize: 12, fontWeight: 600, color: COLOURS.muted, offset: 8 },
  axis: {
    labelColor: COLOURS.muted,
    titleColor: COLOURS.muted,
    titleFontWeight: 400,
    titleFontSize: 11,
    labelFontSize: 11,
    gridColor: COLOURS.grid,
    domainColor: COLOURS.grid,
    tickColor: COLOURS.grid,
    labelPadding: 4,
  },
  axisY: { minExtent: LEFT - 4, maxExtent: LEFT - 4, domain: false, ticks: false, tickCount: 4 },
  axisX: { grid: false },
  legend: {
    orient: 'top',
    direction: 'horizontal',
    title: null,
    labelColor: COLOURS.ink,
    titleColor: COLOURS.muted,
    labelFontSize: 11,
    labelLimit: 240,
    symbolSize: 80,
    offset: 6,
    columnPadding: 14,
  },
  bar: { cornerRadiusEnd: 0 },
};

/** The layer numbers that get a label so that labels stay `pixels` apart: always the first, then 5, 10, 20 and so on. */
export function thinnedTicks(layers: number, width: number, pixels = 24): number[] {
  const room = Math.max(1, Math.floor(width / pixels));
  const step = [1, 2, 5, 10, 20, 25, 50, 100, 200, 500, 1000].find((one) => layers / one <= room) ?? layers;
  const ticks = [1];
  for (let at = step === 1 ? 2 : step; at <= layers; at += step) if (at > 1) ticks.push(at);
  return ticks;
}

/** Expression of axis labels with prefixes, as everywhere in the reports: `200 kB`, or `200k` without a unit. */
export function siLabels(unit: string): string {
  const number = "format(datum.value, '~s')";
  return `datum.value === 0 ? '0' : ${unit === '' ? number : `replace(${number}, /([a-zA-Z]?)$/, ' $1') + '${unit}'`}`;
}

/** Unit of a metric after the title of its axis: `, %`, `, dB` or nothing. */
export function unitSuffix(metricName: string): string {
  if (isFraction(metricName)) return ', %';
  return metricName.endsWith('Db') ? ', dB' : '';
}

/**
 * Round values 1, 2, 5 x 10^k inside [low, high] for a logarithmic axis; only the powers of ten when there are many.
 * None where the ends are not positive and finite.
 */
export function logTicks(low: number, high: number): number[] {
  if (!(low > 0 && high < Infinity)) return [];
  const make = (mantissas: readonly number[]): number[] => {
    const ticks: number[] = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++) {
      for (const mantissa of mantissas) {
        const value = Number(`${mantissa}e${power}`);
        if (value >= low && value <= high) ticks.push(value);
      }
    }
    return ticks;
  };
  const fine = make([1, 2, 5]);
  return fine.length <= 7 ? fine : make([1]);
}

/** Columns of a legend above a plot `width` pixels wide and the pixels each label gets; nothing is cut that fits in one column. */
export function legendLayout(labels: readonly string[], width: number): { columns: number; labelLimit: number } {
  // Without a canvas Vega takes a character for 0.8 of the font size (11 pixels); symbol and padding take the rest.
  const longest = labels.reduce((most, label) => Math.max(most, label.length), 0);
  const columns = Math.max(1, Math.min(labels.length, Math.floor(width / (longest * 8.8 + 30))));
  return { columns, labelLimit: Math.floor(width / columns) - 28 };
}
