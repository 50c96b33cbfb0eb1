/**
 * Normalizations. With xhat = (x - mean) r, r = 1 / sqrt(variance + epsilon), over groups of elements, a gradient g in xhat
 * is (g - mean(g) - xhat mean(g xhat)) r in x: the mean and the length that a step would change are taken out of it
 * (Ioffe and Szegedy 2015, section 3). What differs is which elements form a group and where the scale stands.
 */
import { FlowCompressError } from '../../errors.js';
import { axisFromStart } from '../../onnx/axis.js';
import { insertStatistics, inverseRoot } from '../../onnx/batch-statistics.js';
import { DataType } from '../../onnx/dtypes.js';
import type { Graph, Value } from '../../onnx/graph.js';
import { formula, outputOf, reduce, reduceKeeping, reshape, signOf } from '../../onnx/ops.js';
import { makeTensor } from '../../onnx/tensor.js';
import { sumTo } from '../broadcast.js';
import type { GradientContext, GradientRule, GradientRules } from '../rule.js';
import { knownShape } from '../shapes.js';

/** (g - mean(g) - xhat mean(g xhat)) factor; without `mean`, of elements that were scaled but not centered. */
function normalizedGradient(
  graph: Graph,
  { g, mean, xhat, product, factor }: { g: Value; mean?: Value; xhat: Value; product: Value; factor: Value },
): Value {
  const op = formula(graph);
  const centered = mean ? op('Sub', g, mean) : g;
  return op('Mul', op('Sub', centered, op('Mul', xhat, product)), factor);
}

function standardize(graph: Graph, x: Value, axes: readonly number[], epsilon: number): { xhat: Value; r: Value } {
  const { centered, r } = insertStatistics(graph, x, axes, epsilon);
  return { xhat: graph.insertOp('Mul', [centered, r]), r };
}

/** A parameter per channel, shaped to broadcast along axis 1 of a value of that rank. */
function perChannel(graph: Graph, parameter: Value, rank: number): Value {
  return rank <= 2 ? parameter : reshape(graph, parameter, [-1, ...Array.from({ length: rank - 2 }, () => 1)]);
}

const batchNormalization: GradientRule = (context) => {
  const { node, gradients, shapeOf } = context;
  const training = node.int('training_mode', 0) === 1;
  if ((!training && node.outputs.length > 1) || gradients.slice(1).some((gradient) => gradient))
    throw new FlowCompressError('unsupported', 'Running statistics of a BatchNormalization have no gradient.', {
      node: node.label,
      hint: 'Only the normalized output may enter the loss; models of opset 13 must be exported for inference.',
    });
  const rank = shapeOf(node.inputs[0]!).length;
  if (rank < 2)
    throw new FlowCompressError('unsupported', 'A BatchNormalization without a channel axis has no gradient rule.', {
      node: node.label,
      hint: 'Give its input the shape [N, 1].',
    });
  const axes = Array.from({ length: rank }, (_, axis) => axis).filter((axis) => axis !== 1);
  return training ? withBatchStatistics(context, rank, axes) : withFrozenStatistics(context, rank, axes);
};

/** y = (x - mean) r scale + bias with given mean and variance: also these have gradients. */
function withFrozenStatistics(
  { graph, node, gradients, needs }: GradientContext,
  rank: number,
  axes: readonly number[],
): (Value | undefined)[] {
  const op = formula(graph);
  const [x, scale, , mean, variance] = node.inputs as Value[];
  const g = gradients[0]!;
  const r = inverseRoot(graph, variance!, node.float('epsilon', 1e-5));
  const slope = op('Mul', scale!, r);
  const sum = needs(2) || needs(3) ? reduce(graph, 'ReduceSum', g, axes) : undefined;
  const centeredSum = (): Value => {
    const centered = op('Sub', x!, perChannel(graph, mean!, rank));
    return op('Mul', reduce(graph, 'ReduceSum', op('Mul', g, centered), axes), r);
  };
  const inScale = needs(1) || needs(4) ? centeredSum() : undefined;
  return [
    needs(0) ? op('Mul', g, perChannel(graph, slope, rank)) : undefined,
    inScale,
    sum,
    needs(3) ? op('Neg', op('Mul', sum!, slope)) : undefined,
    // y falls with r, and dr/dvariance = -r^3 / 2
    needs(4) ? op('Mul', op('Mul', inScale!, op('Mul', slope, r)), -0.5) : undefined,
  ];
}

/**
 * y = xhat scale + bias with mean and variance of the batch. The gradient in x is written as factors and terms per channel,
 * of g and of x - mean: few passes over whole tensors.
 */
