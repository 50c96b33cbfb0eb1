/** Operators that read or write elements by index. No gradient flows to indices. */
import { FlowCompressError } from '../../errors.js';
import { axisFromStart } from '../../onnx/axis.js';
import { intAttribute, stringAttribute } from '../../onnx/attributes.js';
import type { Graph, Node, Value } from '../../onnx/graph.js';
import { concat, constantOf, padZeros, reduceKeeping, reshape, slice, transpose, unsqueeze } from '../../onnx/ops.js';
import type { GradientContext, GradientRule, GradientRules, Shape } from '../rule.js';
import { constantInts, elementsOf, reshapeLike, zerosLike } from '../shapes.js';

/**
 * Longest axis along which rows are added up by a product with a one-hot matrix. ONNX Runtime 1.30 on 2 cores, microseconds
 * one-hot / ScatterElements for axis, row, rows: 10, 512, 4096: 700 / 15000; 50, 128, 512: 100 / 450; 197, 192, 64: 58 / 80;
 * 1000, 64, 1024: 1300 / 560.
 */
const LONGEST_ONE_HOT = 256;

/** Scatter operators add since this opset. */
const SCATTER_ADDS = 16;

/** One dim of `value` as an int64 tensor [1], known or not. */
function sizeValue({ graph, shapeOf }: GradientContext, value: Value, axis: number): Value {
  const size = shapeOf(value)[axis];
  if (size !== undefined) return constantOf(graph, [size], 'int64');
  return slice(graph, graph.insertOp('Shape', [value]), [0], [axis], [axis + 1], [1]);
}

interface RowAddition {
  /** [lead..., m, k] */
  readonly updates: Value;
  /** [m] for the same rows everywhere, or [lead..., m]; below 0 counts from the end, repeated ones add up. */
  readonly indices: Value;
  /** Number of dims in front of the rows. */
  readonly lead: number;
  /** Number of dims of `indices`. */
  readonly indexRank: number;
  /** Length of the axis that is indexed, int64 [1], and as a number where it is known. */
  readonly size: Value;
  readonly knownSize: number | undefined;
  /** Zeros of shape [lead..., size, k]. */
  readonly zeros: () => Value;
}

/**
 * Adds every row of `updates` to the row of that index: [lead..., size, k]. ScatterND would be faster but loses updates in
 * ONNX Runtime when indices repeat: its threads add to the same row at the same time.
 */
function addRows(graph: Graph, rows: RowAddition): Value {
  const { updates, indices, lead, indexRank, size, knownSize } = rows;
  if (graph.opset() < SCATTER_ADDS || (knownSize !== undefined && knownSize <= LONGEST_ONE_HOT)) {
    const offOn = constantOf(graph, [0, 1], 'float32');
    const oneHot = graph.insertOp('OneHot', [indices, size, offOn], [intAttribute('axis', indexRank - 1)]);
    return graph.insertOp('MatMul', [oneHot, updates]);
  }
  const everywhere = graph.insertOp('Expand', [
    unsqueeze(graph, indices, [indexRank]),
    graph.insertOp('Shape', [updates]),
  ]);
  return scatterAdd(graph, rows.zeros(), everywhere, updates, lead);
}

function scatterAdd(graph: Graph, zeros: Value, indices: Value, updates: Value, axis: number): Value {
  const attributes = [intAttribute('axis', axis), stringAttribute('reduction', 'add')];
  return graph.insertOp('ScatterElements', [zeros, indices, updates], attributes);
}

/**
 * The shape with the dims from `from` to `to` merged into one and those from `to` on into another, as Reshape takes it: leading dims
 * that vary are copied, one of the merged ones may vary.
 * @throws FlowCompressError `unsupported` where more do
 */
function mergedTarget(context: GradientContext, shape: Shape, from: number, to: number): number[] {
  const target = shape.slice(0, from).map((size) => size ?? 0);
  const merged = [elementsOf(shape.slice(from, to)), elementsOf(shape.slice(to))];
  if (!merged.includes(undefined) || merged.some((size) => size !== undefined))
    return [...target, ...merged.map((size) => size ?? -1)];
  throw refused(context.node, 'More than one axis behind the batch varies in size.', 'Fix the sizes of the model.');
}

