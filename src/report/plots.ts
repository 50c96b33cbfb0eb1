/** Which plots a report gets. Each one is drawn at the width the reader has, as SVG text. */
import { STATES } from './compressing.js';
import { benchPlots } from './bench-plots.js';
import { placedLayers } from './distillation.js';
import { baseName, formatBits, metricLabel } from './format.js';
import { flowDepthPlot, mappingPlot, termsPlot } from './plots/distillation.js';
import { bitsAndSensitivityPlot, bytesPlot, costPlot, flowPlot, klPlot, sensitivityPlot } from './plots/layers.js';
import type { PlotLayer } from './plots/layers.js';
import { renderSvg } from './plots/render.js';
import { dynamicsCaption, dynamicsPlot, layerMacsPlot, placedBy, widthsPlot } from './plots/pruning.js';
import { latencyPlot, tradeoffPlot } from './plots/tradeoff.js';
import { coursePlot, learningRatePlot, recoveryPlot } from './plots/training.js';
import type { LatencyEntry, TradeoffPoint } from './plots/tradeoff.js';
import type { Plot } from './plots/plot.js';
import { scoreNameOf } from './quality.js';
import type { RecoveredReport } from './recovery.js';
import type {
  CompressReport,
  DistillReport,
  EvaluateReport,
  PruneReport,
  QuantizeReport,
  Report,
  TrainReport,
} from './report.js';
import { latenciesOf } from './summary.js';
import { courseOf, termsOf } from './training.js';
import type { CoursePoint, TrainedReport } from './training.js';

export type { Plot } from './plots/plot.js';

/** The plots that the measured values of a report allow; a plot whose values are absent is left out. */
export function plotsOf(report: Report): Plot[] {
  switch (report.command) {
    case 'quantize':
      return present([
        tradeoffOfQuantize(report),
        latencyOf([
          { label: 'original', latencies: latenciesOf(report.before), reference: true },
          { label: report.method, latencies: latenciesOf(report.after) },
        ]),
        recoveryOf(report),
        bitsOf(report.layers),
        klOf(report.layers),
        bytesOf(report.layers),
        flowOf(report.layers),
      ]);
    case 'profile':
      return present([sensitivityOf(report.layers), klOf(report.layers), flowOf(report.layers)]);
    case 'evaluate':
      return present([tradeoffOfFiles(report), latencyOf(fileLatencies(report))]);
    case 'bench':
      return benchPlots(report);
    case 'inspect':
      return present([costOf(report.model.rows)]);
    case 'prune':
      return present([
        dynamicsOf(report),
        latencyOf([
          { label: 'original', latencies: latenciesOf(report.before), reference: true },
          { label: 'pruned', latencies: latenciesOf(report.after) },
        ]),
        widthsOf(report),
        layerMacsOf(report),
        recoveryOf(report),
      ]);
    case 'compress':
      return present([
        statesOf(report),
        latencyOf([
          { label: 'original', latencies: latenciesOf(report.before), reference: true },
          { label: 'compressed', latencies: latenciesOf(report.after) },
        ]),
        widthsOf(report),
      ]);
    case 'train':
      return present([courseOfTraining(report), learningRateOf(report)]);
    case 'distill':
      return present([
        courseOfDistillation(report),
        flowOfBoth(report),
        mappingOf(report),
        latencyOf([
          { label: 'teacher', latencies: latenciesOf(report.before), reference: true },
          { label: 'student', latencies: latenciesOf(report.after) },
        ]),
        learningRateOf(report),
      ]);
  }
}

/** A plot as a standalone SVG document of the given width in pixels, with or without tooltips on its marks. */
export async function plotToSvg(plot: Plot, width: number, tooltips = true): Promise<string> {
  return await renderSvg(plot.spec(width), tooltips);
}

function present(plots: readonly (Plot | undefined)[]): Plot[] {
  return plots.filter((plot) => plot !== undefined);
}

function some<T>(layers: readonly T[], key: (layer: T) => unknown): boolean {
  return layers.some((layer) => key(layer) !== undefined);
}

function bitsOf(layers: readonly PlotLayer[]): Plot | undefined {
  if (layers.length === 0) return undefined;
  return {
    id: 'bits',
    title: 'Bits and sensitivity per layer',
    caption: 'Layers in the order of the network.',
    span: 'full',
    spec: (width) => bitsAndSensitivityPlot(layers, width),
  };
}

function sensitivityOf(layers: readonly PlotLayer[]): Plot | undefined {
  if (!some(layers, (layer) => layer.sensitivity)) return undefined;
  return {
    id: 'sensitivity',
    title: 'Sensitivity per layer',
    caption:
      'From the information flow of the layer and the spread of its weights, relative to the most sensitive layer.',
    span: 'full',
    spec: (width) => sensitivityPlot(layers, width),
  };
}

