/**
 * Losses as pieces of graph: the mean over the samples of a batch. Targets are fed as numbers of the outputs' own shape:
 * for classes a row of probabilities, which carries label smoothing and mixed samples alike.
 */
import { intAttribute } from '../onnx/attributes.js';
import type { Graph, Value } from '../onnx/graph.js';
import { formula, reduce } from '../onnx/ops.js';

export interface LossContext {
  readonly graph: Graph;
  /** [N, ...], with classes along axis 1: logits for `cross-entropy`, `kl` and `bce`. */
  readonly output: Value;
  /** Of the same shape. Probabilities for `cross-entropy`, logits of a teacher for `kl`, 0 to 1 for `bce`. */
  readonly target: Value;
  /** Axes of both, the samples' one included. */
  readonly rank: number;
  /** [N]: factors on the losses of the samples. */
  readonly weights?: Value;
  readonly temperature: number;
}

/** One number per sample, [N]. */
export type Loss = (context: LossContext) => Value;

/** Reduces all axes but the first. */
function within({ graph, rank }: LossContext, reduction: 'ReduceSum' | 'ReduceMean', value: Value): Value {
  return rank < 2
    ? value
    : reduce(
        graph,
        reduction,
        value,
        Array.from({ length: rank - 1 }, (_, i) => i + 1),
      );
}

const classAxis = intAttribute('axis', 1);

/** -sum p log softmax(z). */
const crossEntropy: Loss = (context) => {
  const { graph, output, target } = context;
  const op = formula(graph);
  const logProbabilities = graph.insertOp('LogSoftmax', [output], [classAxis]);
  return op('Neg', within(context, 'ReduceSum', op('Mul', target, logProbabilities)));
};

/** T^2 KL(softmax(t / T) || softmax(z / T)) (Hinton et al. 2015). */
const kl: Loss = (context) => {
  const { graph, output, target, temperature: t } = context;
  const op = formula(graph);
  const cooled = (value: Value): Value => (t === 1 ? value : op('Div', value, t));
  const p = graph.insertOp('Softmax', [cooled(target)], [classAxis]);
  const logP = graph.insertOp('LogSoftmax', [cooled(target)], [classAxis]);
  const logQ = graph.insertOp('LogSoftmax', [cooled(output)], [classAxis]);
  return op('Mul', within(context, 'ReduceSum', op('Mul', p, op('Sub', logP, logQ))), t * t);
};

const mse: Loss = (context) => {
  const op = formula(context.graph);
  const error = op('Sub', context.output, context.target);
  return within(context, 'ReduceMean', op('Mul', error, error));
};

/** Squared error relative to the energy of the targets, which is that of the whole batch: 1 for outputs of 0. */
const relative: Loss = (context) => {
  const { graph, target } = context;
  const op = formula(graph);
  const energy = reduce(graph, 'ReduceMean', op('Mul', target, target));
  return op('Div', mse(context), op('Add', energy, 1e-12));
};

const l1: Loss = (context) => {
  const op = formula(context.graph);
  return within(context, 'ReduceMean', op('Abs', op('Sub', context.output, context.target)));
};

/** Squared below 1, linear above (delta = 1). */
const huber: Loss = (context) => {
  const op = formula(context.graph);
  const size = op('Abs', op('Sub', context.output, context.target));
  const near = op('Min', size, 1);
  const far = op('Sub', size, near);
  return within(context, 'ReduceMean', op('Add', op('Mul', op('Mul', near, near), 0.5), far));
};

/** Binary cross-entropy from logits: softplus(z) - t z. */
const bce: Loss = (context) => {
  const { graph, output, target } = context;
  const op = formula(graph);
  return within(context, 'ReduceMean', op('Sub', op('Softplus', output), op('Mul', target, output)));
};

/** 1 - cosine of the angle between a sample's output and its target. */
const cosine: Loss = (context) => {
  const { output: z, target: t } = context;
  const op = formula(context.graph);
  const dot = (a: Value, b: Value): Value => within(context, 'ReduceSum', op('Mul', a, b));
  // The square root has no slope at 0: outputs that are all zero must not make it infinite.
  const squares = op('Add', op('Mul', dot(z, z), dot(t, t)), 1e-16);
  return op('Sub', 1, op('Div', dot(z, t), op('Sqrt', squares)));
};

export const LOSSES = { 'cross-entropy': crossEntropy, kl, mse, relative, l1, huber, bce, cosine } as const;
export type LossName = keyof typeof LOSSES;

/** The mean over the samples, a scalar. @param loss its name, or what computes it */
export function meanLoss(loss: LossName | Loss, context: LossContext): Value {
  const { graph, weights } = context;
  const losses = (typeof loss === 'string' ? LOSSES[loss] : loss)(context);
  return reduce(graph, 'ReduceMean', weights ? formula(graph)('Mul', weights, losses) : losses);
}
