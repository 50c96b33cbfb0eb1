/** Channel maps of flow units whose tensors differ in shape, fitted on samples (flow/channel-map.ts). */
import type { ModelProto } from 'onnx-buf';
import type { Batch } from '../data/dataset.js';
import { isDetermined, solveChannelMap, type ChannelMap } from '../flow/channel-map.js';
import { channelSumsProbe, withSampleMask } from '../flow/channel-sums-probe.js';
import { Graph } from '../onnx/graph.js';
import type { RunControl } from '../progress.js';
import type { Engine } from '../runtime/engine.js';
import { runProbes } from '../runtime/probe.js';
import type { TracedValues } from '../runtime/trace.js';
import type { FlowUnit } from './units.js';

export interface MapsRequest {
  readonly engine: Engine;
  readonly model: ModelProto;
  readonly shapes: TracedValues;
  readonly units: readonly FlowUnit[];
  /** A fresh pass over the samples. */
  readonly batches: () => AsyncIterable<Batch>;
  readonly samples: number;
}

/** Maps by name of the unit; none for units that need no map, or that there are too few samples for. Errors as `runProbes`. */
export async function fitMaps(request: MapsRequest, control: RunControl = {}): Promise<Map<string, ChannelMap>> {
  const { engine, model, shapes, units, samples } = request;
  const mask = new Graph(model).uniqueName('sample mask');
  const fits = units.flatMap(({ name, change }) =>
    change.kind === 'step' && change.step.kind === 'mapped'
      ? [{ name, probe: channelSumsProbe(change.step, mask) }]
      : [],
  );
  if (fits.length === 0) return new Map();
  const batches = withSampleMask(request.batches(), mask);
  const probes = fits.map(({ probe }) => probe);
  await runProbes({ engine, model, shapes, batches, probes, total: samples, stage: 'map channels' }, control);
  return new Map(
    fits.flatMap(({ name, probe }) => {
      const sums = probe.result();
      return isDetermined(sums) ? [[name, solveChannelMap(sums)] as const] : [];
    }),
  );
}

/** Whether the unit's flowChange stands on a channel map. */
export function needsMap({ change }: FlowUnit): boolean {
  return change.kind === 'step' && change.step.kind === 'mapped';
}
