/** Plots of a distillation: terms of the loss over the training, flow over depth in both models, which layers belong together. */
import type { TopLevelSpec } from 'vega-lite';
import { printable, shortLayerName, significant, truncateMiddle } from '../format.js';
import type { PlacedLayer } from '../distillation.js';
import type { FlowPoint, MappedLayer } from '../report.js';
import type { CoursePoint } from '../training.js';
import { panels } from './course-panels.js';
import type { Panel } from './course-panels.js';
import { COLOURS, legendLayout, plotWidth } from './theme.js';
import { lossPanel, scorePanel } from './training.js';

/** What a model is compared with is grey, as in the other plots. */
const SIDES = [
  { side: 'teacher', colour: COLOURS.muted },
  { side: 'student', colour: COLOURS.series[0] },
] as const;

/** Colours of the terms; the first is the whole loss's, the third the score's. */
const TERM_COLOURS = [COLOURS.series[4], COLOURS.series[3], COLOURS.series[5], COLOURS.series[1]] as const;

/** The loss, a small panel for each of its terms, and the score on VAL. A single term is the loss itself. */
export function termsPlot(
  course: readonly CoursePoint[],
  terms: readonly string[],
  metric: string,
  width: number,
): TopLevelSpec {
  const all = terms.map((name, i): Panel<CoursePoint> => ({
    ...{ title: truncateMiddle(`term: ${printable(name)}`, 40), height: 80, zero: 'log' },
    colour: TERM_COLOURS[i % TERM_COLOURS.length],
    value: (point) => point.terms?.[name],
    tip: (point) => `${printable(name)} ${significant(point.terms?.[name] ?? 0, 4)}`,
  }));
  return panels(course, 'epoch', [lossPanel(90), ...all, scorePanel(metric)], width);
}

/** Flow change over the depth of the network, a line for each model. */
export function flowDepthPlot(
  flow: { readonly teacher: readonly FlowPoint[]; readonly student: readonly FlowPoint[] },
  width: number,
): TopLevelSpec {
  const inner = plotWidth(width);
  const shown = SIDES.filter(({ side }) => flow[side].length > 0);
  const names = shown.map(({ side }) => side);
  const rows = shown.flatMap(({ side }) =>
    flow[side].map(({ name, depth, change }, order) => ({
      ...{ side, depth, change, order },
      tip: `${side}, ${printable(name)}: ${significant(change, 3)}`,
    })),
  );
  const most = Math.max(...shown.map(({ side }) => flow[side].length));
  const size = Math.max(8, Math.min(36, inner / most));
  return {
    width: inner,
    height: 200,
    title: 'flow change',
    data: { values: rows },
    encoding: {
      x: {
        field: 'depth',
        type: 'quantitative',
        scale: { domain: [0, 1], nice: false, padding: 8 },
        axis: { title: 'depth in the network', values: [0, 0.2, 0.4, 0.6, 0.8, 1], format: '~g', ticks: false },
      },
      y: { field: 'change', type: 'quantitative', scale: { zero: true, nice: true }, axis: { title: null } },
      color: {
        field: 'side',
        type: 'nominal',
        scale: { domain: names, range: shown.map(({ colour }) => colour) },
        legend: legendLayout(names, inner),
      },
      description: { field: 'tip' },
    },
    layer: [
      {
        mark: { type: 'line', strokeWidth: 1.5 },
        encoding: { order: { field: 'order', type: 'quantitative' }, description: { field: 'side' } },
      },
      { mark: { type: 'point', filled: true, size, opacity: 1 } },
    ],
  };
}

/** Pixels: the font of the names of layers, the least distance of two, and that of layers where there are few. */
const NAME_SIZE = 10.5;
const NAME_GAP = 11;
const LAYER_GAP = 22;

/** Share of the width that the names of either side have. */
const ASIDE = 0.36;

