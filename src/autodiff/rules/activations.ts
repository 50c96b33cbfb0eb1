/** Activation functions. Their gradients reuse the forward output where that is cheaper than the input. */
import { floatAttribute } from '../../onnx/attributes.js';
import type { Graph, Node, Value } from '../../onnx/graph.js';
import { formula, toFloat, type Formula } from '../../onnx/ops.js';
import { sumTo } from '../broadcast.js';
import type { GradientContext, GradientRule, GradientRules } from '../rule.js';

interface Activation {
  readonly graph: Graph;
  readonly node: Node;
  readonly op: Formula;
  readonly x: Value;
  readonly y: Value;
}

/** The rule of an activation from its derivative dy/dx. */
function activation(derivative: (a: Activation) => Value): GradientRule {
  return ({ graph, node, gradients }) => {
    const op = formula(graph);
    const slope = derivative({ graph, node, op, x: node.inputs[0]!, y: node.outputs[0]! });
    return [op('Mul', gradients[0]!, slope)];
  };
}

/** 1 where `compare` holds between two values, else 0. */
function indicator({ graph, op }: Activation, compare: string, left: Value, right: number): Value {
  return toFloat(graph, op(compare, left, right));
}

/** 1 above 0, for a value that is not below 0: a clipped line, in one pass, as steep as float32 has it. */
function step(graph: Graph, y: Value): Value {
  return graph.insertOp('HardSigmoid', [y], [floatAttribute('alpha', 3e38), floatAttribute('beta', 0)]);
}

/** Slope 1 above 0 and alpha below. */
function leakyReluSlope(a: Activation): Value {
  const alpha = a.node.float('alpha', 0.01);
  const positive = indicator(a, 'Greater', a.x, 0);
  if (alpha >= 0 && alpha <= 1) return a.op('Max', positive, alpha);
  return a.op('Add', a.op('Mul', positive, 1 - alpha), alpha);
}

/** y = scale x above 0 and limit (e^x - 1) below, where the derivative is y + limit. */
function exponentialSlope(a: Activation, scale: number, limit: number): Value {
  const { op, x, y } = a;
  if (scale === 1 && limit === 1) return op('Add', op('Min', y, 0), 1);
  const below = op('Mul', indicator(a, 'LessOrEqual', x, 0), op('Add', y, limit - scale));
  return op('Add', below, scale);
}

/** y = x sigmoid(alpha x): s + alpha (y - y s). */
function swishSlope({ op, x, y, node }: Activation, defaultAlpha: number): Value {
  const alpha = node.float('alpha', defaultAlpha);
  const s = op('Sigmoid', alpha === 1 ? x : op('Mul', x, alpha));
  const bend = op('Sub', y, op('Mul', y, s));
  return op('Add', s, alpha === 1 ? bend : op('Mul', bend, alpha));
}

/** Phi(x) + x phi(x), the normal distribution and its density. */
function geluSlope(graph: Graph, x: Value): Value {
  const op = formula(graph);
  const u = op('Mul', x, Math.SQRT1_2);
  // Erf lies between -1 and 1, where HardSigmoid is the line through its middle: one pass instead of two.
  const half = [floatAttribute('alpha', 0.5), floatAttribute('beta', 0.5)];
  const distribution = graph.insertOp('HardSigmoid', [op('Erf', u)], half);
  const density = op('Mul', op('Exp', op('Neg', op('Mul', u, u))), 1 / Math.sqrt(2 * Math.PI));
  return op('Add', distribution, op('Mul', x, density));
}

/** y = x/2 (1 + t), t = tanh(k (x + c x^3)): (1 + t)/2 + x/2 (1 - t^2) k (1 + 3 c x^2). */
function tanhGeluSlope(graph: Graph, x: Value): Value {
  const op = formula(graph);
  const [k, c] = [Math.sqrt(2 / Math.PI), 0.044715];
  const square = op('Mul', x, x);
  const t = op('Tanh', op('Mul', x, op('Add', op('Mul', square, k * c), k)));
  const inner = op('Mul', x, op('Add', op('Mul', square, (3 * k * c) / 2), k / 2));
  const steep = op('Mul', inner, op('Sub', 1, op('Mul', t, t)));
  return op('Add', op('Add', op('Mul', t, 0.5), 0.5), steep);
}

/** y = gelu(x + bias), the bias along the last axes or absent. */
function biasedGelu(slopeOf: (graph: Graph, x: Value) => Value): GradientRule {
  return (context) => {
    const { graph, node, gradients, shapeOf } = context;
    const op = formula(graph);
    const [x, bias] = [node.inputs[0]!, node.inputs[1]];
    const gradient = op('Mul', gradients[0]!, slopeOf(graph, bias ? op('Add', x, bias) : x));
    if (!bias || !context.needs(1)) return [gradient];
    return [gradient, sumTo(context, gradient, shapeOf(node.outputs[0]!), shapeOf(bias))];
  };
}

