/** Several figures of several things at once: an axis per figure around a centre, a closed line per thing. */
import type { TopLevelSpec } from 'vega-lite';
import { formatShare, printable } from '../format.js';
import { COLOURS, legendLayout } from './theme.js';

/** A share from the centre, `low`, to the rim, `high`. */
export interface RadarAxis {
  readonly title: string;
  readonly low: number;
  readonly high: number;
}

export interface RadarEntry {
  readonly series: string;
  /** One per axis. */
  readonly values: readonly number[];
}

const RINGS = [0.25, 0.5, 0.75, 1];
/** Half the width of the plane; the rim is at 1, the rest is for the titles. */
const PLANE = 1.5;

export function radarPlot(axes: readonly RadarAxis[], entries: readonly RadarEntry[], width: number): TopLevelSpec {
  const side = Math.min(width - 20, 400);
  const height = 0.86 * side;
  // Up first, then clockwise.
  const place = (i: number, radius: number): { x: number; y: number } => {
    const angle = Math.PI / 2 - (2 * Math.PI * i) / axes.length;
    return { x: radius * Math.cos(angle), y: radius * Math.sin(angle) };
  };
  const corners = [...axes.keys(), 0];
  const rings = RINGS.flatMap((radius) =>
    corners.map((i, order) => ({ ring: String(radius), order, ...place(i, radius) })),
  );
  const spokes = axes.map((_, i) => ({ ...place(i, 1), x0: 0, y0: 0 }));
  const titles = axes.map(({ title, low, high }, i) => {
    const { x, y } = place(i, 1.1);
    return {
      ...{ x, y: y + (y > 0.9 ? 0.12 : y < -0.7 ? -0.08 : 0) },
      title,
      range: `${percent(low)}–${percent(high)} %`,
      side: x > 0.1 ? 'left' : x < -0.1 ? 'right' : 'center',
    };
  });
  const names = entries.map(({ series }) => printable(series));
  const lines = entries.flatMap(({ values }, e) =>
    corners.map((i, order) => {
      const { low, high, title } = axes[i]!;
      const value = values[i]!;
      const radius = Math.max(0, Math.min(1, (value - low) / (high - low)));
      return { series: names[e]!, order, ...place(i, radius), tip: `${names[e]!}: ${title} ${formatShare(value)}` };
    }),
  );
  const position = (field: 'x' | 'y') => ({
    field,
    type: 'quantitative' as const,
    scale: { domain: field === 'x' ? [-PLANE, PLANE] : [-PLANE * 0.86, PLANE * 0.86], nice: false, zero: false },
    axis: null,
  });
  const plane = { x: position('x'), y: position('y') };
  const order = { field: 'order', type: 'quantitative' as const };
  const label = (align: 'left' | 'right' | 'center', dy: number, field: string, color: string) => ({
    data: { values: titles },
    transform: [{ filter: `datum.side === '${align}'` }],
    mark: { type: 'text' as const, align, dy, fontSize: 11, color },
    encoding: { ...plane, text: { field } },
  });
  return {
    width: side,
    height,
    layer: [
      {
        data: { values: rings },
        mark: { type: 'line', color: COLOURS.grid, strokeWidth: 1, aria: false },
        encoding: { ...plane, order, detail: { field: 'ring' } },
      },
      {
        data: { values: spokes },
        mark: { type: 'rule', color: COLOURS.grid, aria: false },
        encoding: { ...plane, x2: { field: 'x0' }, y2: { field: 'y0' } },
      },
      {
        data: { values: lines },
        mark: { type: 'line', strokeWidth: 1.8, opacity: 0.9 },
        encoding: {
          ...{ ...plane, order, description: { field: 'series' } },
          color: {
            ...{ field: 'series', type: 'nominal' },
            scale: { domain: names, range: names.map((_, i) => COLOURS.series[i % COLOURS.series.length]!) },
            legend: legendLayout(names, side),
          },
        },
      },
      {
        data: { values: lines },
        mark: { type: 'point', filled: true, size: 40, opacity: 1 },
        encoding: { ...plane, color: { field: 'series', type: 'nominal' }, description: { field: 'tip' } },
      },
      ...(['left', 'right', 'center'] as const).flatMap((align) => [
        label(align, -6, 'title', COLOURS.ink),
        label(align, 8, 'range', COLOURS.muted),
      ]),
    ],
  };
}

function percent(share: number): string {
  return (100 * share).toFixed(0);
}