const gather: GradientRule = (context) => {
  const { graph, node, gradients, needs, shapeOf } = context;
  if (!needs(0)) return [];
  const [x, indices] = [node.inputs[0]!, node.inputs[1]!];
  const [shape, indexShape] = [shapeOf(x), shapeOf(indices)];
  const axis = axisFromStart(node.int('axis', 0), shape.length);
  const known = graph.constant(indices) && constantInts(context, 1, 'indices');
  const direct = known && fromConstants(context, known, axis);
  if (direct) return [direct];
  const gradientShape = [...shape.slice(0, axis), ...indexShape, ...shape.slice(axis + 1)];
  if ([...gradientShape, ...shape].includes(0)) return [];
  const isMatrix = indexShape.length === 1 && shape.length === axis + 2;
  const target = isMatrix ? [] : mergedTarget(context, gradientShape, axis, axis + indexShape.length);
  const sum = addRows(graph, {
    updates: isMatrix ? gradients[0]! : reshape(graph, gradients[0]!, target),
    indices: indexShape.length === 1 ? indices : reshape(graph, indices, [-1]),
    lead: axis,
    indexRank: 1,
    size: sizeValue(context, x, axis),
    knownSize: shape[axis],
    zeros: () => {
      const zeros = zerosLike(context, x);
      return isMatrix ? zeros : reshape(graph, zeros, mergedTarget(context, shape, axis, axis + 1));
    },
  });
  return [isMatrix ? sum : reshapeLike(context, sum, x)];
};

/** Indices known beforehand that need no adding up: neighbours (one index above all) and permutations. */
function fromConstants(context: GradientContext, indices: readonly number[], axis: number): Value | undefined {
  const { graph, node, gradients, shapeOf } = context;
  const [shape, indexShape] = [shapeOf(node.inputs[0]!), shapeOf(node.inputs[1]!)];
  const size = shape[axis];
  if (size === undefined || indices.length === 0 || indexShape.length > 1) return undefined;
  const from = indices.map((index) => axisFromStart(index, size));
  const aligned = indexShape.length === 0 ? unsqueeze(graph, gradients[0]!, [axis]) : gradients[0]!;
  if (from.every((index, i) => index === from[0]! + i)) {
    const before = shape.map((_, i) => (i === axis ? from[0]! : 0));
    const after = shape.map((_, i) => (i === axis ? size - from[0]! - from.length : 0));
    return padZeros(graph, aligned, before, after);
  }
  if (from.length !== size || new Set(from).size !== size) return undefined;
  const inverse = from.map((_, index) => from.indexOf(index));
  return graph.insertOp('Gather', [aligned, constantOf(graph, inverse, 'int64')], [intAttribute('axis', axis)]);
}

const gatherElements: GradientRule = (context) => {
  const { graph, node, gradients, needs, shapeOf } = context;
  if (!needs(0)) return [];
  const [x, indices] = [node.inputs[0]!, node.inputs[1]!];
  const axis = axisFromStart(node.int('axis', 0), shapeOf(x).length);
  if (graph.opset() < SCATTER_ADDS) return [addLines(context, axis)];
  return [scatterAdd(graph, zerosLike(context, x), indices, gradients[0]!, axis)];
};

/** GatherElements back without a Scatter operator that adds: along the axis, moved to the end, every line has its own indices. */
function addLines(context: GradientContext, axis: number): Value {
  const { graph, node, gradients, shapeOf } = context;
  const [x, indices] = [node.inputs[0]!, node.inputs[1]!];
  const [shape, indexShape] = [shapeOf(x), shapeOf(indices)];
  const rank = shape.length;
  const perm = [...shape.keys()].filter((i) => i !== axis).concat(axis);
  const moved = (value: Value): Value => (axis === rank - 1 ? value : transpose(graph, value, perm));
  const sum = addRows(graph, {
    updates: unsqueeze(graph, moved(gradients[0]!), [rank]),
    indices: moved(indices),
    lead: rank - 1,
    indexRank: rank,
    size: sizeValue(context, x, axis),
    knownSize: shape[axis],
    zeros: () => unsqueeze(graph, moved(zerosLike(context, x)), [rank]),
  });
  const lines = graph.insertOp('Squeeze', [sum, constantOf(graph, [rank], 'int64')]);
  const back = perm.map((_, i) => perm.indexOf(i));
  const aligned = axis === rank - 1 ? lines : transpose(graph, lines, back);
  if (shape.every((size, i) => i === axis || (size !== undefined && size === indexShape[i]))) return aligned;
  // The indices may cover a part of the other axes only.
  const missing = graph.insertOp('Sub', [graph.insertOp('Shape', [x]), graph.insertOp('Shape', [aligned])]);
  const nothing = constantOf(
    graph,
    shape.map(() => 0),
    'int64',
  );
  return graph.insertOp('Pad', [aligned, concat(graph, [nothing, missing], 0)]);
}

