/**
 * Probes: small pieces of graph, added to a model, that reduce its activations inside the engine, and what they add up
 * to over a dataset. One pass over the samples serves any number of probes; memory does not depend on the samples.
 */
import type { ModelProto } from 'onnx-buf';
import { throwIfAborted } from '../errors.js';
import { Graph, type Value } from '../onnx/graph.js';
import { toBytes } from '../onnx/to-bytes.js';
import type { RunControl } from '../progress.js';
import type { Batch } from '../data/dataset.js';
import type { Engine, HostTensor } from './engine.js';
import { namedFeeds } from './rows.js';
import { exposeValue, type TracedValues } from './trace.js';

/** What a probe sees while it adds its nodes. */
export interface ProbeContext {
  readonly graph: Graph;
  /** Dims of every value for a batch of one sample. */
  readonly shapes: TracedValues;
}

/** One measurement. `attach` runs once per pass; `update` once per batch, with the values it returned. */
export interface Probe {
  attach(context: ProbeContext): Value[];
  update(values: HostTensor[], batch: Batch): void;
}

export interface ProbePass {
  engine: Engine;
  model: ModelProto;
  shapes: TracedValues;
  batches: AsyncIterable<Batch>;
  probes: readonly Probe[];
  /** Samples that `batches` delivers, for progress events. */
  total: number;
  /** Stage name for progress events. */
  stage: string;
}

/**
 * Streams the batches through the model with all probes attached.
 * @throws FlowCompressError whatever the engine or the data reports; `aborted` when the signal fires.
 */
export async function runProbes(pass: ProbePass, control: RunControl = {}): Promise<void> {
  const graph = new Graph(pass.model);
  const context: ProbeContext = { graph, shapes: pass.shapes };
  // Attach everything first: names must stay unique and a value may be asked for twice.
  const wanted = pass.probes.map((probe) => probe.attach(context));
  // An engine compiles no model without outputs.
  if (wanted.every((values) => values.length === 0)) return;
  graph.outputs.length = 0;
  for (const values of wanted) for (const value of values) exposeValue(graph, value);
  graph.removeDead();
  const fetched = wanted.map((values) => values.map((v) => v.name));
  const session = await pass.engine.createSession(toBytes(graph.toModel()), { memoryPattern: false });
  const names = new Set(graph.inputs.map((v) => v.name));
  let done = 0;
  try {
    control.onProgress?.({ stage: pass.stage, done, total: pass.total });
    for await (const batch of pass.batches) {
      throwIfAborted(control.signal);
      const results = await session.run(namedFeeds(batch.feeds, names));
      pass.probes.forEach((probe, i) => {
        probe.update(
          fetched[i]!.map((name) => results[name]!),
          batch,
        );
      });
      done += batch.size;
      control.onProgress?.({ stage: pass.stage, done, total: pass.total });
    }
  } finally {
    await session.release();
  }
}
