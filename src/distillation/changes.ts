/** Mean flowChange of a model's units over samples. */
import type { ModelProto } from 'onnx-buf';
import type { Batch } from '../data/dataset.js';
import type { ChannelMap } from '../flow/channel-map.js';
import type { RunControl } from '../progress.js';
import type { Engine } from '../runtime/engine.js';
import { runProbes, type Probe } from '../runtime/probe.js';
import type { TracedValues } from '../runtime/trace.js';
import { needsMap } from './maps.js';
import { attachChange, type FlowUnit } from './units.js';

export interface ChangesRequest {
  readonly engine: Engine;
  readonly model: ModelProto;
  readonly shapes: TracedValues;
  readonly units: readonly FlowUnit[];
  /** As far as they were fitted. */
  readonly maps: ReadonlyMap<string, ChannelMap>;
  readonly batches: () => AsyncIterable<Batch>;
  readonly samples: number;
}

/** By unit; undefined for one whose map is not there. Errors as `runProbes`. */
export async function meanChanges(request: ChangesRequest, control: RunControl = {}): Promise<(number | undefined)[]> {
  const { engine, model, shapes, units, maps, samples } = request;
  const sums = units.map(() => ({ sum: 0, count: 0 }));
  const probes = units.flatMap((unit, i): Probe[] =>
    needsMap(unit) && !maps.has(unit.name)
      ? []
      : [
          {
            attach: ({ graph }) => [attachChange(graph, unit, maps.get(unit.name)).value],
            update([changes], { size }) {
              for (const change of (changes!.data as Float32Array).subarray(0, size)) sums[i]!.sum += change;
              sums[i]!.count += size;
            },
          },
        ],
  );
  const batches = request.batches();
  await runProbes({ engine, model, shapes, batches, probes, total: samples, stage: 'flow' }, control);
  return sums.map(({ sum, count }) => (count > 0 ? sum / count : undefined));
}
