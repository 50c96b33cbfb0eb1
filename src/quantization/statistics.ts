/** The calibration pass: everything a quantizer asks of the activations, gathered while the samples stream by. */
import {
  histogramProbe,
  rangeProbe,
  sameElements,
  type HistogramProbe,
  type Range,
  type RangeProbe,
} from '../flow/activation-probe.js';
import { gramProbe, type Gram, type GramProbe } from '../flow/gram-probe.js';
import type { Histogram } from '../flow/histogram.js';
import { Graph, type Value } from '../onnx/graph.js';
import type { WeightLayer } from '../onnx/layers.js';
import { runProbes, type Probe } from '../runtime/probe.js';
import type { QuantizationContext } from './method.js';

export interface CalibrationStatistics {
  readonly ranges: ReadonlyMap<string, Range>;
  readonly histograms: ReadonlyMap<string, Histogram>;
  /** By layer name; layers whose matrix would be too large are absent. */
  readonly grams: ReadonlyMap<string, Gram>;
}

export interface StatisticsRequest {
  readonly ranges: boolean;
  readonly histograms: boolean;
  readonly grams: boolean;
  /** Other probes, run with the histograms on a part of the samples. */
  readonly extra?: readonly Probe[];
}

/** What the pass needs of a method's context. */
export type CalibrationContext = Pick<
  QuantizationContext,
  'engine' | 'model' | 'shapes' | 'layers' | 'quantizable' | 'calibration' | 'calibrationSamples' | 'control'
>;

/** Gram matrices of more columns are not gathered: n^2 doubles and n^3 operations stop paying off. */
const MAX_GRAM_COLUMNS = 4608;
/** Gram matrices held at a time; beyond it another pass over the samples is made. */
const GRAM_BYTES_PER_PASS = 384e6;

/** Elements of each activation and sample that enter its histogram. */
const HISTOGRAM_SAMPLES = 1024;
/** Samples whose histograms and flow are taken; ranges and Gram matrices see all of them. */
const SAMPLED = 128;

export async function gatherStatistics(
  context: CalibrationContext,
  request: StatisticsRequest,
): Promise<CalibrationStatistics> {
  const ranges = new Map<string, RangeProbe>();
  const histograms = new Map<string, HistogramProbe>();
  for (const name of context.quantizable) {
    if (request.histograms) histograms.set(name, histogramProbe(name, HISTOGRAM_SAMPLES));
  }
  if (request.ranges) {
    const graph = new Graph(context.model);
    const bySource = new Map<Value, RangeProbe>();
    for (const name of context.quantizable) {
      const source = sameElements(graph.mustGet(name));
      const probe = bySource.get(source) ?? rangeProbe(source.name);
      bySource.set(source, probe);
      ranges.set(name, probe);
    }
  }
  const passes: Map<string, GramProbe>[] = [new Map()];
  if (request.grams) {
    let bytes = 0;
    for (const layer of context.layers) {
      if (layer.op === 'Gather' || layer.cols > MAX_GRAM_COLUMNS) continue;
      const size = layer.groups * layer.cols ** 2 * 8;
      if (bytes + size > GRAM_BYTES_PER_PASS && passes.at(-1)!.size > 0) {
        passes.push(new Map());
        bytes = 0;
      }
      passes.at(-1)!.set(layer.name, gramProbe(layer, gramRows(layer, context.calibrationSamples)));
      bytes += size;
    }
  }
  const sampled = [...histograms.values(), ...(request.extra ?? [])];
  if (sampled.length > 0) {
    await runProbes(
      {
        engine: context.engine,
        model: context.model,
        shapes: context.shapes,
        batches: context.calibration({ limit: SAMPLED }),
        probes: sampled,
        total: Math.min(SAMPLED, context.calibrationSamples),
        stage: 'measure flow',
      },
      context.control,
    );
  }
  for (const [index, grams] of passes.entries()) {
    const first = index === 0 ? [...new Set(ranges.values())] : [];
    if (first.length + grams.size === 0) continue;
    await runProbes(
      {
        engine: context.engine,
        model: context.model,
        shapes: context.shapes,
        batches: context.calibration({ wide: grams.size > 0 }),
        probes: [...first, ...grams.values()],
        total: context.calibrationSamples,
        stage: passes.length > 1 ? `calibrate (pass ${String(index + 1)} of ${String(passes.length)})` : 'calibrate',
      },
      context.control,
    );
  }
  return {
    ranges: mapResults(ranges),
    histograms: mapResults(histograms),
    grams: mapResults(new Map(passes.flatMap((pass) => [...pass]))),
  };
}

/** Positions per sample that give each Gram matrix some eight rows per column. */
function gramRows(layer: WeightLayer, samples: number): number {
  return Math.max(4, Math.ceil((8 * layer.cols) / Math.max(samples, 1)));
}

function mapResults<T>(probes: ReadonlyMap<string, { result(): T }>): Map<string, T> {
  return new Map([...probes].map(([name, probe]) => [name, probe.result()]));
}