function klOf(layers: readonly PlotLayer[]): Plot | undefined {
  if (!layers.some((layer) => Object.keys(layer.kl ?? {}).length > 0)) return undefined;
  const chosen = some(layers, (layer) => layer.bits) ? ' A dot marks the width that was chosen.' : '';
  return {
    id: 'kl',
    title: 'Cost of every width, layer by layer',
    caption: `KL divergence of the network's outputs with only this layer quantized. A stronger colour is worse.${chosen}`,
    span: 'full',
    spec: (width) => klPlot(layers, width),
  };
}

function bytesOf(layers: readonly PlotLayer[]): Plot | undefined {
  if (!some(layers, (layer) => layer.bytesBefore)) return undefined;
  return {
    id: 'bytes',
    title: 'Bytes by layer, before and after',
    caption: 'Weights with their scales and zero points, as stored in the file.',
    span: 'full',
    spec: (width) => bytesPlot(layers, width),
  };
}

function flowOf(layers: readonly PlotLayer[]): Plot | undefined {
  if (!some(layers, (layer) => layer.flow) && !some(layers, (layer) => layer.flowChange)) return undefined;
  return {
    id: 'flow',
    title: 'Information flow through the depth',
    caption:
      'Mean over the calibration samples. The change is the relative difference between what enters a layer and what leaves it.',
    span: 'full',
    spec: (width) => flowPlot(layers, width),
  };
}

function costOf(rows: readonly PlotLayer[]): Plot | undefined {
  if (rows.length === 0) return undefined;
  return {
    id: 'cost',
    title: 'Where the parameters and the work are',
    caption: 'Layers in the order of the network.',
    span: 'full',
    spec: (width) => costPlot(rows, width),
  };
}

function courseOfTraining(report: TrainReport): Plot | undefined {
  const course = drawnCourse(report);
  return course && coursePlotOf((width) => coursePlot(course, report.training.metric, width), 'After each epoch.');
}

function courseOfDistillation(report: DistillReport): Plot | undefined {
  const course = drawnCourse(report);
  const terms = termsOf(report.history);
  return (
    course &&
    coursePlotOf(
      (width) => termsPlot(course, terms, report.training.metric, width),
      'After each epoch. Terms of the loss are means on TRAIN, without their factors.',
    )
  );
}

function coursePlotOf(spec: Plot['spec'], caption: string): Plot {
  return {
    id: 'course',
    title: 'Course of the training',
    caption: `${caption} The line marks the weights that were written: those with the best score on VAL.`,
    span: 'full',
    spec,
  };
}

function learningRateOf(report: TrainedReport): Plot | undefined {
  const course = drawnCourse(report);
  return (
    course && {
      id: 'learning-rate',
      title: 'Learning rate',
      caption: 'At the end of each epoch.',
      span: 'full',
      spec: (width) => learningRatePlot(course, width),
    }
  );
}

/** One evaluation alone is no course. */
function drawnCourse(report: TrainedReport): CoursePoint[] | undefined {
  const course = courseOf(report);
  return course.length < 2 ? undefined : course;
}

function flowOfBoth({ flow }: DistillReport): Plot | undefined {
  if (flow === undefined || flow.student.length + flow.teacher.length === 0) return undefined;
  return {
    id: 'flow-depth',
    title: 'Information flow through the depth',
    caption:
      'Relative difference between what enters a layer and what leaves it, mean over the calibration samples, after the training. A point is a layer.',
    span: 'full',
    spec: (width) => flowDepthPlot(flow, width),
  };
}

/** Pairs of layers that can be told apart when they are drawn. */
const DRAWN_PAIRS = 40;

/** Whether the mapping of the layers is drawn; a longer one is better in a table. */
export function isMappingDrawn({ mapping = [] }: Pick<DistillReport, 'mapping'>): boolean {
  return mapping.length > 0 && mapping.length <= DRAWN_PAIRS;
}

function mappingOf(report: DistillReport): Plot | undefined {
  const { mapping } = report;
  if (mapping === undefined || !isMappingDrawn(report)) return undefined;
  const unselected = mapping.some(({ weight }) => weight === 0) ? '; dashed lines have none' : '';
  return {
    id: 'mapping',
    title: 'Layers held against each other',
    caption: `By depth. The width of a line is the share in the loss${unselected}.`,
    span: 'full',
    spec: (width) => mappingPlot(mapping, placedLayers(report), width),
  };
}

function dynamicsOf(report: PruneReport): Plot | undefined {
  const cost = placedBy(report);
  if (cost === undefined || report.steps.length === 0) return undefined;
  return {
    id: 'dynamics',
    title: 'Course of the pruning',
    caption: dynamicsCaption(report, cost),
    span: 'full',
    spec: (width) => dynamicsPlot(report, cost, width),
  };
}

