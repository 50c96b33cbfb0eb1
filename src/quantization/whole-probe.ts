/** How far the answers of a model move when the weights of all its layers are replaced at once: a network with its weights as inputs. */
import { TensorProto_DataType as DataType, type ModelProto } from 'onnx-buf';
import type { Batch } from '../data/dataset.js';
import { Graph } from '../onnx/graph.js';
import type { WeightLayer } from '../onnx/layers.js';
import { withFields } from '../onnx/message.js';
import { readFloats } from '../onnx/tensor.js';
import { toBytes } from '../onnx/to-bytes.js';
import { tensorInfo } from '../onnx/value-info.js';
import type { Engine, Feeds } from '../runtime/engine.js';
import { outputDivergence, type Outputs } from '../runtime/output-divergence.js';
import { namedFeeds } from '../runtime/rows.js';

export interface WholeProbeRequest {
  readonly engine: Engine;
  readonly model: ModelProto;
  readonly batch: Batch;
  /** Name of the output with one score per class, if the model has one. */
  readonly scores: string | undefined;
  /** One per weight tensor. */
  readonly layers: readonly WeightLayer[];
}

/** Divergence of the outputs with these weights, one array per layer in the layout of its initializer. */
export type WholeProbe = (weights: readonly Float32Array[]) => Promise<number>;

/** Opens the network for as long as the work takes. */
export async function withWholeProbe<T>(
  { engine, model, batch, scores, layers }: WholeProbeRequest,
  work: (probe: WholeProbe) => Promise<T>,
): Promise<T> {
  const graph = new Graph(model);
  const given = layers.map(({ weight, dims }, i) => {
    const own = graph.mustGet(weight.name);
    const name = graph.uniqueName(`probe weight ${String(i)}`);
    const fed = graph.addInitializer(withFields(own.initializer!, { name }));
    graph.replaceUses(own, fed);
    graph.feed(fed, tensorInfo(name, DataType.FLOAT, dims));
    return { name, dims, original: readFloats(own.initializer!) };
  });
  graph.removeDead();
  const session = await engine.createSession(toBytes(graph.toModel()));
  const taken = new Set(session.inputs.map(({ name }) => name));
  const answers = (weights: readonly Float32Array[]): Promise<Outputs> => {
    const feeds: Feeds = { ...batch.feeds };
    given.forEach(({ name, dims }, i) => (feeds[name] = { type: 'float32', dims, data: weights[i]! }));
    return session.run(namedFeeds(feeds, taken));
  };
  try {
    const original = await answers(given.map(({ original: weights }) => weights));
    return await work(async (weights) => outputDivergence(original, await answers(weights), scores));
  } finally {
    await session.release();
  }
}
