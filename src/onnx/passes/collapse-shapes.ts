/**
 * Exporters compute the shapes of a model with a dynamic batch at run time (Shape, Gather, Unsqueeze, Concat, Reshape).
 * This pass runs the model at several batch sizes, sees which of it is the same every time and writes that down.
 */
import type { ModelProto } from 'onnx-buf';
import { FlowCompressError } from '../../errors.js';
import type { Engine, Feeds, HostTensor } from '../../runtime/engine.js';
import { exposeValue, openTraced } from '../../runtime/trace.js';
import { Graph, type Node, type Value } from '../graph.js';
import { tensorFromHost } from '../host-tensor.js';
import { constantOf } from '../ops.js';
import { toBytes } from '../to-bytes.js';
import { embedClassToken } from './class-token.js';
import { staticValues, worthFolding, type StaticKind } from './static-values.js';

/** Makes feeds for a batch of `n` samples; a model of fixed batch is asked for that batch only. */
export type FeedsForBatch = (n: number) => Feeds;

/** 1 is among them because sizes of 1 broadcast. */
const TRACED_BATCHES = [1, 2, 3];
const VERIFIED_BATCHES = [1, 2, 5];
const TOLERANCE = 1e-6;

/** Dims of a value at each traced batch size. */
export type DimsByBatch = readonly (readonly number[])[];

interface Trace {
  /** Values at each traced batch size, by name. */
  readonly values: ReadonlyMap<string, readonly HostTensor[]>;
  /** Dims of the operands and results of reshaping nodes, by value name. */
  readonly dims: ReadonlyMap<string, DimsByBatch>;
}

/**
 * Folds what does not depend on the inputs, gives Reshape and Expand constant shapes, drops those that change nothing,
 * and removes what is dead then. Only the leading axis of the inputs may be dynamic; in a model with other dynamic axes
 * only constants are folded. The result is compared with the original in the engine at three batch sizes; where they
 * differ (relative 1e-6), or where the model does not run at several sizes although it declares so, the input model or
 * one with constants folded is returned.
 */
export async function collapseShapes(
  engine: Engine,
  model: ModelProto,
  feedsForBatch: FeedsForBatch,
): Promise<ModelProto> {
  const axes = dynamicAxes(new Graph(model));
  const attempts: { traced: readonly number[]; verified: readonly number[]; scope: 'all' | 'constants' }[] = [];
  if (axes.kind === 'batch') attempts.push({ traced: TRACED_BATCHES, verified: VERIFIED_BATCHES, scope: 'all' });
  if (axes.kind === 'none') attempts.push({ traced: [axes.batch], verified: [axes.batch], scope: 'all' });
  else attempts.push({ traced: [1], verified: [1], scope: 'constants' });
  for (const { traced, verified, scope } of attempts) {
    try {
      const trace = await runTrace(engine, model, traced.map(feedsForBatch), scope);
      const graph = new Graph(model);
      if (!applyTrace(graph, trace, scope)) return model;
      graph.removeDead();
      const collapsed = graph.toModel();
      if (await agree(engine, model, collapsed, verified.map(feedsForBatch))) return collapsed;
    } catch (error) {
      if (!(error instanceof FlowCompressError) || error.code === 'aborted') throw error;
    }
  }
  return model;
}

type DynamicAxes = { kind: 'none'; batch: number } | { kind: 'batch' } | { kind: 'other' };

/** Which axes of the fed inputs have no fixed size. */
function dynamicAxes(graph: Graph): DynamicAxes {
  let batch: number | undefined;
  let dynamic = false;
  for (const input of graph.inputs) {
    if (input.isInitializer) continue;
    const type = input.info?.type?.value;
    const dims = type?.case === 'tensorType' ? type.value.shape?.dim : undefined;
    if (!dims) return { kind: 'other' };
    const sizes = dims.map((d) =>
      d.value.case === 'dimValue' && d.value.value > 0n ? Number(d.value.value) : undefined,
    );
    if (sizes.slice(1).includes(undefined)) return { kind: 'other' };
    if (sizes.length === 0) continue;
    if (sizes[0] === undefined) dynamic = true;
    else batch ??= sizes[0];
  }
  return dynamic ? { kind: 'batch' } : { kind: 'none', batch: batch ?? 1 };
}

