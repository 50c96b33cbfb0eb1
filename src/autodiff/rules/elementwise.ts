/** Functions of single elements: powers, trigonometry, choices between operands, casts and dropout. */
import { intAttribute } from '../../onnx/attributes.js';
import { dataTypeInfo, DataType } from '../../onnx/dtypes.js';
import type { Graph, Value } from '../../onnx/graph.js';
import { formula, outputOf, signOf, toFloat, type Formula } from '../../onnx/ops.js';
import { makeTensor, readFloats, readInts } from '../../onnx/tensor.js';
import { sumTo } from '../broadcast.js';
import type { GradientContext, GradientRule, GradientRules } from '../rule.js';

/** The rule of y = f(x) from the gradient g in y; `op` inserts operators. */
function unary(inX: (op: Formula, g: Value, x: Value, y: Value) => Value): GradientRule {
  return ({ graph, node, gradients }) => [inX(formula(graph), gradients[0]!, node.inputs[0]!, node.outputs[0]!)];
}

/** A gradient in the broadcast result as that in an input. */
function summedFor(context: GradientContext, input: number, gradient: Value): Value {
  const { node, shapeOf } = context;
  return sumTo(context, gradient, shapeOf(node.outputs[0]!), shapeOf(node.inputs[input]!));
}

/** d(x^e)/dx = e x^(e - 1), d(x^e)/de = x^e log x. The second is 0 at x = 0 and NaN below. */
const pow: GradientRule = (context) => {
  const { graph, node, gradients, needs } = context;
  const op = formula(graph);
  const [x, e, y, g] = [node.inputs[0]!, node.inputs[1]!, node.outputs[0]!, gradients[0]!];
  const inBase = (): Value | undefined => {
    const gradient = basePower(context, op, g, x, e, y);
    return gradient && summedFor(context, 0, gradient);
  };
  const inExponent = (): Value => {
    const atZero = toFloat(graph, op('Equal', x, 0));
    return summedFor(context, 1, op('Mul', g, op('Mul', y, op('Log', op('Add', x, atZero)))));
  };
  return [needs(0) ? inBase() : undefined, needs(1) ? inExponent() : undefined];
};

/** Gradient in the base, in the result's shape; undefined where it is zero. Common exponents need no Pow. */
function basePower(
  { graph, needs }: GradientContext,
  op: Formula,
  g: Value,
  x: Value,
  e: Value,
  y: Value,
): Value | undefined {
  const constant = graph.constant(e);
  if (constant && !needs(1)) {
    const exponents = Array.from(readFloats(constant));
    if (exponents.length === 1) {
      switch (exponents[0]) {
        case 0:
          return undefined;
        case 1:
          return op('Mul', g, 1);
        case 2:
          return op('Mul', g, op('Mul', x, 2));
        case 3:
          return op('Mul', g, op('Mul', op('Mul', x, x), 3));
        case 0.5:
          return op('Div', op('Mul', g, 0.5), y);
        default:
      }
    }
    // Where e is 0 the power is 0 too: 0 * x^0 is 0 even at x = 0.
    const dims = constant.dims;
    const make = (values: number[]): Value =>
      graph.addInitializer(makeTensor(graph.uniqueName('exponent'), DataType.FLOAT, dims, values));
    const [factor, power] = [make(exponents), make(exponents.map((v) => (v === 0 ? 0 : v - 1)))];
    return op('Mul', g, op('Mul', op('Pow', x, power), factor));
  }
  const exponent = needs(1) ? e : toFloat(graph, e);
  const power = op('Add', op('Sub', exponent, 1), toFloat(graph, op('Equal', exponent, 0)));
  return op('Mul', g, op('Mul', op('Pow', x, power), exponent));
}

/** Min and Max: the gradient goes to the first operand that equals the result. */
const extreme: GradientRule = (context) => {
  const { graph, node, gradients, needs } = context;
  const op = formula(graph);
  const y = node.outputs[0]!;
  const last = Math.max(...node.inputs.flatMap((_, i) => (needs(i) ? [i] : [])));
  let rest = gradients[0]!;
  return node.inputs.slice(0, last + 1).map((input, i) => {
    if (i === node.inputs.length - 1) return summedFor(context, i, rest);
    const share = op('Mul', rest, toFloat(graph, op('Equal', input!, y)));
    if (i < last) rest = op('Sub', rest, share);
    return needs(i) ? summedFor(context, i, share) : undefined;
  });
};

const where: GradientRule = (context) => {
  const { graph, node, gradients, needs } = context;
  const op = formula(graph);
  const [condition, g] = [node.inputs[0]!, gradients[0]!];
  const left = needs(1) ? op('Mul', g, toFloat(graph, condition)) : undefined;
  const right = (): Value => (left ? op('Sub', g, left) : op('Mul', g, toFloat(graph, op('Not', condition))));
  return [undefined, left && summedFor(context, 1, left), needs(2) ? summedFor(context, 2, right()) : undefined];
};

