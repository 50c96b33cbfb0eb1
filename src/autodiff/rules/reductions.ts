/** Reductions over axes. */
import { TensorProto_DataType as DataType } from 'onnx-buf';
import { FlowCompressError } from '../../errors.js';
import { intAttribute } from '../../onnx/attributes.js';
import type { Value } from '../../onnx/graph.js';
import { constantOf, unsqueeze } from '../../onnx/ops.js';
import { readInts } from '../../onnx/tensor.js';
import type { GradientContext, GradientRule, GradientRules } from '../rule.js';

/** Reduced axes, none below 0: an attribute, the second input (a constant), or all. */
function axesOf({ graph, node, shapeOf }: GradientContext): number[] {
  const rank = shapeOf(node.inputs[0]!).length;
  const input = node.inputs[1];
  const constant = graph.constant(input);
  if (input && !constant)
    throw new FlowCompressError('unsupported', `The axes of this ${node.opType} are computed at run time.`, {
      node: node.label,
      hint: 'Export the model with constant axes.',
    });
  const listed = node.ints('axes') ?? (constant ? readInts(constant) : []);
  if (listed.length > 0) return listed.map((axis) => (axis < 0 ? axis + rank : axis));
  return node.int('noop_with_empty_axes', 0) ? [] : Array.from({ length: rank }, (_, axis) => axis);
}

/** A value of the output's shape, repeated over the reduced axes. */
function spread(context: GradientContext, value: Value): Value {
  const { graph, node } = context;
  const x = node.inputs[0]!;
  const axes = axesOf(context).sort((a, b) => a - b);
  let kept = value;
  if (node.int('keepdims', 1) === 0 && axes.length > 0) {
    kept = unsqueeze(graph, value, axes);
  }
  return graph.insertOp('Expand', [kept, graph.insertOp('Shape', [x])]);
}

const sum: GradientRule = (context) => [spread(context, context.gradients[0]!)];

const mean: GradientRule = (context) => {
  const { graph, node, gradients, shapeOf } = context;
  const [x, y] = [node.inputs[0]!, node.outputs[0]!];
  const sizes = axesOf(context).map((axis) => shapeOf(x)[axis]);
  if (sizes.includes(undefined)) {
    // The batch is among the axes: elements are counted when the graph runs.
    const count = (value: Value): Value =>
      graph.insertOp('Cast', [graph.insertOp('Size', [value])], [intAttribute('to', DataType.FLOAT)]);
    const share = graph.insertOp('Div', [count(y), count(x)]);
    return [spread(context, graph.insertOp('Mul', [gradients[0]!, share]))];
  }
  const share = constantOf(graph, [1 / sizes.reduce<number>((a, b) => a * b!, 1)], 'float32', { scalar: true });
  return [spread(context, graph.insertOp('Mul', [gradients[0]!, share]))];
};

export const reductions: GradientRules = { ReduceSum: sum, ReduceMean: mean };
