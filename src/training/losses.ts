/**
 * Losses as pieces of graph: the mean over the samples of a batch. Targets are fed as numbers of the outputs' own shape:
 * for classes a row of probabilities, which carries label smoothing, class weights and mixed samples alike.
 */
import { intAttribute } from '../onnx/attributes.js';
import type { Graph, Value } from '../onnx/graph.js';
import { formula, reduce } from '../onnx/ops.js';

export interface LossContext {
  readonly graph: Graph;
  /** [N, ...]: logits for `cross-entropy`, `kl` and `bce`. */
  readonly output: Value;
  /** Of the same shape. Probabilities for `cross-entropy`, logits of a teacher for `kl`, 0 to 1 for `bce`. */
  readonly target: Value;
  /** N. */
  readonly samples: number;
  readonly temperature: number;
}

export type Loss = (context: LossContext) => Value;

const meanOf = (graph: Graph, value: Value): Value => reduce(graph, 'ReduceMean', value);

/** Sum over everything, divided by the number of samples. */
function perSample({ graph, samples }: LossContext, value: Value, factor = 1): Value {
  return formula(graph)('Mul', reduce(graph, 'ReduceSum', value), factor / samples);
}

const classAxis = intAttribute('axis', 1);

/** -sum p log softmax(z). */
const crossEntropy: Loss = (context) => {
  const { graph, output, target } = context;
  const logProbabilities = graph.insertOp('LogSoftmax', [output], [classAxis]);
  return perSample(context, formula(graph)('Mul', target, logProbabilities), -1);
};

/** T^2 KL(softmax(t / T) || softmax(z / T)) (Hinton et al. 2015). */
const kl: Loss = (context) => {
  const { graph, output, target, temperature: t } = context;
  const op = formula(graph);
  const cooled = (value: Value): Value => (t === 1 ? value : op('Div', value, t));
  const p = graph.insertOp('Softmax', [cooled(target)], [classAxis]);
  const logP = graph.insertOp('LogSoftmax', [cooled(target)], [classAxis]);
  const logQ = graph.insertOp('LogSoftmax', [cooled(output)], [classAxis]);
  return perSample(context, op('Mul', p, op('Sub', logP, logQ)), t * t);
};

const mse: Loss = ({ graph, output, target }) => {
  const op = formula(graph);
  const error = op('Sub', output, target);
  return meanOf(graph, op('Mul', error, error));
};

const l1: Loss = ({ graph, output, target }) => {
  const op = formula(graph);
  return meanOf(graph, op('Abs', op('Sub', output, target)));
};

/** Squared below 1, linear above (delta = 1). */
const huber: Loss = ({ graph, output, target }) => {
  const op = formula(graph);
  const size = op('Abs', op('Sub', output, target));
  const near = op('Min', size, 1);
  const far = op('Sub', size, near);
  return meanOf(graph, op('Add', op('Mul', op('Mul', near, near), 0.5), far));
};

/** Binary cross-entropy from logits: softplus(z) - t z. */
const bce: Loss = ({ graph, output, target }) => {
  const op = formula(graph);
  return meanOf(graph, op('Sub', op('Softplus', output), op('Mul', target, output)));
};

/** 1 - cosine of the angle between a sample's output and its target. */
const cosine: Loss = ({ graph, output, target }) => {
  const op = formula(graph);
  const flat = (value: Value): Value => graph.insertOp('Flatten', [value], [classAxis]);
  const [z, t] = [flat(output), flat(target)];
  const dot = (a: Value, b: Value): Value => reduce(graph, 'ReduceSum', op('Mul', a, b), [1]);
  // The square root has no slope at 0: outputs that are all zero must not make it infinite.
  const squares = op('Add', op('Mul', dot(z, z), dot(t, t)), 1e-16);
  return op('Sub', 1, meanOf(graph, op('Div', dot(z, t), op('Sqrt', squares))));
};

export const LOSSES = { 'cross-entropy': crossEntropy, kl, mse, l1, huber, bce, cosine } as const;
export type LossName = keyof typeof LOSSES;
