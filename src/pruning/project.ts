/** Fits projections in closed form, and carries them out on a model and on what it is held against. */
import type { ModelProto } from 'onnx-buf';
import type { Batch } from '../data/dataset.js';
import type { PathTensor } from '../flow/change-plan.js';
import { isDetermined, solveChannelMap, sumsBetween, type ChannelMap, type ChannelSums } from '../flow/channel-map.js';
import { channelSumsProbe, withSampleMask } from '../flow/channel-sums-probe.js';
import { Graph } from '../onnx/graph.js';
import type { RunControl } from '../progress.js';
import type { Engine } from '../runtime/engine.js';
import { runProbes } from '../runtime/probe.js';
import type { TracedValues } from '../runtime/trace.js';
import type { Dependencies } from './groups.js';
import { putProjection, type Projection } from './projections.js';
import { placesLeft } from './units.js';

export interface ProjectionRequest {
  readonly engine: Engine;
  readonly model: ModelProto;
  /** Dims of every value for one sample. */
  readonly shapes: TracedValues;
  /** A fresh pass over the samples. */
  readonly batches: () => AsyncIterable<Batch>;
  readonly samples: number;
}

/** Second moments held at a time, in bytes; beyond it another pass over the samples is made. */
const BYTES_PER_PASS = 256e6;

/**
 * Second moments of what each projection would read and give, by its name; absent where there are too few samples to fit one, or
 * values are not finite. Errors as `runProbes`.
 */
export async function projectionSums(
  { engine, model, shapes, batches, samples }: ProjectionRequest,
  projections: readonly Projection[],
  control: RunControl = {},
): Promise<Map<string, ChannelSums>> {
  const mask = new Graph(model).uniqueName('samples');
  const passes: Projection[][] = [[]];
  let bytes = 0;
  for (const projection of projections) {
    const { from, to } = projection.step;
    const size = 8 * from.channels * (from.channels + to.channels);
    if (bytes + size > BYTES_PER_PASS && passes.at(-1)!.length > 0) {
      passes.push([]);
      bytes = 0;
    }
    passes.at(-1)!.push(projection);
    bytes += size;
  }
  const known = new Map<string, ChannelSums>();
  for (const pass of passes) {
    if (pass.length === 0) continue;
    const probes = pass.map(({ step }) => channelSumsProbe(step, mask));
    await runProbes(
      {
        ...{ engine, model, shapes, probes, total: samples, stage: 'fit projections' },
        batches: withSampleMask(batches(), mask),
      },
      control,
    );
    for (const [i, { name }] of pass.entries()) {
      const sums = probes[i]!.result();
      if (isDetermined(sums) && areFinite(sums)) known.set(name, sums);
    }
  }
  return known;
}

function areFinite({ gram, cross, sumX, sumY }: ChannelSums): boolean {
  return [gram, cross, sumX, sumY].every((sum) => sum.every(Number.isFinite));
}

/** A projection between the channels that are left of what it reads and gives. */
export interface FittedProjection {
  readonly projection: Projection;
  readonly map: ChannelMap;
  /** Channels before the cut that are left, ascending. */
  readonly inputs: readonly number[];
  readonly outputs: readonly number[];
}

/** Least squares between the channels that a cut leaves. @param removed 1 for every class that goes */
export function fitProjection(
  projection: Projection,
  sums: ChannelSums,
  { units }: Dependencies,
  removed: Uint8Array,
): FittedProjection {
  const left = ({ name, channels }: PathTensor): number[] => {
    const axis = units.axes.get(name)?.[1];
    if (axis?.size !== channels) return Array.from({ length: channels }, (_, channel) => channel);
    return placesLeft(axis, units, removed);
  };
  const { from, to } = projection.step;
  const [inputs, outputs] = [left(from), left(to)];
  return { projection, inputs, outputs, map: solveChannelMap(sumsBetween(sums, inputs, outputs)) };
}

/** The cut model with the projections in place of their layers. */
export function withProjections(model: ModelProto, fitted: readonly FittedProjection[]): ModelProto {
  return put(
    model,
    fitted.map(({ projection, map }) => ({ projection, map })),
  );
}

/** The same of the model before the cut, with zeros where channels are gone from the cut one. */
export function withMaskedProjections(model: ModelProto, fitted: readonly FittedProjection[]): ModelProto {
  return put(
    model,
    fitted.map(({ projection, map, inputs, outputs }) => {
      const { from, to } = projection.step;
      const matrix = new Float32Array(to.channels * from.channels);
      const bias = new Float32Array(to.channels);
      outputs.forEach((row, i) => {
        bias[row] = map.bias[i]!;
        inputs.forEach((column, j) => {
          matrix[row * from.channels + column] = map.matrix[i * inputs.length + j]!;
        });
      });
      return { projection, map: { matrix, bias } };
    }),
  );
}

function put(
  model: ModelProto,
  all: readonly { readonly projection: Projection; readonly map: ChannelMap }[],
): ModelProto {
  if (all.length === 0) return model;
  const graph = new Graph(model);
  for (const { projection, map } of all) putProjection(graph, projection, map);
  graph.removeDead();
  return graph.toModel();
}
