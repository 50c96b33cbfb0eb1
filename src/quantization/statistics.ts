/** The calibration pass: everything a quantizer asks of the activations, gathered while the samples stream by. */
import {
  histogramProbe,
  rangeProbe,
  sameElements,
  type HistogramProbe,
  type Range,
  type RangeProbe,
} from '../flow/activation-probe.js';
import { gatherGrams } from '../flow/gather-grams.js';
import type { Gram } from '../flow/gram-probe.js';
import type { Histogram } from '../flow/histogram.js';
import { Graph, type Value } from '../onnx/graph.js';
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
  const { engine, model, shapes, calibrationSamples: samples } = context;
  const grams = await gatherGrams(
    {
      ...{ engine, model, shapes, samples, layers: request.grams ? context.layers : [] },
      batches: (wide) => context.calibration({ wide }),
      others: [...new Set(ranges.values())],
    },
    context.control,
  );
  return { ranges: mapResults(ranges), histograms: mapResults(histograms), grams };
}

function mapResults<T>(probes: ReadonlyMap<string, { result(): T }>): Map<string, T> {
  return new Map([...probes].map(([name, probe]) => [name, probe.result()]));
}
