/**
 * Optimisers as pieces of graph over the vector of all parameters. Weight decay is decoupled (Loshchilov and Hutter 2019):
 * p <- p - lr (update + decay p), where `decay` is zero for biases, scales and shifts; `adam` alone adds it to the gradient.
 */
import type { Graph, Value } from '../onnx/graph.js';
import { concat, constantOf, formula, reduce } from '../onnx/ops.js';
import type { Parameter } from './parameters.js';

export interface OptimizerSettings {
  readonly momentum: number;
  readonly nesterov: boolean;
  readonly beta1: number;
  readonly beta2: number;
  readonly epsilon: number;
}

export const OPTIMIZER_DEFAULTS: OptimizerSettings = {
  momentum: 0.9,
  nesterov: true,
  beta1: 0.9,
  beta2: 0.999,
  epsilon: 1e-8,
};

export interface UpdateContext {
  readonly graph: Graph;
  /** [P] each. */
  readonly parameters: Value;
  readonly gradient: Value;
  readonly states: readonly Value[];
  /** Weight decay per element; absent where there is none. */
  readonly decay?: Value;
  /** Scalars: the learning rate and what `scalars` computes, in that order. */
  readonly learningRate: Value;
  readonly scalars: readonly Value[];
  readonly layout: readonly Parameter[];
  readonly settings: OptimizerSettings;
}

export interface Optimizer {
  /** Vectors [P] of state, zero at the start. */
  readonly states: number;
  /** Learning rate that suits most models. */
  readonly learningRate: number;
  /** Weight decay that suits most models; that of sgd is 5e-4 divided by what momentum 0.9 leaves, since it stays outside the momentum. */
  readonly weightDecay: number;
  /** Numbers that change with the step (1 for the first). */
  scalars(step: number, settings: OptimizerSettings): number[];
  update(context: UpdateContext): { parameters: Value; states: Value[] };
}

/** p - lr (direction + decay p) */
function stepped({ graph, parameters, decay, learningRate }: UpdateContext, direction: Value): Value {
  const calc = formula(graph);
  const whole = decay ? calc('Add', direction, calc('Mul', decay, parameters)) : direction;
  return calc('Sub', parameters, calc('Mul', learningRate, whole));
}

/** Stochastic gradient descent with momentum, v <- momentum v + g (Sutskever et al. 2013 in PyTorch's form). */
const sgd: Optimizer = {
  states: 1,
  learningRate: 0.1,
  weightDecay: 5e-3,
  scalars: () => [],
  update(context) {
    const { graph, gradient, settings } = context;
    const calc = formula(graph);
    const velocity = calc('Add', calc('Mul', context.states[0]!, settings.momentum), gradient);
    const direction = settings.nesterov ? calc('Add', gradient, calc('Mul', velocity, settings.momentum)) : velocity;
    return { parameters: stepped(context, direction), states: [velocity] };
  },
};

/** Bias-corrected moments: m / (1 - beta1^t), v / (1 - beta2^t) (Kingma and Ba 2015). */
function adamDirection({ graph, gradient, states, scalars, settings }: UpdateContext): {
  direction: Value;
  states: Value[];
} {
  const calc = formula(graph);
  const { beta1, beta2, epsilon } = settings;
  const mean = calc('Add', calc('Mul', states[0]!, beta1), calc('Mul', gradient, 1 - beta1));
  const square = calc('Add', calc('Mul', states[1]!, beta2), calc('Mul', calc('Mul', gradient, gradient), 1 - beta2));
  const root = calc('Add', graph.insertOp('Sqrt', [calc('Mul', square, scalars[1]!)]), epsilon);
  return { direction: calc('Div', calc('Mul', mean, scalars[0]!), root), states: [mean, square] };
}

const correction = (step: number, { beta1, beta2 }: OptimizerSettings): number[] => [
  1 / (1 - beta1 ** step),
  1 / (1 - beta2 ** step),
];

const adamw: Optimizer = {
  states: 2,
  learningRate: 1e-3,
  weightDecay: 1e-2,
  scalars: correction,
  update(context) {
    const { direction, states } = adamDirection(context);
    return { parameters: stepped(context, direction), states };
  },
};

/** As first published: decay is part of the gradient. */
const adam: Optimizer = {
  ...adamw,
  weightDecay: 0,
  update(context) {
    const { graph, parameters, gradient, decay } = context;
    const calc = formula(graph);
    const whole = decay ? calc('Add', gradient, calc('Mul', decay, parameters)) : gradient;
    return adamw.update({ ...context, gradient: whole, decay: undefined });
  },
};

/** Adam's direction, scaled per tensor by ||p|| / ||direction + decay p|| (You et al. 2020). */
const lamb: Optimizer = {
  states: 2,
  learningRate: 2e-3,
  weightDecay: 1e-2,
  scalars: correction,
  update(context) {
    const { graph, parameters, decay, layout, learningRate } = context;
    const calc = formula(graph);
    const { direction, states } = adamDirection(context);
    const whole = decay ? calc('Add', direction, calc('Mul', decay, parameters)) : direction;
    const norm = (x: Value): Value => graph.insertOp('Sqrt', [reduce(graph, 'ReduceSumSquare', x)]);
    const updates = split(graph, whole, layout);
    const scaled = split(graph, parameters, layout).map((tensor, i) => {
      const [size, change] = [norm(tensor), norm(updates[i]!)];
      const ratio = calc('Div', size, calc('Max', change, 1e-12));
      // A tensor of zeros has no size to go by: it takes Adam's step.
      const known = graph.insertOp('Sign', [size]);
      return calc('Mul', updates[i]!, calc('Add', calc('Mul', known, ratio), calc('Sub', 1, known)));
    });
    const joined = concat(graph, scaled, 0);
    return { parameters: calc('Sub', parameters, calc('Mul', learningRate, joined)), states };
  },
};

/** One vector per parameter. */
export function split(graph: Graph, flat: Value, layout: readonly Pick<Parameter, 'size'>[]): Value[] {
  if (layout.length === 1) return [flat];
  const sizes = constantOf(
    graph,
    layout.map(({ size }) => size),
    'int64',
  );
  const node = graph.insert({
    opType: 'Split',
    inputs: [flat, sizes],
    outputs: layout.map((_, i) => graph.uniqueName(`part ${String(i)}`)),
  });
  return node.outputs.map((output) => output!);
}

export const OPTIMIZERS = { sgd, adam, adamw, lamb } as const;
export type OptimizerName = keyof typeof OPTIMIZERS;