function withBatchStatistics(
  { graph, node, gradients, needs, shapeOf }: GradientContext,
  rank: number,
  axes: readonly number[],
): (Value | undefined)[] {
  const op = formula(graph);
  const [x, scale] = node.inputs as Value[];
  const g = gradients[0]!;
  const flat = (value: Value): Value => reshape(graph, value, [-1]);
  const sum = reduceKeeping(graph, 'ReduceSum', g, axes);
  if (!needs(0) && !needs(1)) return [undefined, undefined, flat(sum)];
  const { centered, r } = insertStatistics(graph, x!, axes, node.float('epsilon', 1e-5));
  const weighted = op('Mul', g, centered);
  const weightedSum = reduceKeeping(graph, 'ReduceSum', weighted, axes);
  const dims = knownShape(shapeOf(x!));
  const count = dims && axes.reduce((product, axis) => product * dims[axis]!, 1);
  const mean = (summed: Value, of: Value): Value =>
    count === undefined ? reduceKeeping(graph, 'ReduceMean', of, axes) : op('Div', summed, count);
  const inX = (): Value => {
    const slope = op('Mul', r, perChannel(graph, scale!, rank));
    const factor = op('Mul', op('Mul', slope, op('Mul', r, r)), mean(weightedSum, weighted));
    const term = op('Mul', slope, mean(sum, g));
    const removed = op('Add', op('Mul', centered, op('Neg', factor)), op('Neg', term));
    return op('Add', op('Mul', g, slope), removed);
  };
  return [
    needs(0) ? inX() : undefined,
    needs(1) ? flat(op('Mul', weightedSum, r)) : undefined,
    needs(2) ? flat(sum) : undefined,
  ];
}

/** The axes from attribute `axis` on. */
function trailingAxes({ node, shapeOf }: GradientContext): number[] {
  const rank = shapeOf(node.inputs[0]!).length;
  return Array.from({ length: rank }, (_, i) => i).slice(node.int('axis', -1));
}

/** Gradients in scale and bias that were broadcast to x. */
function affine(context: GradientContext, xhat: Value): [Value | undefined, Value | undefined] {
  const { graph, node, gradients, needs, shapeOf } = context;
  const [x, scale, bias] = node.inputs as Value[];
  const g = gradients[0]!;
  return [
    needs(1) ? sumTo(context, graph.insertOp('Mul', [g, xhat]), shapeOf(x!), shapeOf(scale!)) : undefined,
    needs(2) ? sumTo(context, g, shapeOf(x!), shapeOf(bias!)) : undefined,
  ];
}

const layerNormalization: GradientRule = (context) => {
  const { graph, node, gradients, needs } = context;
  if (gradients[1] || gradients[2])
    throw new FlowCompressError('unsupported', 'The statistics of a LayerNormalization have no gradient.', {
      node: node.label,
      hint: 'Only the normalized output may enter the loss.',
    });
  const op = formula(graph);
  const [x, scale] = node.inputs as Value[];
  const r = outputOf(graph, node, 2);
  const xhat = op('Mul', op('Sub', x!, outputOf(graph, node, 1)), r);
  const inX = (): Value => {
    const axes = trailingAxes(context);
    const g = op('Mul', gradients[0]!, scale!);
    const mean = reduceKeeping(graph, 'ReduceMean', g, axes);
    const product = reduceKeeping(graph, 'ReduceMean', op('Mul', g, xhat), axes);
    return normalizedGradient(graph, { g, mean, xhat, product, factor: r });
  };
  return [needs(0) ? inX() : undefined, ...affine(context, xhat)];
};

const rmsNormalization: GradientRule = (context) => {
  const { graph, node, gradients, needs } = context;
  const op = formula(graph);
  const [x, scale] = node.inputs as Value[];
  const axes = trailingAxes(context);
  const square = reduceKeeping(graph, 'ReduceMean', op('Mul', x!, x!), axes);
  const r = inverseRoot(graph, square, node.float('epsilon', 1e-5));
  const xhat = op('Mul', x!, r);
  const inX = (): Value => {
    const g = op('Mul', gradients[0]!, scale!);
    const product = reduceKeeping(graph, 'ReduceMean', op('Mul', g, xhat), axes);
    return normalizedGradient(graph, { g, xhat, product, factor: r });
  };
  return [needs(0) ? inX() : undefined, ...affine(context, xhat)];
};

/**
 * Groups of channels, normalized for every sample.
 * @param parameters how many scales there are: one per group or one per channel
 */
function overGroups(context: GradientContext, groups: number, parameters: number): (Value | undefined)[] {
  const { graph, node, gradients, needs } = context;
  const op = formula(graph);
  const [x, scale] = node.inputs as Value[];
  const folded = (value: Value, count: number): Value => reshape(graph, value, [0, count, -1]);
  const column = reshape(graph, scale!, [-1, 1]);
  const { xhat, r } = standardize(graph, folded(x!, groups), [2], node.float('epsilon', 1e-5));
  const g = folded(gradients[0]!, parameters);
  const perParameter = parameters === groups ? xhat : folded(xhat, parameters);
  const inX = (): Value => {
    // One scale for the whole group can be multiplied last.
    const inXhat = parameters === groups ? g : folded(op('Mul', g, column), groups);
    const gradient = normalizedGradient(graph, {
      g: inXhat,
      mean: reduceKeeping(graph, 'ReduceMean', inXhat, [2]),
      xhat,
      product: reduceKeeping(graph, 'ReduceMean', op('Mul', inXhat, xhat), [2]),
      factor: parameters === groups ? op('Mul', r, column) : r,
    });
    return graph.insertOp('Reshape', [gradient, graph.insertOp('Shape', [x!])]);
  };
  return [
    needs(0) ? inX() : undefined,
    needs(1) ? reduce(graph, 'ReduceSum', op('Mul', g, perParameter), [0, 2]) : undefined,
    needs(2) ? reduce(graph, 'ReduceSum', g, [0, 2]) : undefined,
  ];
}

