/** Where the samples of a batch lie in an activation, and sums over each sample, computed inside the engine. */
import type { Batch } from '../data/dataset.js';
import type { Graph, Value } from '../onnx/graph.js';
import { constantOf, reduce, reshape, transpose } from '../onnx/ops.js';
import type { HostTensor } from '../runtime/engine.js';
import type { ProbeContext } from '../runtime/probe.js';
import type { TracedValues } from '../runtime/trace.js';

/**
 * `first`: [N, ...]. `second`: [T, N, C], as sequence-first exporters write. `folded`: [N * k, ...], sample-major.
 * `shared`: the same for every sample, such as position embeddings.
 */
export interface SampleLayout {
  readonly kind: 'first' | 'second' | 'folded' | 'shared';
  /** Dims of one sample. */
  readonly dims: readonly number[];
  /** Elements of one sample. */
  readonly size: number;
}

/** A value with the sample axis in front: [N, ...dims]. */
export interface SampledValue {
  readonly value: Value;
  readonly dims: readonly number[];
}

/** Samples in the run that the shapes were traced with (1, or the batch size that the model is fixed to). */
export function tracedRows(graph: Graph, shapes: TracedValues): number {
  for (const input of graph.inputs) {
    const dims = graph.isFed(input) ? shapes.get(input.name)?.dims : undefined;
    if (dims && dims.length > 0) return dims[0]!;
  }
  return 1;
}

/** Layout of a value with the traced dims `dims`, `rows` being the samples of that run. */
export function layoutOf(dims: readonly number[], rows: number): SampleLayout {
  const make = (kind: SampleLayout['kind'], sample: readonly number[]): SampleLayout => ({
    kind,
    dims: sample,
    size: sample.reduce((a, b) => a * b, 1),
  });
  const [first, second] = dims;
  if (first === rows) return make('first', dims.slice(1));
  if (dims.length === 3 && second === rows) return make('second', [first!, dims[2]!]);
  if (first !== undefined && first > 0 && first % rows === 0) return make('folded', [first / rows, ...dims.slice(1)]);
  return make('shared', dims);
}

/** Puts the sample axis of a value in front. */
export function samplesFirst(graph: Graph, value: Value, layout: SampleLayout): SampledValue {
  const { dims } = layout;
  switch (layout.kind) {
    case 'first':
      return { value, dims };
    case 'second':
      return { value: transpose(graph, value, [1, 0, 2]), dims };
    case 'folded':
      return { value: reshape(graph, value, [-1, ...dims]), dims };
    case 'shared':
      return { value: reshape(graph, value, [1, ...dims]), dims };
  }
}

/** [N]: sum (of squares) over each sample. Two steps keep the float32 sums short. */
export function sumPerSample(graph: Graph, { value, dims }: SampledValue, op: 'ReduceSum' | 'ReduceSumSquare'): Value {
  if (dims.length === 0) return op === 'ReduceSum' ? value : graph.insertOp('Mul', [value, value]);
  if (dims.length === 1) return reduce(graph, op, value, [1]);
  const axes = dims.slice(1).map((_, i) => i + 2);
  return reduce(graph, 'ReduceSum', reduce(graph, op, value, axes), [1]);
}

/** Squared Euclidean norm of each sample of the value named `name`: [N], or [1] when all samples share it. */
export function squaredNorms(context: ProbeContext, name: string): Value {
  return sumPerSample(context.graph, sampled(context, name), 'ReduceSumSquare');
}

/** The value named `name` of a traced model, with the sample axis in front. */
export function sampled({ graph, shapes }: ProbeContext, name: string): SampledValue {
  const layout = layoutOf(shapes.get(name)?.dims ?? [], tracedRows(graph, shapes));
  return samplesFirst(graph, graph.mustGet(name), layout);
}

/** Rows of the tensors in a batch, padding included. */
export function batchRows(batch: Batch): number {
  for (const tensor of Object.values(batch.feeds)) if (tensor.dims.length > 0) return tensor.dims[0]!;
  return batch.size;
}

/**
 * The [N, k] (or [N]) numbers that a probe fetched, of the real samples only: [size * k]. A single row stands for every
 * sample. Undefined when the rows are not one per sample.
 */
export function rowsOfSamples(tensor: HostTensor, batch: Batch, width = 1): Float64Array | undefined {
  const { data } = tensor;
  if (!(data instanceof Float32Array)) return undefined;
  const rows = data.length / width;
  const out = new Float64Array(batch.size * width);
  if (rows === batchRows(batch)) for (let i = 0; i < out.length; i++) out[i] = data[i]!;
  else if (rows === 1) for (let i = 0; i < out.length; i++) out[i] = data[i % width]!;
  else return undefined;
  return out;
}

/** A float scalar in the graph. */
export function scalar(graph: Graph, value: number): Value {
  return constantOf(graph, [value], 'float32', { scalar: true });
}
