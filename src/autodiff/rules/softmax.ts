/** Softmax, LogSoftmax and the losses on class scores. */
import { FlowCompressError } from '../../errors.js';
import { DataType } from '../../onnx/dtypes.js';
import { intAttribute } from '../../onnx/attributes.js';
import type { Value } from '../../onnx/graph.js';
import { constantOf, formula, outputOf, reduce, reduceKeeping, reshape, toFloat, unsqueeze } from '../../onnx/ops.js';
import type { GradientContext, GradientRule, GradientRules } from '../rule.js';

/** y (g - sum(g y)) */
const softmaxRule: GradientRule = ({ graph, node, gradients }) => {
  const op = formula(graph);
  const [y, g] = [node.outputs[0]!, gradients[0]!];
  const mean = reduceKeeping(graph, 'ReduceSum', op('Mul', g, y), [node.int('axis', -1)]);
  return [op('Mul', y, op('Sub', g, mean))];
};

/** Gradient in x of log-probabilities y = x - log sum e^x: g - e^y sum(g). */
function throughLogSoftmax({ graph }: GradientContext, y: Value, g: Value, axis: number): Value {
  const op = formula(graph);
  return op('Sub', g, op('Mul', op('Exp', y), reduceKeeping(graph, 'ReduceSum', g, [axis])));
}

interface LabelLoss {
  /** One-hot labels times the weight of the label, [N, C, ...]; zero where the label is ignored. */
  readonly target: Value;
  /** The weight of every label, [N, 1, ...]; undefined where all weigh 1. */
  readonly weight: Value | undefined;
  /** Gradient of the loss in every label's term, broadcast to [N, 1, ...]. */
  readonly gradient: Value;
}

/** What the losses on class labels have in common: weights, ignored labels and the reduction. */
function labelLoss(context: GradientContext): LabelLoss {
  const { graph, node, gradients, shapeOf } = context;
  const op = formula(graph);
  const [scores, labels, weights] = [node.inputs[0]!, node.inputs[1]!, node.inputs[2]];
  if (weights && context.needs(2))
    throw new FlowCompressError('unsupported', `The class weights of ${node.opType} cannot be trained.`, {
      node: node.label,
      hint: 'Keep the class weights constant.',
    });
  const dims = shapeOf(scores);
  const classes = dims[1];
  if (classes === undefined)
    throw new FlowCompressError('unsupported', `The number of classes of ${node.opType} is not fixed.`, {
      node: node.label,
      hint: 'Export the model with a fixed number of classes.',
    });
  const perClass = [1, classes, ...dims.slice(2).map(() => 1)];
  const indices = graph.insertOp('Cast', [unsqueeze(graph, labels, [1])], [intAttribute('to', DataType.INT64)]);
  const range = constantOf(
    graph,
    Array.from({ length: classes }, (_, i) => i),
    'int64',
  );
  let target = toFloat(graph, op('Equal', indices, reshape(graph, range, perClass)));
  const ignored = node.int('ignore_index');
  if (weights) target = op('Mul', target, reshape(graph, weights, perClass));
  // A label that is no class is not in the target as it is.
  if (ignored !== undefined && ignored >= 0 && ignored < classes) {
    const ignoredLabel = constantOf(graph, [ignored], 'int64', { scalar: true });
    target = op('Mul', target, toFloat(graph, op('Not', op('Equal', indices, ignoredLabel))));
  }
  const uniform = !weights && ignored === undefined;
  const weight = uniform ? undefined : reduceKeeping(graph, 'ReduceSum', target, [1]);
  const g = gradients[0]!;
  switch (node.string('reduction', 'mean')) {
    case 'none':
      return { target, weight, gradient: unsqueeze(graph, g, [1]) };
    case 'sum':
      return { target, weight, gradient: g };
    default: {
      const total = weight ? reduce(graph, 'ReduceSum', weight) : toFloat(graph, op('Size', labels));
      return { target, weight, gradient: op('Div', g, total) };
    }
  }
}

/** The loss of a label is -w log p[label], so that its gradient in the scores is w (p - onehot). */
const softmaxCrossEntropyLoss: GradientRule = (context) => {
  const { graph, node, gradients, needs } = context;
  if (!needs(0) && !needs(2)) return [];
  const op = formula(graph);
  const logProbabilities = outputOf(graph, node, 1);
  const parts: Value[] = [];
  if (gradients[0]) {
    const { target, weight, gradient } = labelLoss(context);
    const probabilities = op('Exp', logProbabilities);
    const expected = weight ? op('Mul', probabilities, weight) : probabilities;
    parts.push(op('Mul', op('Sub', expected, target), gradient));
  }
  if (gradients[1]) parts.push(throughLogSoftmax(context, logProbabilities, gradients[1], 1));
  return [parts.length === 1 ? parts[0] : graph.insertOp('Sum', parts)];
};

const negativeLogLikelihoodLoss: GradientRule = (context) => {
  if (!context.needs(0) && !context.needs(2)) return [];
  const op = formula(context.graph);
  const { target, gradient } = labelLoss(context);
  return [op('Mul', target, op('Neg', gradient))];
};

export const softmax: GradientRules = {
  Softmax: softmaxRule,
  LogSoftmax: (context) => [
    throughLogSoftmax(context, context.node.outputs[0]!, context.gradients[0]!, context.node.int('axis', -1)),
  ],
  SoftmaxCrossEntropyLoss: softmaxCrossEntropyLoss,
  NegativeLogLikelihoodLoss: negativeLogLikelihoodLoss,
};
