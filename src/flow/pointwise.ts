/** Derivatives of element-wise operators: each rule adds the nodes that compute d(output)/dz from those of its inputs. */
import { TensorProto_DataType as DataType } from 'onnx-buf';
import { intAttribute } from '../onnx/attributes.js';
import type { Graph, Node, Value } from '../onnx/graph.js';
import { readFloats } from '../onnx/tensor.js';
import { scalar } from './sample-axis.js';

/** A derivative: the same number everywhere, or one per element. */
export type Slope = Value | number;

export interface PointwiseCall {
  readonly graph: Graph;
  readonly node: Node;
  /** Derivative of each input; 0 for constants. */
  readonly slopes: readonly Slope[];
}

export interface PointwiseRule {
  /** True when the operator is affine as long as only its first `1` varying input depends on z. */
  readonly affine: boolean;
  readonly slope: (call: PointwiseCall) => Slope;
}

/** The rule of a node, or undefined when the operator is not element-wise or not known. */
export function pointwiseRule(node: Node): PointwiseRule | undefined {
  const known = node.domain === '' || (node.domain === 'com.microsoft' && node.opType === 'Gelu');
  return known ? RULES.get(node.opType) : undefined;
}

const NUMBER_OPS = {
  Add: (a: number, b: number) => a + b,
  Sub: (a: number, b: number) => a - b,
  Mul: (a: number, b: number) => a * b,
  Div: (a: number, b: number) => a / b,
};

/** a op b, folded where both are numbers or one is neutral. */
function binary(graph: Graph, op: keyof typeof NUMBER_OPS, a: Slope, b: Slope): Slope {
  if (typeof a === 'number' && typeof b === 'number') return NUMBER_OPS[op](a, b);
  if (op === 'Mul' && (a === 0 || b === 0)) return 0;
  if ((op === 'Mul' && a === 1) || (op === 'Add' && a === 0)) return b;
  if (((op === 'Mul' || op === 'Div') && b === 1) || ((op === 'Add' || op === 'Sub') && b === 0)) return a;
  if (op === 'Div' && a === 0) return 0;
  return graph.insertOp(op, [asValue(graph, a), asValue(graph, b)]);
}

function asValue(graph: Graph, slope: Slope): Value {
  return typeof slope === 'number' ? scalar(graph, slope) : slope;
}

/** 1 where the condition holds, else 0. */
function indicator(graph: Graph, condition: Value): Value {
  return graph.insertOp('Cast', [condition], [intAttribute('to', DataType.FLOAT)]);
}

function above(graph: Graph, x: Value, limit: Slope): Value {
  return indicator(graph, graph.insertOp('Greater', [x, asValue(graph, limit)]));
}

function below(graph: Graph, x: Value, limit: Slope): Value {
  return indicator(graph, graph.insertOp('Less', [x, asValue(graph, limit)]));
}

/** Small expression builder, so that the rules below read as formulas. */
function algebra(graph: Graph) {
  return {
    add: (a: Slope, b: Slope) => binary(graph, 'Add', a, b),
    sub: (a: Slope, b: Slope) => binary(graph, 'Sub', a, b),
    mul: (a: Slope, b: Slope) => binary(graph, 'Mul', a, b),
    div: (a: Slope, b: Slope) => binary(graph, 'Div', a, b),
    fn: (op: string, a: Slope) => graph.insertOp(op, [asValue(graph, a)]),
    /** Where x > 0: `yes`, else `no`. */
    positive: (x: Value, yes: Slope, no: Slope) =>
      graph.insertOp('Where', [
        graph.insertOp('Greater', [x, scalar(graph, 0)]),
        asValue(graph, yes),
        asValue(graph, no),
      ]),
  };
}

interface UnaryContext extends ReturnType<typeof algebra> {
  readonly graph: Graph;
  readonly node: Node;
  /** Input and output of the node. */
  readonly x: Value;
  readonly y: Value;
}

/** A function of its first input: chain rule around f'(x). */
function unary(derivative: (context: UnaryContext) => Slope): PointwiseRule {
  return {
    affine: false,
    slope: ({ graph, node, slopes }) => {
      const inner = derivative({ ...algebra(graph), graph, node, x: node.inputs[0]!, y: node.outputs[0]! });
      return binary(graph, 'Mul', inner, slopes[0]!);
    },
  };
}

function affine(slope: PointwiseRule['slope']): PointwiseRule {
  return { affine: true, slope };
}

const SELU_ALPHA = 1.6732632;
const SELU_GAMMA = 1.050701;

/** phi and Phi of the normal distribution: d(x Phi(x)) = Phi(x) + x phi(x). */
function geluSlope({ add, mul, div, fn, x }: UnaryContext): Slope {
  const cdf = mul(add(fn('Erf', div(x, Math.SQRT2)), 1), 0.5);
  const pdf = mul(fn('Exp', mul(mul(x, x), -0.5)), 1 / Math.sqrt(2 * Math.PI));
  return add(cdf, mul(x, pdf));
}

