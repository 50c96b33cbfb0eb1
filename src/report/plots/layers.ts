/** Plots with one column per layer: bits and sensitivity, KL per width, bytes, information flow. */
import type { TopLevelSpec } from 'vega-lite';
import { formatBits, formatBytes, formatCount, significant } from '../format.js';
import { klWidths } from '../summary.js';
import { beforeAfterPanel, layerAxis, panels, tip } from './layer-panels.js';
import type { NamedLayer, Panel } from './layer-panels.js';
import { COLOURS, logTicks, plotWidth } from './theme.js';

/** What the plots need of a layer; profile, quantize and inspect rows all have this shape. */
export interface PlotLayer extends NamedLayer {
  readonly bits?: number;
  readonly format?: string | undefined;
  readonly execution?: 'int8' | 'float';
  readonly bytes?: number;
  readonly bytesBefore?: number;
  readonly params?: number;
  readonly macs?: number;
  readonly sensitivity?: number;
  readonly flow?: number;
  readonly flowChange?: number;
  readonly kl?: Record<string, number>;
}

/** Stored width of every layer, coloured by execution precision, above its sensitivity. */
export function bitsAndSensitivityPlot(layers: readonly PlotLayer[], width: number): TopLevelSpec {
  const bits: Panel = {
    title: 'stored width in bits, by execution',
    mark: 'bar',
    height: 130,
    colour: COLOURS.series[0],
    top: 8,
    kinds: [
      { name: 'int8', colour: COLOURS.series[0] },
      { name: 'float', colour: COLOURS.series[1] },
    ],
    values: layers.flatMap((layer, i) =>
      layer.bits === undefined
        ? []
        : [
            {
              layer: i + 1,
              value: layer.bits,
              kind: layer.execution,
              tip: tip(
                layer,
                i,
                `${formatBits(layer.bits)} bits${layer.format === 'codebook' ? ' of a codebook' : ''}, ${layer.execution} execution`,
              ),
            },
          ],
    ),
  };
  return panels(layers, [bits, valuePanel('sensitivity, largest = 1', layers, 'sensitivity', 'bar', 2, 100)], width);
}

/** Sensitivity alone, for a model that was only profiled. */
export function sensitivityPlot(layers: readonly PlotLayer[], width: number): TopLevelSpec {
  return panels(layers, [valuePanel('sensitivity, largest = 1', layers, 'sensitivity', 'bar', 0, 150)], width);
}

/** flowMagnitude and flowChange through the depth of the network. */
export function flowPlot(layers: readonly PlotLayer[], width: number): TopLevelSpec {
  return panels(
    layers,
    [
      valuePanel('flow magnitude', layers, 'flow', 'line', 0, 120),
      valuePanel('flow change', layers, 'flowChange', 'line', 4, 120),
    ],
    width,
  );
}

/** Parameters and multiply-accumulates of every layer. */
export function costPlot(layers: readonly PlotLayer[], width: number): TopLevelSpec {
  return panels(
    layers,
    [
      { ...valuePanel('parameters', layers, 'params', 'bar', 0, 110), si: '' },
      { ...valuePanel('MACs per sample', layers, 'macs', 'bar', 2, 110), si: '' },
    ],
    width,
  );
}

/** Bytes of every layer in the original file with the bytes in the written file in front. */
export function bytesPlot(layers: readonly PlotLayer[], width: number): TopLevelSpec {
  const look = { title: 'bytes', height: 170, si: 'B' };
  const bytesOf = (layer: PlotLayer): { before?: number; after?: number } => ({
    before: layer.bytesBefore,
    after: layer.bytes,
  });
  return panels(layers, [beforeAfterPanel(layers, look, bytesOf, formatBytes)], width);
}

/** KL divergence of the outputs with one layer at one width: layers across, widths up; a dot marks the chosen width. */
export function klPlot(layers: readonly PlotLayer[], width: number): TopLevelSpec {
  const inner = plotWidth(width);
  const cells = layers.flatMap((layer, i) =>
    Object.entries(layer.kl ?? {}).map(([bits, kl]) => ({
      layer: i + 1,
      bits: Number(bits),
      kl,
      tip: tip(layer, i, `KL ${significant(kl, 3)} at ${bits} bits`),
    })),
  );
  const measured = klWidths(layers).map(Number);
  const chosen = layers.flatMap((layer, i) =>
    layer.bits !== undefined && measured.includes(layer.bits) ? [{ layer: i + 1, bits: layer.bits }] : [],
  );
  const positive = cells.map((cell) => cell.kl).filter((kl) => kl > 0);
  const high = positive.length === 0 ? 1 : positive.reduce((a, b) => Math.max(a, b));
  const low = Math.max(positive.length === 0 ? 0.1 : positive.reduce((a, b) => Math.min(a, b)), high * 1e-5);
  const dot = Math.max(3, Math.min(40, (inner / layers.length) ** 2 * 0.25));
  const x = layerAxis(layers, inner, true);
  return {
    width: inner,
    height: 24 * measured.length,
    title: 'stored width, bits',
    layer: [
      {
        data: { values: cells.map((cell) => ({ ...cell, kl: Math.max(cell.kl, low) })) },
        mark: { type: 'rect', color: COLOURS.series[0] },
        encoding: {
          x,
          y: { field: 'bits', type: 'ordinal', sort: 'descending', axis: { title: null } },
          opacity: {
            field: 'kl',
            type: 'quantitative',
            scale: { type: 'log', domain: [low, high > low ? high : low * 10], range: [0.05, 1], clamp: true },
            legend: {
              title: inner < 500 ? 'KL' : 'KL, nats',
              titleOrient: 'left',
              symbolType: 'square',
              symbolSize: 150,
              symbolFillColor: COLOURS.series[0],
              symbolStrokeWidth: 0,
              values: legendTicks(low, high, Math.floor(inner / 65)),
              labelExpr: "datum.value < 0.001 ? format(datum.value, '.0e') : format(datum.value, '~g')",
            },
          },
          description: { field: 'tip' },
        },
      },
      {
        data: { values: chosen },
        mark: { type: 'point', filled: true, fill: COLOURS.ink, size: dot, opacity: 1 },
        encoding: { x, y: { field: 'bits', type: 'ordinal', sort: 'descending' } },
      },
    ],
  };
}

/** Up to five round values, the largest ones. */
function legendTicks(low: number, high: number, room: number): number[] {
  const ticks = logTicks(low, high);
  return ticks.length >= 2 ? ticks.slice(-Math.max(2, Math.min(5, room))) : [low, high];
}

function valuePanel(
  title: string,
  layers: readonly PlotLayer[],
  key: 'sensitivity' | 'flow' | 'flowChange' | 'params' | 'macs',
  mark: 'bar' | 'line',
  series: number,
  height: number,
): Panel {
  const show = (value: number): string =>
    key === 'params' || key === 'macs' ? formatCount(value) : significant(value, 3);
  const values = layers.flatMap((layer, i) => {
    const value = layer[key];
    return value === undefined
      ? []
      : [{ layer: i + 1, value, tip: tip(layer, i, `${title.split(',')[0]} ${show(value)}`) }];
  });
  return { title, values, mark, height, colour: COLOURS.series[series] };
}