function channelsOf({ node, shapeOf }: GradientContext): number {
  const channels = shapeOf(node.inputs[0]!)[1];
  if (channels !== undefined) return channels;
  throw new FlowCompressError('unsupported', `The number of channels of this ${node.opType} is not fixed.`, {
    node: node.label,
    hint: 'Export the model with a fixed number of channels.',
  });
}

/**
 * y = x / b^beta, b = bias + alpha / size W x^2, where W sums over neighbouring channels: a gradient g is
 * g / b^beta - 2 alpha beta / size x W'(g y / b). W is a band matrix, so that both sums are products of matrices.
 */
const lrn: GradientRule = (context) => {
  const { graph, node, gradients } = context;
  const op = formula(graph);
  const [x, y, g] = [node.inputs[0]!, node.outputs[0]!, gradients[0]!];
  const size = node.int('size', 1);
  const [alpha, beta, bias] = [node.float('alpha', 1e-4), node.float('beta', 0.75), node.float('bias', 1)];
  const channels = channelsOf(context);
  const [before, after] = [Math.floor((size - 1) / 2), Math.ceil((size - 1) / 2)];
  const band = (transposed: boolean, factor: number): Value => {
    const values = Float32Array.from({ length: channels * channels }, (_, i) => {
      const [row, column] = [Math.floor(i / channels), i % channels];
      const ahead = transposed ? row - column : column - row;
      return ahead >= -before && ahead <= after ? factor : 0;
    });
    const tensor = makeTensor(graph.uniqueName('band'), DataType.FLOAT, [channels, channels], values);
    return graph.addInitializer(tensor);
  };
  const folded = (value: Value): Value => reshape(graph, value, [0, channels, -1]);
  const [flatX, flatG] = [folded(x), folded(g)];
  const b = op('Add', op('MatMul', band(false, alpha / size), op('Mul', flatX, flatX)), bias);
  const neighbours = op('MatMul', band(true, (2 * alpha * beta) / size), op('Div', op('Mul', flatG, folded(y)), b));
  const gradient = op('Sub', op('Mul', flatG, op('Pow', b, -beta)), op('Mul', flatX, neighbours));
  return [op('Reshape', gradient, op('Shape', x))];
};

/** y = x / norm: (g - y sum(g y)) / norm; for p = 1 the norm grows with sign(x) instead of y. Norms are not 0. */
const lpNormalization: GradientRule = ({ graph, node, gradients }) => {
  const op = formula(graph);
  const [x, y, g] = [node.inputs[0]!, node.outputs[0]!, gradients[0]!];
  const axes = [node.int('axis', -1)];
  const p = node.int('p', 2);
  const norm = reduceKeeping(graph, p === 1 ? 'ReduceL1' : 'ReduceL2', x, axes);
  const along = reduceKeeping(graph, 'ReduceSum', op('Mul', g, y), axes);
  return [op('Div', op('Sub', g, op('Mul', p === 1 ? signOf(graph, x, op('Abs', x)) : y, along)), norm)];
};

/** The operator adds 1e-9 to the standard deviation; that this is not 0 is taken for granted. */
const meanVarianceNormalization: GradientRule = ({ graph, node, gradients, shapeOf }) => {
  const op = formula(graph);
  const [x, xhat, g] = [node.inputs[0]!, node.outputs[0]!, gradients[0]!];
  const rank = shapeOf(x).length;
  const axes = (node.ints('axes') ?? [0, 2, 3]).map((axis) => axisFromStart(axis, rank));
  const { r } = standardize(graph, x, axes, 0);
  return [
    normalizedGradient(graph, {
      g,
      mean: reduceKeeping(graph, 'ReduceMean', g, axes),
      xhat,
      product: reduceKeeping(graph, 'ReduceMean', op('Mul', g, xhat), axes),
      factor: r,
    }),
  ];
};

export const normalization: GradientRules = {
  BatchNormalization: batchNormalization,
  LayerNormalization: layerNormalization,
  RMSNormalization: rmsNormalization,
  GroupNormalization: (context) => {
    const groups = context.node.int('num_groups', 1);
    return overGroups(context, groups, context.graph.opset() >= 21 ? channelsOf(context) : groups);
  },
  InstanceNormalization: (context) => overGroups(context, channelsOf(context), channelsOf(context)),
  LRN: lrn,
  LpNormalization: lpNormalization,
  MeanVarianceNormalization: meanVarianceNormalization,
};
