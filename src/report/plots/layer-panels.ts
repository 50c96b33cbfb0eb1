/** What plots with one column per layer are made of: panels above each other that share the axis of the layers. */
import type { TopLevelSpec } from 'vega-lite';
import { printable, shortLayerName, truncateMiddle } from '../format.js';
import { COLOURS, plotWidth, siLabels, thinnedTicks } from './theme.js';

/** What the axis and the tooltips need of a layer. */
export interface NamedLayer {
  readonly name: string;
  readonly op: string;
}

/** Up to this many layers are labelled by name on wide plots, more by number. */
const NAMED_LAYERS = 24;

export interface Panel {
  readonly title: string;
  readonly values: readonly { layer: number; value: number; kind?: string; tip: string }[];
  readonly mark: 'bar' | 'line';
  readonly height: number;
  readonly colour: string;
  /** Colours by `kind`, drawn in this order. */
  readonly kinds?: readonly { readonly name: string; readonly colour: string }[];
  /** Unit after the SI prefix of the axis labels (`150 kB`); plain numbers when absent. */
  readonly si?: string;
  /** Smallest upper end of the axis. */
  readonly top?: number;
}

/** Bars of every layer before, with those after in front; a layer without a value has no bar. */
export function beforeAfterPanel<L extends NamedLayer>(
  layers: readonly L[],
  look: Pick<Panel, 'title' | 'height' | 'si'>,
  valuesOf: (layer: L) => { before?: number; after?: number },
  show: (value: number) => string,
): Panel {
  const values = layers.flatMap((layer, i) => {
    const { before, after } = valuesOf(layer);
    const parts = [
      ...(after === undefined ? [] : [`${show(after)} after`]),
      ...(before === undefined ? [] : [`${show(before)} before`]),
    ];
    const row = (kind: string, value: number | undefined): Panel['values'] =>
      value === undefined ? [] : [{ layer: i + 1, value, kind, tip: tip(layer, i, parts.join(', ')) }];
    return [...row('before', before), ...row('after', after)];
  });
  return {
    ...look,
    mark: 'bar',
    colour: COLOURS.series[0],
    values,
    kinds: [
      { name: 'before', colour: COLOURS.pale },
      { name: 'after', colour: COLOURS.series[0] },
    ],
  };
}

/** Panels above each other with the layers across; panels without values are left out. */
export function panels(layers: readonly NamedLayer[], all: readonly Panel[], width: number): TopLevelSpec {
  const inner = plotWidth(width);
  const shown = all.filter((panel) => panel.values.length > 0);
  return {
    vconcat: shown.map((panel, i) => {
      const kinds = panel.kinds?.filter((kind) => panel.values.some((value) => value.kind === kind.name));
      const top = panel.values.reduce((most, row) => Math.max(most, row.value), panel.top ?? 0);
      const encoding = {
        x: layerAxis(layers, inner, i === shown.length - 1),
        y: {
          field: 'value',
          type: 'quantitative' as const,
          stack: null,
          axis: { title: null, ...(panel.si === undefined ? {} : { labelExpr: siLabels(panel.si) }) },
          scale: { domain: [0, top > 0 ? top : 1], nice: true },
        },
        description: { field: 'tip' },
        ...(kinds === undefined
          ? {}
          : {
              color: {
                field: 'kind',
                type: 'nominal' as const,
                scale: { domain: kinds.map((kind) => kind.name), range: kinds.map((kind) => kind.colour) },
              },
            }),
      };
      const common = { width: inner, height: panel.height, title: panel.title, data: { values: [...panel.values] } };
      if (panel.mark === 'bar') return { ...common, mark: { type: 'bar' as const, color: panel.colour }, encoding };
      const size = Math.max(6, Math.min(36, inner / layers.length));
      return {
        ...common,
        encoding,
        layer: [
          { mark: { type: 'line' as const, color: panel.colour, strokeWidth: 1.5 } },
          { mark: { type: 'point' as const, filled: true, color: panel.colour, size, opacity: 1 } },
        ],
      };
    }),
    resolve: { scale: { color: 'independent' } },
  };
}

/** Band axis of the layers: names on a wide plot of few layers, else thinned numbers; no labels unless `labelled`. */
export function layerAxis(
  layers: readonly NamedLayer[],
  inner: number,
  labelled: boolean,
): {
  field: string;
  type: 'ordinal';
  scale: { type: 'band'; domain: number[]; paddingInner: number; paddingOuter: number };
  axis: object;
} {
  const named = layers.length <= NAMED_LAYERS && inner / layers.length >= 26;
  const labels = layers.map((layer) => truncateMiddle(shortLayerName(layer.name, layer.op), 20));
  const axis = named
    ? {
        labelExpr: `${JSON.stringify(labels)}[datum.value - 1]`,
        labelAngle: -40,
        labelOverlap: false,
        labelLimit: 150,
        title: null,
      }
    : { values: thinnedTicks(layers.length, inner), labelAngle: 0, labelOverlap: false, title: 'layer number' };
  return {
    field: 'layer',
    type: 'ordinal',
    scale: {
      type: 'band',
      domain: layers.map((_, i) => i + 1),
      paddingInner: inner / layers.length < 5 ? 0.05 : 0.2,
      paddingOuter: 0.1,
    },
    axis: labelled ? { ...axis, ticks: false } : { labels: false, ticks: false, title: null },
  };
}

export function tip(layer: NamedLayer, index: number, text: string): string {
  return `${index + 1}. ${printable(layer.name)}: ${text}`;
}