function isReshaping(node: Node): boolean {
  return node.is('Reshape') || node.is('Expand') || node.is('Concat');
}

/** Runs the model on every feed with the static values, and the dims around reshaping nodes, as its outputs. */
async function runTrace(
  engine: Engine,
  model: ModelProto,
  feeds: readonly Feeds[],
  scope: 'all' | 'constants',
): Promise<Trace> {
  const shapeNames = new Map<string, string>();
  const fetched: string[] = [];
  const session = await openTraced(
    engine,
    model,
    (graph) => {
      const expose = (value: Value): void => {
        exposeValue(graph, value);
        fetched.push(value.name);
      };
      const measure = (value: Value | undefined): void => {
        if (!value || shapeNames.has(value.name)) return;
        const shape = graph.insertOp('Shape', [value]);
        shapeNames.set(value.name, shape.name);
        expose(shape);
      };
      const nodes = graph.nodes;
      for (const [value, kind] of staticValues(graph)) if (kind === 'constant' || scope === 'all') expose(value);
      if (scope === 'constants') return;
      for (const node of nodes) {
        if (!isReshaping(node)) continue;
        measure(node.outputs[0]);
        for (const input of node.is('Concat') ? node.inputs : [node.inputs[0]]) measure(input);
      }
    },
    'disabled',
  );
  try {
    const runs: Record<string, HostTensor>[] = [];
    for (const feed of feeds) runs.push(fetched.length === 0 ? {} : await session.run(feed, fetched));
    const values = new Map(fetched.map((name) => [name, runs.map((run) => run[name]!)]));
    const dims = new Map<string, DimsByBatch>();
    for (const [name, shape] of shapeNames)
      dims.set(
        name,
        values.get(shape)!.map((v) => Array.from(v.data, Number)),
      );
    return { values, dims };
  } finally {
    await session.release();
  }
}

/** Rewrites the graph by what was seen; returns whether anything changed. */
function applyTrace(graph: Graph, trace: Trace, scope: 'all' | 'constants'): boolean {
  let changed = foldStatic(graph, trace);
  if (scope === 'constants') return changed;
  for (const node of graph.nodes) {
    if (node.is('Reshape')) changed = collapseReshape(graph, node, trace) || changed;
    else if (node.is('Expand')) changed = collapseExpand(graph, node, trace) || changed;
  }
  for (const node of graph.nodes) {
    if (node.is('Concat')) changed = embedClassToken(graph, node, trace.dims) || changed;
  }
  return changed;
}

function foldStatic(graph: Graph, trace: Trace): boolean {
  let changed = false;
  const kinds: ReadonlyMap<Value, StaticKind> = staticValues(graph);
  // Decided before the first fold: folding changes who reads what.
  const folds: { value: Value; tensor: HostTensor }[] = [];
  for (const value of kinds.keys()) {
    const seen = trace.values.get(value.name);
    if (!seen || value.producer?.is('Constant') || graph.isGraphOutput(value)) continue;
    const [first, ...rest] = seen;
    if (!first || !rest.every((other) => sameTensor(first, other))) continue;
    if (worthFolding(graph, value, first.data.byteLength, kinds)) folds.push({ value, tensor: first });
  }
  for (const { value, tensor } of folds) {
    if (value.uses.size === 0) continue;
    const name = graph.uniqueName(`${value.name}_folded`);
    graph.replaceUses(value, graph.addInitializer(tensorFromHost(name, tensor)));
    changed = true;
  }
  return changed;
}

function sameTensor(a: HostTensor, b: HostTensor): boolean {
  if (a.type !== b.type || !sameDims(a.dims, b.dims)) return false;
  return a.data.every((value: number | bigint, i: number) => Object.is(value, b.data[i]));
}

function sameDims(a: readonly number[], b: readonly number[]): boolean {
  return a.length === b.length && a.every((size, i) => size === b[i]);
}

/** Operand and result dims of a reshaping node at each batch, when they were traced with the same ranks everywhere. */
function dimsAround(node: Node, trace: Trace): { before: DimsByBatch; after: DimsByBatch } | undefined {
  const before = trace.dims.get(node.inputs[0]?.name ?? '');
  const after = trace.dims.get(node.outputs[0]?.name ?? '');
  if (!before || !after) return undefined;
  const uniform = (dims: DimsByBatch): boolean => dims.every((d) => d.length === dims[0]!.length && !d.includes(0));
  return uniform(before) && uniform(after) ? { before, after } : undefined;
}