/** At a bound the gradient still goes to x. */
const clip: GradientRule = (context) => {
  const { graph, node, gradients, needs } = context;
  const op = formula(graph);
  const [x, y, g] = [node.inputs[0]!, node.outputs[0]!, gradients[0]!];
  const beyond = (bound: number, compare: string): Value | undefined =>
    needs(bound)
      ? summedFor(context, bound, op('Mul', g, toFloat(graph, op(compare, x, node.inputs[bound]!))))
      : undefined;
  return [
    needs(0) ? op('Mul', g, toFloat(graph, op('Equal', x, y))) : undefined,
    beyond(1, 'Less'),
    beyond(2, 'Greater'),
  ];
};

/** Element type that the file declares for a value, if it does. */
function declaredType(graph: Graph, value: Value): DataType | undefined {
  const type = value.info?.type?.value;
  return graph.constant(value)?.dataType ?? (type?.case === 'tensorType' ? type.value.elemType : undefined);
}

/** Between float types the gradient is cast back; an undeclared type is taken to be float32. Integers stop it. */
const cast: GradientRule = ({ graph, node, gradients }) => {
  const to = node.int('to', DataType.FLOAT);
  const from = declaredType(graph, node.inputs[0]!) ?? DataType.FLOAT;
  if (dataTypeInfo(to).kind !== 'float' || dataTypeInfo(from).kind !== 'float') return [];
  const gradient = gradients[0]!;
  return [from === Number(to) ? gradient : graph.insertOp('Cast', [gradient], [intAttribute('to', from)])];
};

/** In training y = x mask / (1 - ratio), else y = x. A mask that the node did not give is added to its outputs. */
const dropout: GradientRule = ({ graph, node, gradients }) => {
  const op = formula(graph);
  const [, ratio, training] = node.inputs;
  const g = gradients[0]!;
  const mode = graph.constant(training);
  if (!training || (mode && readInts(mode)[0] === 0)) return [g];
  const mask = toFloat(graph, outputOf(graph, node, 1));
  const known = ratio ? graph.constant(ratio) : undefined;
  if (mode && (known || !ratio)) {
    const rate = known ? readFloats(known)[0]! : 0.5;
    if (rate === 0) return [g];
    return [op('Mul', g, op('Mul', mask, 1 / (1 - rate)))];
  }
  const rate = op('Mul', ratio ?? 0.5, toFloat(graph, training));
  return [op('Mul', g, op('Div', mask, op('Sub', 1, rate)))];
};

export const elementwise: GradientRules = {
  Neg: unary((op, g) => op('Neg', g)),
  Abs: ({ graph, node, gradients }) => [
    graph.insertOp('Mul', [gradients[0]!, signOf(graph, node.inputs[0]!, node.outputs[0]!)]),
  ],
  Exp: unary((op, g, _, y) => op('Mul', g, y)),
  Log: unary((op, g, x) => op('Div', g, x)),
  Sqrt: unary((op, g, _, y) => op('Div', op('Mul', g, 0.5), y)),
  Reciprocal: unary((op, g, _, y) => op('Neg', op('Mul', g, op('Mul', y, y)))),
  Erf: unary((op, g, x) => {
    const bell = op('Exp', op('Neg', op('Mul', x, x)));
    return op('Mul', g, op('Mul', bell, 2 / Math.sqrt(Math.PI)));
  }),
  Sin: unary((op, g, x) => op('Mul', g, op('Cos', x))),
  Cos: unary((op, g, x) => op('Neg', op('Mul', g, op('Sin', x)))),
  Tan: unary((op, g, _, y) => op('Mul', g, op('Add', op('Mul', y, y), 1))),
  Asin: unary((op, g, x) => op('Div', g, op('Sqrt', op('Sub', 1, op('Mul', x, x))))),
  Acos: unary((op, g, x) => op('Neg', op('Div', g, op('Sqrt', op('Sub', 1, op('Mul', x, x)))))),
  Atan: unary((op, g, x) => op('Div', g, op('Add', op('Mul', x, x), 1))),
  Sinh: unary((op, g, x) => op('Mul', g, op('Cosh', x))),
  Cosh: unary((op, g, x) => op('Mul', g, op('Sinh', x))),
  Asinh: unary((op, g, x) => op('Div', g, op('Sqrt', op('Add', op('Mul', x, x), 1)))),
  Acosh: unary((op, g, x) => op('Div', g, op('Sqrt', op('Sub', op('Mul', x, x), 1)))),
  Atanh: unary((op, g, x) => op('Div', g, op('Sub', 1, op('Mul', x, x)))),
  Identity: unary((_, g) => g),
  Pow: pow,
  Min: extreme,
  Max: extreme,
  Mean: (context) => {
    const share = formula(context.graph)('Mul', context.gradients[0]!, 1 / context.node.inputs.length);
    return context.node.inputs.map((_, i) => (context.needs(i) ? summedFor(context, i, share) : undefined));
  },
  Where: where,
  Clip: clip,
  Cast: cast,
  Dropout: dropout,
};
