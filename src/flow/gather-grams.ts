/** Gram matrices of many layers over the calibration samples, in as many passes as memory asks for. */
import type { Batch } from '../data/dataset.js';
import type { WeightLayer } from '../onnx/layers.js';
import type { ModelProto } from 'onnx-buf';
import type { RunControl } from '../progress.js';
import type { Engine } from '../runtime/engine.js';
import { runProbes, type Probe } from '../runtime/probe.js';
import type { TracedValues } from '../runtime/trace.js';
import { gramProbe, type Gram, type GramProbe } from './gram-probe.js';

/** Gram matrices of more columns are not gathered: n^2 doubles and n^3 operations stop paying off. */
const MAX_GRAM_COLUMNS = 4608;
/** Gram matrices held at a time; beyond it another pass over the samples is made. */
const GRAM_BYTES_PER_PASS = 384e6;

export interface GramRequest {
  readonly engine: Engine;
  readonly model: ModelProto;
  /** Dims of every value for one sample. */
  readonly shapes: TracedValues;
  readonly layers: readonly WeightLayer[];
  /** A fresh pass over the samples. `wide`: what is read back is large and the same for any number of rows. */
  readonly batches: (wide: boolean) => AsyncIterable<Batch>;
  readonly samples: number;
  /** Other probes, run in the first pass. */
  readonly others?: readonly Probe[];
}

/** By layer name; layers whose matrix would be too large are absent. Errors as `runProbes`. */
export async function gatherGrams(request: GramRequest, control: RunControl = {}): Promise<Map<string, Gram>> {
  const { engine, model, shapes, layers, samples, others = [] } = request;
  const passes: Map<string, GramProbe>[] = [new Map()];
  let bytes = 0;
  for (const layer of layers) {
    if (layer.op === 'Gather' || layer.cols > MAX_GRAM_COLUMNS) continue;
    const size = layer.groups * layer.cols ** 2 * 8;
    if (bytes + size > GRAM_BYTES_PER_PASS && passes.at(-1)!.size > 0) {
      passes.push(new Map());
      bytes = 0;
    }
    passes.at(-1)!.set(layer.name, gramProbe(layer, gramRows(layer, samples)));
    bytes += size;
  }
  for (const [index, grams] of passes.entries()) {
    const probes = [...(index === 0 ? others : []), ...grams.values()];
    if (probes.length === 0) continue;
    const stage = passes.length > 1 ? `calibrate (pass ${String(index + 1)} of ${String(passes.length)})` : 'calibrate';
    const batches = request.batches(grams.size > 0);
    await runProbes({ engine, model, shapes, batches, probes, total: samples, stage }, control);
  }
  return new Map(passes.flatMap((pass) => [...pass].map(([name, probe]) => [name, probe.result()] as const)));
}

/** Positions per sample that give the matrix of a layer some eight rows per column. */
export function gramRows(layer: WeightLayer, samples: number): number {
  return Math.max(4, Math.ceil((8 * layer.cols) / Math.max(samples, 1)));
}
