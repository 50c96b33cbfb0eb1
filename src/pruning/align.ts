/**
 * Fits the layers of a cut model one after another, each to what the original gives in the same place on the same samples,
 * whatever has come of its input. Where a layer ends a residual branch the sum counts, so that errors do not add up along the
 * network; where the next branches of the stream were taken out, the sum behind them does.
 */
import type { ModelProto } from 'onnx-buf';
import type { Batch } from '../data/dataset.js';
import { throwIfAborted } from '../errors.js';
import { gramRows } from '../flow/gather-grams.js';
import { inputColumns, outputRows } from '../flow/gram-probe.js';
import { DataType } from '../onnx/dtypes.js';
import { Graph } from '../onnx/graph.js';
import { findLayers, type WeightLayer } from '../onnx/layers.js';
import { constantOf, reduce, transpose } from '../onnx/ops.js';
import { toBytes } from '../onnx/to-bytes.js';
import { tensorInfo } from '../onnx/value-info.js';
import type { RunControl } from '../progress.js';
import type { Engine } from '../runtime/engine.js';
import { namedFeeds } from '../runtime/rows.js';
import { exposeValue, type TracedValues } from '../runtime/trace.js';
import type { Branch } from './branches.js';
import { behindGone, branchEnd, resultOf, type CutModel } from './places.js';
import { setLayer } from './set-layer.js';
import { solveLayer } from './solve-layer.js';

export interface AlignRequest extends CutModel {
  readonly engine: Engine;
  /** Dims of every value for one sample. */
  readonly originalShapes: TracedValues;
  readonly shapes: TracedValues;
  /** A fresh pass over the samples, the same ones in the same batches. */
  readonly batches: () => AsyncIterable<Batch>;
  readonly samples: number;
}

/** Layers whose input has more columns stay as they are: n^3 operations stop paying off. */
const MAX_COLUMNS = 2304;
/** Elements of the original's activations that are held at a time. */
const TARGET_ELEMENTS = 64e6;

/** A layer of the cut model with its model in the original. */
interface Fit {
  readonly name: string;
  /** Values of the original: what the layer is held against. */
  readonly wanted: string;
  readonly rows: number;
  readonly cols: number;
  readonly positions: number;
}

/**
 * @returns the model with other weights, and the names of the layers that were fitted
 * @throws FlowCompressError what the engine reports; `aborted`
 */
export async function alignLayers(
  request: AlignRequest,
  control: RunControl = {},
): Promise<{ model: ModelProto; fitted: string[] }> {
  const fits = fitsOf(request);
  const perSample = (fit: Fit): number => fit.rows * fit.positions;
  const limit = TARGET_ELEMENTS / Math.max(request.samples, 1);
  let { model } = request;
  let done = 0;
  while (done < fits.length) {
    const chunk = [fits[done]!];
    let size = perSample(chunk[0]!);
    for (const fit of fits.slice(done + 1)) {
      size += perSample(fit);
      if (size > limit) break;
      chunk.push(fit);
    }
    const targets = await targetsOf(request, chunk, control.signal);
    for (const [i, fit] of chunk.entries()) {
      throwIfAborted(control.signal);
      control.onProgress?.({ stage: 'align layers', done: done + i, total: fits.length, detail: fit.name });
      model = await fitLayer(
        request,
        model,
        fit,
        targets.map((batch) => batch[i]!),
        control.signal,
      );
    }
    done += chunk.length;
  }
  control.onProgress?.({ stage: 'align layers', done, total: fits.length });
  return { model, fitted: fits.map(({ name }) => name) };
}

/** In topological order, from the first layer on that is not as it was. */
function fitsOf({ original, model, kept, gone, samples }: AlignRequest): Fit[] {
  const source = new Graph(original);
  const graph = new Graph(model);
  const before = new Map(findLayers(source).map((layer) => [layer.name, layer]));
  const layers = findLayers(graph);
  const changed = layers.findIndex((layer) => {
    const old = before.get(layer.name);
    return !old || old.dims.join() !== layer.dims.join() || followsGone(old, gone);
  });
  if (changed < 0) return [];
  return layers.slice(changed).flatMap((layer): Fit[] => {
    const old = before.get(layer.name);
    const rows = kept.get(layer.name);
    if (!old || !rows || rows.length !== layer.channels || !isFittable(layer) || !isFittable(old)) return [];
    const end = branchEnd(graph, resultOf(layer));
    const endBefore = branchEnd(source, resultOf(old));
    const wanted = behindGone(end && endBefore ? endBefore.sum : resultOf(old), gone);
    return [
      {
        name: layer.name,
        wanted: wanted.name,
        rows: rows.length,
        cols: layer.cols,
        positions: gramRows(layer, samples),
      },
    ];
  });
}