/** True when the size of an axis is the same at every batch. */
function isFixed(dims: DimsByBatch, axis: number): boolean {
  return dims.every((d) => d[axis] === dims[0]![axis]);
}

/** Replaces a node by its first operand when they have the same shape at every batch. */
function dropIfUnchanged(graph: Graph, node: Node, before: DimsByBatch, after: DimsByBatch): boolean {
  const input = node.inputs[0]!;
  const output = node.outputs[0]!;
  if (!before.every((dims, i) => sameDims(dims, after[i]!)) || graph.isGraphOutput(output)) return false;
  graph.replaceUses(output, input);
  graph.remove(node);
  return true;
}

function collapseReshape(graph: Graph, node: Node, trace: Trace): boolean {
  const around = dimsAround(node, trace);
  if (!around) return false;
  const { before, after } = around;
  if (dropIfUnchanged(graph, node, before, after)) return true;
  const shape = node.inputs[1];
  if (!shape || graph.constant(shape)) return false;
  const varying = after[0]!.map((_, axis) => axis).filter((axis) => !isFixed(after, axis));
  // One axis may be left to the engine (-1); the others must be copied from the same place of the operand (0).
  const copied =
    varying.length <= 1 ? [] : varying.filter((axis) => after.every((d, i) => d[axis] === before[i]![axis]));
  const inferred = varying.filter((axis) => !copied.includes(axis));
  if (inferred.length > 1 || (copied.length > 0 && node.int('allowzero', 0) !== 0)) return false;
  const entries = after[0]!.map((size, axis) => (copied.includes(axis) ? 0 : inferred.includes(axis) ? -1 : size));
  graph.setInput(node, 1, constantOf(graph, entries, 'int64', { name: `${node.label}_shape` }));
  return true;
}

function collapseExpand(graph: Graph, node: Node, trace: Trace): boolean {
  const around = dimsAround(node, trace);
  if (!around) return false;
  const { before, after } = around;
  if (dropIfUnchanged(graph, node, before, after)) return true;
  const shape = node.inputs[1];
  if (!shape || graph.constant(shape)) return false;
  const lead = after[0]!.length - before[0]!.length;
  const entries = after[0]!.map((size, axis) => {
    if (isFixed(after, axis)) return size;
    // 1 keeps the size of the operand.
    return axis >= lead && after.every((d, i) => d[axis] === before[i]![axis - lead]) ? 1 : undefined;
  });
  if (!entries.every((entry) => entry !== undefined)) return false;
  graph.setInput(node, 1, constantOf(graph, entries, 'int64', { name: `${node.label}_shape` }));
  return true;
}

/** Runs both models on every feed and compares all outputs. */
async function agree(engine: Engine, a: ModelProto, b: ModelProto, feeds: readonly Feeds[]): Promise<boolean> {
  const [left, right] = [await openPlain(engine, a), await openPlain(engine, b).catch(() => undefined)];
  try {
    if (!right) return false;
    for (const feed of feeds) {
      const [expected, actual] = [await left.run(feed), await right.run(feed)];
      for (const [name, tensor] of Object.entries(expected)) {
        const other = actual[name];
        if (!other || !closeTensors(tensor, other)) return false;
      }
    }
    return true;
  } finally {
    await left.release();
    await right?.release();
  }
}

function openPlain(engine: Engine, model: ModelProto) {
  return engine.createSession(toBytes(model), { optimization: 'disabled' });
}

function closeTensors(a: HostTensor, b: HostTensor): boolean {
  if (a.type !== b.type || !sameDims(a.dims, b.dims)) return false;
  if (sameTensor(a, b)) return true;
  if (a.type !== 'float32' && a.type !== 'float64') return false;
  let scale = 0;
  for (const value of a.data) scale = Math.max(scale, Math.abs(Number(value)));
  return a.data.every((value: number | bigint, i: number) => {
    const [x, y] = [Number(value), Number(b.data[i])];
    return Object.is(x, y) || Math.abs(x - y) <= TOLERANCE * scale;
  });
}