/** The indexed axes count as one, addressed by the row-major position. */
const gatherNd: GradientRule = (context) => {
  const { graph, node, gradients, needs, shapeOf } = context;
  if (!needs(0)) return [];
  const [x, indices, y] = [node.inputs[0]!, node.inputs[1]!, node.outputs[0]!];
  const [shape, indexShape] = [shapeOf(x), shapeOf(indices)];
  const batch = node.int('batch_dims', 0);
  const depth = indexShape.at(-1)!;
  const indexed = shape.slice(batch, batch + depth);
  if ([...shape, ...indexShape].includes(0)) return [];
  const knownSize = elementsOf(indexed);
  if (depth > 1 && knownSize === undefined)
    throw refused(node, 'An indexed axis varies in size.', 'Fix the sizes of the model.');
  const merged = mergedTarget(context, shapeOf(y), batch, indexShape.length - 1);
  const sum = addRows(graph, {
    updates: reshape(graph, gradients[0]!, merged),
    indices: reshape(graph, flatAddress(graph, indices, indexed, indexShape.length), merged.slice(0, -1).with(-1, -1)),
    lead: batch,
    indexRank: batch + 1,
    size: depth === 1 ? sizeValue(context, x, batch) : constantOf(graph, [knownSize!], 'int64'),
    knownSize,
    zeros: () => reshape(graph, zerosLike(context, x), mergedTarget(context, shape, batch, batch + depth)),
  });
  return [reshapeLike(context, sum, x)];
};

/** The last axis of the indices as one number each (that axis stays, of length 1). */
function flatAddress(graph: Graph, indices: Value, sizes: Shape, rank: number): Value {
  if (sizes.length === 1) return indices;
  const strides = sizes.map((_, i) => elementsOf(sizes.slice(i + 1))!);
  // Mod has the sign of the divisor: an index below 0 becomes the one it stands for.
  const positive = graph.insertOp('Mod', [indices, constantOf(graph, sizes.map(Number), 'int64')]);
  return reduceKeeping(graph, 'ReduceSum', graph.insertOp('Mul', [positive, constantOf(graph, strides, 'int64')]), [
    rank - 1,
  ]);
}

/** What an update replaced is lost; with `add` nothing is. */
const scatter =
  (read: (context: GradientContext) => Value): GradientRule =>
  (context) => {
    const { graph, node, gradients, needs } = context;
    const reduction = node.string('reduction', 'none');
    if (reduction !== 'none' && reduction !== 'add')
      throw refused(node, `${node.opType} with reduction '${reduction}' has no gradient rule.`, 'Use none or add.');
    const inData = (): Value => {
      if (reduction === 'add') return gradients[0]!;
      const attributes = node.opType === 'ScatterElements' ? [intAttribute('axis', node.int('axis', 0))] : [];
      const inputs = [gradients[0], node.inputs[1], zerosLike(context, node.inputs[2]!)];
      return graph.insertOp(node.opType, inputs, attributes);
    };
    return [needs(0) ? inData() : undefined, undefined, needs(2) ? read(context) : undefined];
  };

const scatterElements = scatter(({ graph, node, gradients }) =>
  graph.insertOp('GatherElements', [gradients[0], node.inputs[1]], [intAttribute('axis', node.int('axis', 0))]),
);

const scatterNd = scatter(({ graph, node, gradients }) => graph.insertOp('GatherND', [gradients[0], node.inputs[1]]));

/** The values found go back to where they were; along the axis no two of them have the same index. */
const topK: GradientRule = (context) => {
  const { graph, node, gradients } = context;
  const gradient = gradients[0];
  if (!gradient) return [];
  const axis = intAttribute('axis', node.int('axis', -1));
  const zeros = zerosLike(context, node.inputs[0]!);
  return [graph.insertOp('ScatterElements', [zeros, node.outputs[1], gradient], [axis])];
};

/** Every element counts in the sums behind it: summed from the other end. */
const cumSum: GradientRule = ({ graph, node, gradients }) => {
  const attributes = [
    intAttribute('exclusive', node.int('exclusive', 0)),
    intAttribute('reverse', node.int('reverse', 0) ? 0 : 1),
  ];
  return [graph.insertOp('CumSum', [gradients[0], node.inputs[1]], attributes)];
};

function refused(node: Node, problem: string, hint: string): FlowCompressError {
  return new FlowCompressError('unsupported', problem, { node: node.label, hint });
}

export const indexing: GradientRules = {
  Gather: gather,
  GatherElements: gatherElements,
  GatherND: gatherNd,
  ScatterElements: scatterElements,
  ScatterND: scatterNd,
  TopK: topK,
  CumSum: cumSum,
};
