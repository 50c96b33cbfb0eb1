/**
 * Vision transformers expand a stored token over the batch and put it before (or after) the others. The same without the
 * batch size: pad the others with zeros and add a stored tensor that holds the token there, merged with the position
 * embedding that is added next to it. Additions of zero aside the arithmetic is the same.
 */
import { stringAttribute } from '../attributes.js';
import { DataType } from '../dtypes.js';
import type { Graph, Node, Value } from '../graph.js';
import { constantOf } from '../ops.js';
import { makeTensor, readFloats } from '../tensor.js';

/** Without an embedding to merge with, the stored tensor is mostly zeros: larger ones cost more than they save. */
const UNMERGED_LIMIT = 4096;

type DimsByBatch = readonly (readonly number[])[];

interface Pattern {
  readonly token: Float32Array;
  readonly tokenFirst: boolean;
  readonly others: Value;
  readonly axis: number;
  /** Dims of the token, of the other tokens, and of all, without the batch axis. */
  readonly tokenDims: readonly number[];
  readonly otherDims: readonly number[];
  readonly allDims: readonly number[];
}

/** Rewrites a Concat that matches, and returns whether it did. `dims`: traced dims by value name. */
export function embedClassToken(graph: Graph, concat: Node, dims: ReadonlyMap<string, DimsByBatch>): boolean {
  const pattern = match(graph, concat, dims);
  const output = concat.outputs[0];
  if (!pattern || !output) return false;
  const placed = place(pattern, pattern.token, pattern.tokenFirst ? 'first' : 'last', pattern.tokenDims);
  // An embedding of the other tokens, added before.
  const before = stored(graph, pattern.others.producer, pattern.otherDims);
  // Its shape may be read too, which is what made the Expand.
  const onlyHere = [...pattern.others.uses].every((use) => use.node === concat || use.node.is('Shape'));
  if (before && onlyHere && !graph.isGraphOutput(pattern.others)) {
    const rest = place(pattern, before.values, pattern.tokenFirst ? 'last' : 'first', pattern.otherDims);
    finish(graph, pattern, before.operand, add(placed, rest), output);
    return true;
  }
  // An embedding of all tokens, added after.
  const [use] = output.uses;
  const after = use && stored(graph, use.node, pattern.allDims);
  if (after?.operand === output && output.uses.size === 1 && !graph.isGraphOutput(output)) {
    finish(graph, pattern, pattern.others, add(placed, after.values), use!.node.outputs[0]!);
    return true;
  }
  if (placed.byteLength > UNMERGED_LIMIT) return false;
  finish(graph, pattern, pattern.others, placed, output);
  return true;
}

function match(graph: Graph, concat: Node, dims: ReadonlyMap<string, DimsByBatch>): Pattern | undefined {
  if (graph.opset() < 11 || concat.inputs.length !== 2) return undefined;
  const tokenFirst = concat.inputs[0]?.producer?.is('Expand') ?? false;
  const [expanded, others] = tokenFirst ? concat.inputs : [concat.inputs[1], concat.inputs[0]];
  const expand = expanded?.producer;
  if (!expanded || !others || !expand?.is('Expand')) return undefined;
  const token = graph.constant(expand.inputs[0]);
  if (!token || token.dataType !== Number(DataType.FLOAT) || graph.constant(expand.inputs[1])) return undefined;
  const traced = [expanded, others, concat.outputs[0]].map((v) => dims.get(v?.name ?? ''));
  const [tokenDims, otherDims, allDims] = traced.map((d) => d && withoutBatch(d));
  if (!tokenDims || !otherDims || !allDims) return undefined;
  const rank = allDims.length + 1;
  const axis = concat.int('axis', 0) < 0 ? concat.int('axis', 0) + rank : concat.int('axis', 0);
  const values = readFloats(token);
  // The Expand must do no more than repeat the token along the batch.
  if (axis === 0 || values.length !== tokenDims.reduce((a, b) => a * b, 1)) return undefined;
  return { token: values, tokenFirst, others, axis, tokenDims, otherDims, allDims };
}

/** The fixed dims behind the batch axis, or undefined when one of them varies. */
function withoutBatch(dims: DimsByBatch): readonly number[] | undefined {
  const [first, ...rest] = dims.map((d) => d.slice(1));
  if (!first || first.length === 0) return undefined;
  return rest.every((d) => d.length === first.length && d.every((size, i) => size === first[i])) ? first : undefined;
}

/** The stored operand of an Add that has exactly these dims (a leading 1 aside), and the other operand. */
function stored(
  graph: Graph,
  node: Node | undefined,
  dims: readonly number[],
): { values: Float32Array; operand: Value } | undefined {
  if (!node?.is('Add')) return undefined;
  for (const index of [0, 1]) {
    const tensor = graph.constant(node.inputs[index]);
    const operand = node.inputs[1 - index];
    if (!tensor || !operand || tensor.dataType !== Number(DataType.FLOAT)) continue;
    const stored = tensor.dims.map(Number);
    const inner = stored.length === dims.length + 1 && stored[0] === 1 ? stored.slice(1) : stored;
    if (inner.length === dims.length && inner.every((size, i) => size === dims[i])) {
      return { values: readFloats(tensor), operand };
    }
  }
  return undefined;
}

/** `values` at one end of the axis of a zero tensor of all tokens. */
function place(pattern: Pattern, values: Float32Array, end: 'first' | 'last', dims: readonly number[]): Float32Array {
  const { allDims, axis } = pattern;
  const inner = allDims.slice(axis).reduce((a, b) => a * b, 1);
  const outer = allDims.slice(0, axis - 1).reduce((a, b) => a * b, 1);
  const row = allDims[axis - 1]! * inner;
  const part = dims[axis - 1]! * inner;
  const out = new Float32Array(outer * row);
  for (let i = 0; i < outer; i++) {
    out.set(values.subarray(i * part, (i + 1) * part), i * row + (end === 'first' ? 0 : row - part));
  }
  return out;
}

function add(a: Float32Array, b: Float32Array): Float32Array {
  return a.map((value, i) => value + b[i]!);
}

/** Puts Pad and Add in the place of the node that computes `output`. */
function finish(graph: Graph, pattern: Pattern, others: Value, addend: Float32Array, output: Value): void {
  const { allDims, axis, tokenDims, tokenFirst } = pattern;
  const rank = allDims.length + 1;
  const pads = new Array<number>(2 * rank).fill(0);
  pads[tokenFirst ? axis : rank + axis] = tokenDims[axis - 1]!;
  const padded = graph.insertOp(
    'Pad',
    [others, constantOf(graph, pads, 'int64', { name: 'token_pads' })],
    [stringAttribute('mode', 'constant')],
  );
  const tensor = makeTensor(graph.uniqueName('token_embedding'), DataType.FLOAT, [1, ...allDims], addend);
  graph.detach(output);
  graph.insert({ opType: 'Add', inputs: [padded, graph.addInitializer(tensor)], outputs: [output] });
}