/** 0.5 x (1 + tanh(u)), u = sqrt(2 / pi) (x + 0.044715 x^3). */
function geluTanhSlope({ add, sub, mul, fn, x }: UnaryContext): Slope {
  const c = Math.sqrt(2 / Math.PI);
  const square = mul(x, x);
  const t = fn('Tanh', mul(x, add(mul(square, 0.044715 * c), c)));
  const inner = add(mul(square, 3 * 0.044715 * c), c);
  return mul(add(add(t, 1), mul(mul(x, sub(1, mul(t, t))), inner)), 0.5);
}

const RULES: ReadonlyMap<string, PointwiseRule> = new Map(
  Object.entries<PointwiseRule>({
    Add: affine(({ graph, slopes: [a, b] }) => binary(graph, 'Add', a!, b!)),
    Sub: affine(({ graph, slopes: [a, b] }) => binary(graph, 'Sub', a!, b!)),
    Neg: affine(({ graph, slopes: [a] }) => binary(graph, 'Mul', a!, -1)),
    Identity: affine(({ slopes: [a] }) => a!),
    Mul: affine(({ graph, node, slopes: [a, b] }) => {
      const { add, mul } = algebra(graph);
      return add(mul(a!, node.inputs[1]!), mul(b!, node.inputs[0]!));
    }),
    Div: affine(({ graph, node, slopes: [a, b] }) => {
      const { sub, mul, div } = algebra(graph);
      return div(sub(a!, mul(b!, node.outputs[0]!)), node.inputs[1]!);
    }),
    Pow: unary(({ graph, node, mul, x }) => {
      const power = readFloats(graph.constant(node.inputs[1])!)[0]!;
      if (power === 1) return 1;
      if (power === 2) return mul(x, 2);
      return mul(graph.insertOp('Pow', [x, scalar(graph, power - 1)]), power);
    }),
    Sqrt: unary(({ div, y }) => div(0.5, y)),
    Reciprocal: unary(({ mul, y }) => mul(mul(y, y), -1)),
    Exp: unary(({ y }) => y),
    Log: unary(({ fn, x }) => fn('Reciprocal', x)),
    Abs: unary(({ fn, x }) => fn('Sign', x)),
    Erf: unary(({ mul, fn, x }) => mul(fn('Exp', mul(mul(x, x), -1)), 2 / Math.sqrt(Math.PI))),
    Tanh: unary(({ sub, mul, y }) => sub(1, mul(y, y))),
    Sigmoid: unary(({ sub, mul, y }) => mul(y, sub(1, y))),
    Softplus: unary(({ fn, x }) => fn('Sigmoid', x)),
    Softsign: unary(({ sub, mul, fn, y }) => {
      const rest = sub(1, fn('Abs', y));
      return mul(rest, rest);
    }),
    Relu: unary(({ graph, x }) => above(graph, x, 0)),
    LeakyRelu: unary(({ node, positive, x }) => positive(x, 1, node.float('alpha', 0.01))),
    PRelu: unary(({ node, positive, x }) => positive(x, 1, node.inputs[1]!)),
    ThresholdedRelu: unary(({ graph, node, x }) => above(graph, x, node.float('alpha', 1))),
    Elu: unary(({ node, positive, add, x, y }) => positive(x, 1, add(y, node.float('alpha', 1)))),
    Celu: unary(({ node, positive, fn, div, x }) => positive(x, 1, fn('Exp', div(x, node.float('alpha', 1))))),
    Selu: unary(({ node, positive, add, x, y }) => {
      const gamma = node.float('gamma', SELU_GAMMA);
      return positive(x, gamma, add(y, gamma * node.float('alpha', SELU_ALPHA)));
    }),
    Clip: unary(({ graph, node, mul, x }) => {
      const [, low, high] = node.inputs;
      return mul(low ? above(graph, x, low) : 1, high ? below(graph, x, high) : 1);
    }),
    HardSigmoid: unary(({ graph, node, mul, y }) =>
      mul(mul(above(graph, y, 0), below(graph, y, 1)), node.float('alpha', 0.2)),
    ),
    HardSwish: unary(({ graph, mul, add, x }) => {
      const middle = mul(above(graph, x, -3), below(graph, x, 3));
      const upper = indicator(graph, graph.insertOp('GreaterOrEqual', [x, scalar(graph, 3)]));
      return add(mul(middle, add(mul(x, 1 / 3), 0.5)), upper);
    }),
    Gelu: unary((context) =>
      context.node.string('approximate', 'none') === 'tanh' ? geluTanhSlope(context) : geluSlope(context),
    ),
    Mish: unary(({ add, sub, mul, fn, x }) => {
      const t = fn('Tanh', fn('Softplus', x));
      return add(t, mul(mul(x, sub(1, mul(t, t))), fn('Sigmoid', x)));
    }),
    Swish: unary(({ node, add, sub, mul, fn, x }) => {
      const scaled = mul(x, node.float('alpha', 1));
      const s = fn('Sigmoid', scaled);
      return add(s, mul(scaled, mul(s, sub(1, s))));
    }),
  }),
);