/** tanh(log(1 + e^x)) = n / (n + 2) with n = e^x (e^x + 2); far above 0, where e^x would overflow, it is 1. */
function mishSlope({ op, x }: Activation): Value {
  const e = op('Exp', op('Min', x, 20));
  const n = op('Mul', e, op('Add', e, 2));
  const t = op('Div', n, op('Add', n, 2));
  const bend = op('Mul', op('Mul', x, op('Sigmoid', x)), op('Sub', 1, op('Mul', t, t)));
  return op('Add', t, bend);
}

/** y = x h with h = HardSigmoid(x; 1/6, 1/2): h, and h + x/6 = 2h - 1/2 between -3 and 3. */
function hardSwishSlope(a: Activation): Value {
  const { graph, op, x } = a;
  const h = graph.insertOp('HardSigmoid', [x], [floatAttribute('alpha', 1 / 6), floatAttribute('beta', 0.5)]);
  const inside = indicator(a, 'Less', op('Abs', x), 3);
  return op('Add', h, op('Mul', inside, op('Sub', h, 0.5)));
}

/** alpha where the output is strictly between 0 and 1. */
function hardSigmoidSlope({ graph, node, op, y }: Activation): Value {
  const inside = op('And', op('Greater', y, 0), op('Less', y, 1));
  return op('Mul', toFloat(graph, inside), node.float('alpha', 0.2));
}

/** Below 0 the slope is learned: dy/dx = slope, dy/dslope = x. */
const pRelu: GradientRule = (context) => {
  const { graph, node, gradients, needs, shapeOf } = context;
  const op = formula(graph);
  const [x, slope, g] = [node.inputs[0]!, node.inputs[1]!, gradients[0]!];
  const below = op('Mul', g, toFloat(graph, op('LessOrEqual', x, 0)));
  const inX = (): Value => op('Add', g, op('Mul', below, op('Sub', slope, 1)));
  const inSlope = (): Value => sumTo(context, op('Mul', below, x), shapeOf(x), shapeOf(slope));
  return [needs(0) ? inX() : undefined, needs(1) ? inSlope() : undefined];
};

function selu({ node }: Activation): [gamma: number, limit: number] {
  const gamma = node.float('gamma', 1.05070102214813232421875);
  return [gamma, gamma * node.float('alpha', 1.67326319217681884765625)];
}

const geluRule: GradientRule = (context: GradientContext) =>
  biasedGelu(context.node.string('approximate', 'none') === 'tanh' ? tanhGeluSlope : geluSlope)(context);

export const activations: GradientRules = {
  Relu: activation(({ graph, y }) => step(graph, y)),
  LeakyRelu: activation(leakyReluSlope),
  PRelu: pRelu,
  Elu: activation((a) => exponentialSlope(a, 1, a.node.float('alpha', 1))),
  Selu: activation((a) => exponentialSlope(a, ...selu(a))),
  // Below 0, y = alpha (e^(x / alpha) - 1) and the derivative is y / alpha + 1.
  Celu: activation(({ op, node, y }) => op('Add', op('Mul', op('Min', y, 0), 1 / node.float('alpha', 1)), 1)),
  ThresholdedRelu: activation((a) => indicator(a, 'Greater', a.x, a.node.float('alpha', 1))),
  Sigmoid: activation(({ op, y }) => op('Sub', y, op('Mul', y, y))),
  HardSigmoid: activation(hardSigmoidSlope),
  HardSwish: activation(hardSwishSlope),
  Tanh: activation(({ op, y }) => op('Sub', 1, op('Mul', y, y))),
  Gelu: geluRule,
  Mish: activation(mishSlope),
  Softplus: activation(({ op, x }) => op('Sigmoid', x)),
  // y = x / (1 + |x|): (1 - |y|)^2
  Softsign: activation(({ op, y }) => {
    const root = op('Sub', 1, op('Abs', y));
    return op('Mul', root, root);
  }),
  Swish: activation((a) => swishSlope(a, 1)),
  'com.microsoft:Gelu': biasedGelu(geluSlope),
  'com.microsoft:FastGelu': biasedGelu(tanhGeluSlope),
  'com.microsoft:BiasGelu': biasedGelu(geluSlope),
  'com.microsoft:QuickGelu': activation((a) => swishSlope(a, 1.702)),
};
