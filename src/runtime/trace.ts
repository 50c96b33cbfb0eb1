/** Shapes, types and values of intermediate tensors, read from the engine by making them outputs of the model. */
import { create } from '@bufbuild/protobuf';
import { ValueInfoProtoSchema, type ModelProto } from 'onnx-buf';
import { Graph, type Value } from '../onnx/graph.js';
import { toBytes } from '../onnx/to-bytes.js';
import type { Engine, Feeds, HostTensor, HostType, Session } from './engine.js';
import { runOnce } from './run-once.js';

/** What a run showed of one value. */
export interface TracedValue {
  readonly type: HostType;
  readonly dims: readonly number[];
}

export type TracedValues = ReadonlyMap<string, TracedValue>;

/** Makes a value an output of the graph, unless it is one. The engine infers its type. */
export function exposeValue(graph: Graph, value: Value): void {
  if (graph.isGraphOutput(value)) return;
  // An input that is read back must stay declared.
  if (!graph.inputs.includes(value)) value.info = create(ValueInfoProtoSchema, { name: value.name });
  graph.outputs.push(value);
}

/** Makes outputs of all values that nodes compute, or of those of these names. */
export function exposeAll(graph: Graph, names?: ReadonlySet<string>): void {
  for (const node of graph.nodes)
    for (const output of node.outputs) if (output && (!names || names.has(output.name))) exposeValue(graph, output);
}

/** Makes these values the only outputs, and drops what none of them depends on. */
export function exposeOnly(graph: Graph, values: readonly Value[]): void {
  graph.outputs.splice(0);
  for (const value of values) exposeValue(graph, value);
  graph.removeDead();
  graph.dropUnreadInputs();
}

/** Bytes of these values as float32, for one of the `rows` samples that they were traced with. */
export function bytesPerSample(values: Iterable<TracedValue>, rows: number): number {
  let bytes = 0;
  for (const { dims } of values) bytes += dims.reduce((a, b) => a * b, 4) / rows;
  return bytes;
}

/** Compiles the model with more outputs, or with other ones. The caller releases the session. */
export async function openTraced(
  engine: Engine,
  model: ModelProto,
  edit: (graph: Graph) => void,
  optimization: 'disabled' | 'basic' | 'all' = 'all',
): Promise<Session> {
  const graph = new Graph(model);
  edit(graph);
  return engine.createSession(toBytes(graph.toModel()), { optimization });
}

/**
 * Runs the model once and returns the type and dims of every value that a node computes (values inside subgraphs and
 * values of types that cannot reach JavaScript are left out).
 */
export async function traceShapes(engine: Engine, model: ModelProto, feeds: Feeds): Promise<TracedValues> {
  const values = await traceValues(engine, model, feeds);
  const traced = new Map<string, TracedValue>();
  for (const [name, tensor] of values) traced.set(name, { type: tensor.type, dims: tensor.dims });
  return traced;
}

/** Operators whose results may be no tensors. */
const NO_TENSORS = /Sequence|Optional|^(If|Loop|Scan)$/;

/**
 * Dims of the feeds and of every tensor that a node computes, from one run that keeps none of them: memory is that of a
 * plain run.
 */
export async function traceDims(
  engine: Engine,
  model: ModelProto,
  feeds: Feeds,
): Promise<Map<string, { readonly dims: readonly number[] }>> {
  const graph = new Graph(model);
  const shapeOf = new Map<string, string>();
  const values = graph.nodes
    .filter(({ opType }) => !NO_TENSORS.test(opType))
    .flatMap(({ outputs }) => outputs.filter((output) => output !== undefined));
  graph.outputs.splice(0);
  for (const value of values) {
    const shape = graph.insertOp('Shape', [value]);
    shapeOf.set(shape.name, value.name);
    exposeValue(graph, shape);
  }
  const results = await runOnce(engine, graph.toModel(), feeds, { optimization: 'disabled' });
  const dims = new Map(Object.entries(feeds).map(([name, tensor]) => [name, { dims: tensor.dims }]));
  for (const [name, { data }] of Object.entries(results))
    dims.set(shapeOf.get(name)!, { dims: Array.from(data, Number) });
  return dims;
}

/** Runs the model once on `feeds` and returns the values named by `names`, or every value that a node computes. */
export async function traceValues(
  engine: Engine,
  model: ModelProto,
  feeds: Feeds,
  names?: ReadonlySet<string>,
): Promise<Map<string, HostTensor>> {
  const graph = new Graph(model);
  exposeAll(graph, names);
  const results = await runOnce(engine, graph.toModel(), feeds, { optimization: 'disabled' });
  return new Map([...Object.entries(results), ...Object.entries(feeds)]);
}
