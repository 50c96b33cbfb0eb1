/** What layers give for samples, read out of a model while it runs: a flat row of numbers per sample and layer. */
import type { ModelProto } from 'onnx-buf';
import type { Batch } from '../data/dataset.js';
import { throwIfAborted } from '../errors.js';
import { batchRows, layoutOf } from '../flow/sample-axis.js';
import { rewrite } from '../onnx/graph.js';
import { toBytes } from '../onnx/to-bytes.js';
import type { RunControl } from '../progress.js';
import type { Engine, HostTensor } from '../runtime/engine.js';
import { namedFeeds } from '../runtime/rows.js';
import { isFloat, numbersOf } from '../runtime/scores.js';
import { exposeOnly, traceDims } from '../runtime/trace.js';
import { centred, openGramMaker, type CentredGram, type Features } from './cka.js';

export interface FeatureValue {
  readonly name: string;
  /** Where the channels are whose mean over all positions is taken: [N, C, ...] or [N, ..., C]; every element is a feature when absent. */
  readonly pooled?: 'first' | 'last';
}

export interface FeatureReader {
  /** One entry per value; undefined for one that is not float or has no row per sample. */
  read(batch: Batch): Promise<(Features | undefined)[]>;
  release(): Promise<void>;
}

/** A session that computes these values and nothing behind them. @throws what the engine reports */
export async function openFeatureReader(
  engine: Engine,
  model: ModelProto,
  values: readonly FeatureValue[],
): Promise<FeatureReader> {
  const names: string[] = [];
  const part = rewrite(model, (graph) => {
    // Copies: a value may be an input of the model, or asked for twice.
    const copies = values.map(({ name }) => graph.insertOp('Identity', [graph.mustGet(name)]));
    names.push(...copies.map(({ name }) => name));
    exposeOnly(graph, copies);
  });
  const session = await engine.createSession(toBytes(part), { memoryPattern: false });
  const taken = new Set(session.inputs.map(({ name }) => name));
  return {
    async read(batch) {
      const results = await session.run(namedFeeds(batch.feeds, taken));
      return values.map(({ pooled }, i) => featuresOf(results[names[i]], batch, pooled));
    },
    release: () => session.release(),
  };
}

function featuresOf(tensor: HostTensor, batch: Batch, pooled: FeatureValue['pooled']): Features | undefined {
  const layout = layoutOf(tensor.dims, batchRows(batch));
  if (!isFloat(tensor) || layout.kind === 'shared') return undefined;
  const data = numbersOf(tensor);
  const { dims, size } = layout;
  const channels = pooled === undefined ? size : ((pooled === 'first' ? dims[0] : dims[dims.length - 1]) ?? 1);
  const positions = size / Math.max(channels, 1);
  if (channels === size && layout.kind !== 'second')
    return {
      ...{ samples: batch.size, width: size },
      values: Float32Array.from({ length: batch.size * size }, (_, i) => Number(data[i])),
    };
  const values = new Float32Array(batch.size * channels);
  // Of [T, N, C] the steps of one sample are a batch apart.
  const [run, stride] = layout.kind === 'second' ? [dims[1], tensor.dims[1] * dims[1]] : [size, 0];
  for (let sample = 0; sample < batch.size; sample++) {
    for (let e = 0; e < size; e++) {
      const from = sample * run + Math.floor(e / run) * stride + (e % run);
      const channel = pooled === 'first' ? Math.floor(e / positions) : e % channels;
      values[sample * channels + channel] += Number(data[from]) / positions;
    }
  }
  return { samples: batch.size, width: channels, values };
}

/** Rows of batches put together. */
export function joinFeatures(parts: readonly Features[]): Features {
  const [{ width }] = parts;
  const values = new Float32Array(parts.reduce((sum, part) => sum + part.values.length, 0));
  let at = 0;
  for (const part of parts) {
    values.set(part.values, at);
    at += part.values.length;
  }
  return { samples: values.length / Math.max(width, 1), width, values };
}

/** Bytes of features that are held at a time; beyond it another pass over the samples is made. */
const FEATURE_BYTES_PER_PASS = 256e6;

export interface FeatureGramRequest {
  readonly engine: Engine;
  readonly model: ModelProto;
  /** Names of values, such as the outputs of layers; each is taken whole. */
  readonly values: readonly string[];
  /** A fresh pass over the samples, the same ones in the same order every time. */
  readonly batches: () => AsyncIterable<Batch>;
  /** Samples that it delivers: 512 at most, as the matrices have as many rows and columns. */
  readonly samples: number;
}

/**
 * Centred Gram matrices of values, for CKA. Memory holds the features of some of them at a time.
 * @returns by name; values that are not float or have no row per sample are absent
 * @throws FlowCompressError what the engine and the data report; `aborted`
 */
export async function gatherFeatureGrams(
  { engine, model, values, batches, samples }: FeatureGramRequest,
  control: RunControl = {},
): Promise<Map<string, CentredGram>> {
  const grams = new Map<string, CentredGram>();
  const maker = await openGramMaker(engine);
  try {
    const passes = await planPasses(engine, model, values, batches, samples);
    for (const [index, names] of passes.entries()) {
      const stage =
        passes.length > 1 ? `compare layers (pass ${String(index + 1)} of ${String(passes.length)})` : 'compare layers';
      const reader = await openFeatureReader(
        engine,
        model,
        names.map((name) => ({ name })),
      );
      try {
        const parts = names.map((): Features[] => []);
        let done = 0;
        for await (const batch of batches()) {
          throwIfAborted(control.signal);
          (await reader.read(batch)).forEach((features, i) => {
            if (features) parts[i].push(features);
          });
          done += batch.size;
          control.onProgress?.({ stage, done, total: samples });
        }
        for (const [i, name] of names.entries()) {
          if (parts[i].length > 0) grams.set(name, centred(await maker.of(joinFeatures(parts[i]))));
          parts[i] = [];
        }
      } finally {
        await reader.release();
      }
    }
  } finally {
    await maker.release();
  }
  return grams;
}

/** The values in groups whose features fit into memory. */
async function planPasses(
  engine: Engine,
  model: ModelProto,
  values: readonly string[],
  batches: () => AsyncIterable<Batch>,
  samples: number,
): Promise<string[][]> {
  const passes: string[][] = [];
  for await (const batch of batches()) {
    const dims = await traceDims(engine, model, batch.feeds);
    let room = 0;
    for (const name of new Set(values)) {
      const elements = dims.get(name)?.dims.reduce((a, b) => a * b, 1) ?? 0;
      const bytes = (4 * elements * samples) / batchRows(batch);
      if (passes.length === 0 || bytes > room) {
        passes.push([]);
        room = FEATURE_BYTES_PER_PASS;
      }
      passes[passes.length - 1].push(name);
      room -= bytes;
    }
    break;
  }
  return passes;
}
