/** Reductions over axes. */
import { axisFromStart } from '../../onnx/axis.js';
import type { Graph, Value } from '../../onnx/graph.js';
import { constantOf, formula, reduceKeeping, signOf, toFloat, unsqueeze, type Formula } from '../../onnx/ops.js';
import type { GradientContext, GradientRule, GradientRules } from '../rule.js';
import { constantInts } from '../shapes.js';

/** Reduced axes, none below 0: an attribute, the second input (a constant), or all. */
function axesOf(context: GradientContext): number[] {
  const { node, shapeOf } = context;
  const rank = shapeOf(node.inputs[0]!).length;
  const listed = node.ints('axes') ?? constantInts(context, 1, 'axes') ?? [];
  if (listed.length > 0) return listed.map((axis) => axisFromStart(axis, rank));
  return node.int('noop_with_empty_axes', 0) ? [] : Array.from({ length: rank }, (_, axis) => axis);
}

/** A value of the output's shape with the reduced axes put back at length 1. */
function kept({ graph, node }: GradientContext, axes: readonly number[], value: Value): Value {
  return node.int('keepdims', 1) === 0 && axes.length > 0 ? unsqueeze(graph, value, axes) : value;
}

/** A value of the output's shape, repeated over the reduced axes. */
function spread(context: GradientContext, value: Value): Value {
  const { graph, node } = context;
  const axes = axesOf(context);
  return graph.insertOp('Expand', [kept(context, axes, value), graph.insertOp('Shape', [node.inputs[0]!])]);
}

interface Reduced {
  readonly graph: Graph;
  readonly op: Formula;
  readonly x: Value;
  /** Output and gradient in it, broadcastable to x. */
  readonly y: Value;
  readonly g: Value;
  readonly axes: readonly number[];
}

/** The rule of a reduction whose gradient in x follows from broadcasting y and g to x. */
function reduction(inX: (reduced: Reduced) => Value): GradientRule {
  return (context) => {
    const { graph, node, gradients } = context;
    const axes = axesOf(context);
    const [y, g] = [node.outputs[0]!, gradients[0]!].map((value) => kept(context, axes, value)) as [Value, Value];
    return [inX({ graph, op: formula(graph), x: node.inputs[0]!, y, g, axes })];
  };
}

/** Over no axes at all a sum or product is its operand. */
function over({ graph, axes }: Reduced, name: 'ReduceSum' | 'ReduceProd', value: Value): Value {
  return axes.length > 0 ? reduceKeeping(graph, name, value, axes) : value;
}

const sum: GradientRule = (context) => [spread(context, context.gradients[0]!)];

const mean: GradientRule = (context) => {
  const { graph, node, gradients, shapeOf } = context;
  const [x, y] = [node.inputs[0]!, node.outputs[0]!];
  const sizes = axesOf(context).map((axis) => shapeOf(x)[axis]);
  if (sizes.includes(undefined)) {
    // The batch is among the axes: elements are counted when the graph runs.
    const count = (value: Value): Value => toFloat(graph, graph.insertOp('Size', [value]));
    const share = graph.insertOp('Div', [count(y), count(x)]);
    return [spread(context, graph.insertOp('Mul', [gradients[0]!, share]))];
  }
  const share = constantOf(graph, [1 / sizes.reduce<number>((a, b) => a * b!, 1)], 'float32', { scalar: true });
  return [spread(context, graph.insertOp('Mul', [gradients[0]!, share]))];
};

/** Elements that share the extreme value share the gradient evenly. */
const extreme = reduction((reduced) => {
  const { graph, op, x, y, g } = reduced;
  const reached = toFloat(graph, op('Equal', x, y));
  return op('Mul', reached, op('Div', g, over(reduced, 'ReduceSum', reached)));
});

/** The product of the other elements, also where elements are zero: one zero alone has a gradient, two have none. */
const product = reduction((reduced) => {
  const { graph, op, x, g } = reduced;
  const zero = toFloat(graph, op('Equal', x, 0));
  const nonzero = op('Add', x, zero);
  const others = over(reduced, 'ReduceProd', nonzero);
  const zeros = over(reduced, 'ReduceSum', zero);
  const counts = (n: number): Value => toFloat(graph, op('Equal', zeros, n));
  const reaching = op('Add', op('Mul', zero, counts(1)), counts(0));
  return op('Mul', op('Div', reaching, nonzero), op('Mul', g, others));
});

export const reductions: GradientRules = {
  ReduceSum: sum,
  ReduceMean: mean,
  ReduceMax: extreme,
  ReduceMin: extreme,
  ReduceProd: product,
  ReduceL1: reduction(({ graph, op, x, g }) => op('Mul', signOf(graph, x, op('Abs', x)), g)),
  // x / y, and 0 where all elements are 0.
  ReduceL2: reduction(({ graph, op, x, y, g }) =>
    op('Mul', x, op('Div', g, op('Add', y, toFloat(graph, op('Equal', y, 0))))),
  ),
  ReduceSumSquare: reduction(({ op, x, g }) => op('Mul', x, op('Mul', g, 2))),
  ReduceLogSum: (context) => {
    const op = formula(context.graph);
    return [spread(context, op('Mul', context.gradients[0]!, op('Exp', op('Neg', context.node.outputs[0]!))))];
  },
  ReduceLogSumExp: reduction(({ op, x, y, g }) => op('Mul', op('Exp', op('Sub', x, y)), g)),
};