function isFittable(layer: WeightLayer): boolean {
  return (
    (layer.op === 'Conv' || layer.op === 'Gemm' || layer.op === 'MatMul') &&
    layer.groups === 1 &&
    layer.biasSlot !== undefined &&
    layer.weight.uses.size === 1 &&
    layer.cols <= MAX_COLUMNS
  );
}

function followsGone(layer: WeightLayer, gone: readonly Branch[]): boolean {
  return behindGone(resultOf(layer), gone) !== resultOf(layer);
}

/** [rows, channels left] of what the original gives, by batch and fit. */
async function targetsOf(
  { engine, original, originalShapes, kept, batches }: AlignRequest,
  fits: readonly Fit[],
  signal: AbortSignal | undefined,
): Promise<Float32Array[][]> {
  const graph = new Graph(original);
  const layers = new Map(findLayers(graph).map((layer) => [layer.name, layer]));
  const values = fits.map(({ name, wanted, positions }) => {
    const layer = layers.get(name)!;
    const rows = outputRows({ graph, shapes: originalShapes }, layer, graph.mustGet(wanted), positions);
    const left = graph.insertOp('Gather', [rows, constantOf(graph, kept.get(name)!, 'int64')]);
    return transpose(graph, left, [1, 0]);
  });
  graph.outputs.splice(0);
  for (const value of values) exposeValue(graph, value);
  graph.removeDead();
  const inputs = new Set(graph.inputs.map(({ name }) => name));
  const session = await engine.createSession(toBytes(graph.toModel()), { memoryPattern: false });
  const found: Float32Array[][] = [];
  try {
    for await (const { feeds } of batches()) {
      throwIfAborted(signal);
      const results = await session.run(namedFeeds(feeds, inputs));
      found.push(values.map(({ name }) => results[name]!.data as Float32Array));
    }
  } finally {
    await session.release();
  }
  return found;
}

async function fitLayer(
  { engine, shapes, batches }: AlignRequest,
  model: ModelProto,
  fit: Fit,
  targets: readonly Float32Array[],
  signal: AbortSignal | undefined,
): Promise<ModelProto> {
  const graph = new Graph(model);
  const layer = findLayers(graph).find(({ name }) => name === fit.name)!;
  const { cols, channels } = layer;
  const context = { graph, shapes };
  const { columns } = inputColumns(context, layer, layer.input, fit.positions);
  const x = graph.insertOp('Squeeze', [columns, constantOf(graph, [0], 'int64')]);
  const given = graph.addInput(tensorInfo(graph.uniqueName('target'), DataType.FLOAT, ['R', channels]));
  const end = branchEnd(graph, resultOf(layer));
  const y = end
    ? graph.insertOp('Sub', [given, transpose(graph, outputRows(context, layer, end.skip, fit.positions), [1, 0])])
    : given;
  const values = [
    graph.insertOp('MatMul', [x, transpose(graph, x, [1, 0])]),
    graph.insertOp('MatMul', [x, y]),
    reduce(graph, 'ReduceSum', x, [1]),
    reduce(graph, 'ReduceSum', y, [0]),
  ];
  graph.outputs.splice(0);
  for (const value of values) exposeValue(graph, value);
  graph.removeDead();
  const sums = [cols * cols, cols * channels, cols, channels].map((size) => new Float64Array(size));
  const inputs = new Set(graph.inputs.map(({ name }) => name));
  const session = await engine.createSession(toBytes(graph.toModel()), { memoryPattern: false });
  let [batch, count] = [0, 0];
  try {
    for await (const { feeds } of batches()) {
      throwIfAborted(signal);
      const data = targets[batch++]!;
      const rows = data.length / channels;
      const target = { type: 'float32' as const, dims: [rows, channels], data };
      const results = await session.run({ ...namedFeeds(feeds, inputs), [given.name]: target });
      values.forEach(({ name }, i) => {
        const part = results[name]!.data as Float32Array;
        const sum = sums[i]!;
        for (let k = 0; k < sum.length; k++) sum[k]! += part[k]!;
      });
      count += rows;
    }
  } finally {
    await session.release();
  }
  // Nothing can be fitted to values that are not finite; a layer behind this one may still be.
  if (sums.some((sum) => !sum.every(Number.isFinite))) return model;
  const [xx, xy, meanX, meanY] = sums.map((sum) => sum.map((value) => value / count)) as Moments;
  const result = new Graph(model);
  const own = findLayers(result).find(({ name }) => name === fit.name)!;
  setLayer(result, own, solveLayer(result, own, { xx, xy, x: meanX, y: meanY }));
  return result.toModel();
}

type Moments = [Float64Array, Float64Array, Float64Array, Float64Array];