/** Layers of the student to the left and the teacher's to the right by depth, joined as they were held against each other. */
export function mappingPlot(
  mapping: readonly MappedLayer[],
  layers: { readonly student: readonly PlacedLayer[]; readonly teacher: readonly PlacedLayer[] },
  width: number,
): TopLevelSpec {
  const inner = plotWidth(width);
  const height = Math.max(120, Math.min(600, LAYER_GAP * Math.max(layers.student.length, layers.teacher.length)));
  const dots = SIDES.flatMap(({ side, colour }) => {
    const paired = new Set(mapping.map((pair) => pair[side]));
    const at = inner * (side === 'student' ? ASIDE : 1 - ASIDE);
    // Without a canvas Vega takes a character for 0.8 of the font size.
    const characters = Math.floor((ASIDE * inner) / (0.8 * NAME_SIZE));
    return dotsOf(layers[side], paired, height, characters).map((dot) => ({ ...dot, side, colour, at }));
  });
  const scaleX = { domain: [0, inner], nice: false };
  const scaleY = { domain: [0, 1], nice: false, reverse: true };
  const labelExpr = "datum.value === 0 ? 'input' : 'output'";
  const x = { field: 'at', type: 'quantitative' as const, scale: scaleX, axis: null };
  const axis = { title: null, values: [0, 1], grid: false, labelExpr };
  const y = { field: 'depth', type: 'quantitative' as const, scale: scaleY, axis };
  const ends = { x, y, x2: { field: 'at2' }, y2: { field: 'depth2' }, description: { field: 'tip' } };
  const text = { type: 'text' as const, fontSize: NAME_SIZE, color: COLOURS.ink };
  const own = (field: string) => ({ field, type: 'nominal' as const, scale: null });
  return {
    ...{ width: inner, height, data: { values: dots } },
    layer: [
      {
        data: { values: linesOf(mapping, dots) },
        mark: { type: 'rule', color: COLOURS.series[2], opacity: 0.65, strokeCap: 'round' },
        encoding: {
          ...ends,
          strokeWidth: { field: 'thickness', type: 'quantitative', scale: null },
          strokeDash: own('dash'),
        },
      },
      {
        mark: { type: 'point', filled: true, size: 45 },
        encoding: {
          ...{ x, y, color: own('colour'), description: { field: 'tip' } },
          opacity: { field: 'opacity', type: 'quantitative', scale: null },
        },
      },
      ...(['right', 'left'] as const).map((align, i) => ({
        transform: [{ filter: `datum.side === '${i === 0 ? 'student' : 'teacher'}' && datum.label !== ''` }],
        mark: { ...text, align, dx: i === 0 ? -9 : 9 },
        encoding: { x, y, text: { field: 'label' }, description: { field: 'tip' } },
      })),
      {
        transform: [{ aggregate: [], groupby: ['side', 'at', 'colour'] }],
        mark: { ...text, fontSize: 12, y: -18 },
        encoding: { x, text: { field: 'side' }, color: own('colour'), description: { field: 'side' } },
      },
    ],
  };
}

interface Dot {
  readonly layer: string;
  readonly depth: number;
  readonly opacity: number;
  /** Empty where there is no room. */
  readonly label: string;
  readonly tip: string;
}

/** Layers without a partner are pale. Names that would touch the one above are left out, those of partners come first. */
function dotsOf(
  layers: readonly PlacedLayer[],
  paired: ReadonlySet<string>,
  height: number,
  characters: number,
): Dot[] {
  const named: PlacedLayer[] = [];
  for (const isPaired of [true, false]) {
    for (const layer of layers) {
      const isFree = named.every(({ depth }) => Math.abs(depth - layer.depth) * height >= NAME_GAP);
      if (paired.has(layer.name) === isPaired && isFree) named.push(layer);
    }
  }
  return layers.map((layer) => ({
    ...{ layer: layer.name, depth: layer.depth, tip: printable(layer.name) },
    opacity: paired.has(layer.name) ? 1 : 0.35,
    label: named.includes(layer) ? truncateMiddle(shortLayerName(layer.name, operatorIn(layer.name)), characters) : '',
  }));
}

/** The operator that exporters put at the end of a name: `Conv` in `/layer1/conv/Conv_2`; empty where there is none. */
function operatorIn(name: string): string {
  return /\/([A-Z][A-Za-z]*)(_\d+)?$/.exec(name)?.[1] ?? '';
}

/** From student to teacher, as thick as the share in the loss; dashed where there is none. */
function linesOf(
  mapping: readonly MappedLayer[],
  dots: readonly (Dot & { readonly side: 'student' | 'teacher'; readonly at: number })[],
): object[] {
  const largest = mapping.reduce((most, { weight }) => Math.max(most, weight), 0);
  return mapping.flatMap(({ student, teacher, weight, cka }) => {
    const from = dots.find(({ side, layer }) => side === 'student' && layer === student);
    const to = dots.find(({ side, layer }) => side === 'teacher' && layer === teacher);
    if (from === undefined || to === undefined) return [];
    const alike = cka === undefined ? '' : `CKA ${cka.toFixed(3)}, `;
    return [
      {
        ...{ at: from.at, depth: from.depth, at2: to.at, depth2: to.depth },
        thickness: 0.8 + (weight > 0 ? 4.2 * (weight / largest) : 0),
        dash: weight > 0 ? [1, 0] : [3, 3],
        tip: `${printable(student)} → ${printable(teacher)}: ${alike}weight ${significant(weight, 3)}`,
      },
    ];
  });
}