function statesOf({ states }: CompressReport): Plot | undefined {
  const name = scoreNameOf(states.map(({ quality }) => quality));
  const points = states.flatMap(({ name: stage, quality, bytes }, i): TradeoffPoint[] => {
    const value = name && quality[name];
    if (name === undefined || value === undefined) return [];
    const isFirst = i === 0;
    return [
      {
        ...{ series: isFirst ? 'original' : 'stages', reference: isFirst, name: STATES[stage], cost: bytes },
        metric: { name, value, split: 'val', samples: 0 },
        ...(!isFirst && { label: STATES[stage] }),
        highlight: i === states.length - 1,
      },
    ];
  });
  return points.length < 2 || name === undefined
    ? undefined
    : {
        id: 'states',
        title: 'Quality against bytes, stage by stage',
        caption: `${metricLabel(name)} on VAL; up and to the left is better. The ring is this file.`,
        span: 'half',
        spec: (width) => tradeoffPlot(points, width),
      };
}

function widthsOf({ layers }: Pick<PruneReport, 'layers'>): Plot | undefined {
  if (layers.length === 0) return undefined;
  return {
    id: 'widths',
    title: 'Widths before and after',
    caption: 'Output channels of the layers in the order of the network.',
    span: 'full',
    spec: (width) => widthsPlot(layers, width),
  };
}

function layerMacsOf({ layers }: PruneReport): Plot | undefined {
  if (!some(layers, (layer) => layer.macs)) return undefined;
  return {
    id: 'layer-macs',
    title: 'Where the work was and is',
    caption: 'Multiply-accumulates of the layers in the order of the network.',
    span: 'full',
    spec: (width) => layerMacsPlot(layers, width),
  };
}

function recoveryOf({ recovery }: RecoveredReport): Plot | undefined {
  if (recovery === undefined || recovery.points.length === 0) return undefined;
  return {
    id: 'recovery',
    title: 'Course of the recovery',
    caption: 'Measured on VAL, of the files that would have been written. The line marks the one that was.',
    span: 'full',
    spec: (width) => recoveryPlot(recovery, width),
  };
}

function latencyOf(entries: readonly LatencyEntry[]): Plot | undefined {
  const measured = entries.filter((entry) => entry.latencies.length > 0);
  if (measured.length === 0) return undefined;
  return {
    id: 'latency',
    title: 'Latency',
    caption:
      'Median time per sample in ONNX Runtime; the text is the time of the whole batch, the tick the 90th percentile.',
    span: 'half',
    spec: (width) => latencyPlot(measured, width),
  };
}

function fileLatencies(report: EvaluateReport): LatencyEntry[] {
  const labels = fileLabels(report);
  return report.files.map((file, i) => ({ label: labels[i], latencies: latenciesOf(file), reference: i === 0 }));
}

/** File names without their folders where that is still unambiguous. */
function fileLabels(report: EvaluateReport): string[] {
  const names = report.files.map((file) => baseName(file.path));
  return report.files.map((file, i) =>
    names.indexOf(names[i]) === names.lastIndexOf(names[i]) ? names[i] : file.path,
  );
}

function tradeoffOfFiles(report: EvaluateReport): Plot | undefined {
  const labels = fileLabels(report);
  const points = report.files.flatMap((file, i): TradeoffPoint[] =>
    file.metric === undefined
      ? []
      : [{ series: labels[i], name: file.path, cost: file.bytes, metric: file.metric, reference: i === 0 }],
  );
  return tradeoff(points);
}

function tradeoffOfQuantize(report: QuantizeReport): Plot | undefined {
  const { before, after, budget, sweep = [], baselines = [], method } = report;
  const points: TradeoffPoint[] = [];
  if (after.metric !== undefined) {
    const width = budget?.unit === 'bits' ? budget.requested : undefined;
    points.push({
      series: method,
      name: 'this file',
      cost: after.bytes,
      metric: after.metric,
      highlight: true,
      line: sweep.length > 0,
      ...(width !== undefined && sweep.every(({ bits }) => bits !== width) && { label: `${formatBits(width)}b` }),
    });
  }
  for (const { bits, bytes, metric } of sweep) {
    const width = formatBits(bits);
    points.push({ series: method, name: `${width} bits`, cost: bytes, metric, label: `${width}b`, line: true });
  }
  for (const { method: series, bits, bytes, metric } of baselines) {
    points.push({
      series,
      name: bits === undefined ? undefined : `${formatBits(bits)} bits`,
      cost: bytes,
      metric,
      line: true,
    });
  }
  if (before.metric !== undefined)
    points.push({ series: 'original', cost: before.bytes, metric: before.metric, reference: true });
  return tradeoff(points, ' The ring is this file.');
}

/** Points of the most frequent metric; one point alone says nothing. */
function tradeoff(points: readonly TradeoffPoint[], note = ''): Plot | undefined {
  const name = points[0]?.metric.name;
  const comparable = points.filter((point) => point.metric.name === name && point.cost > 0);
  if (name === undefined || comparable.length < 2) return undefined;
  const split = comparable[0].metric.split;
  return {
    id: 'tradeoff',
    title: 'Accuracy against bytes',
    caption: `Measured ${metricLabel(name)} of the files on the ${split} split; up and to the left is better.${note}`,
    span: 'half',
    spec: (width) => tradeoffPlot(comparable, width),
  };
}
