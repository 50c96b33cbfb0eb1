/** Add, Sub, Mul, Div and Sum, with broadcasting. */
import type { Value } from '../../onnx/graph.js';
import { sumTo } from '../broadcast.js';
import type { GradientContext, GradientRule, GradientRules } from '../rule.js';

/** The rule of an operator on two broadcast operands, from the gradients in the broadcast shape. */
function binary(left: (context: GradientContext) => Value, right: (context: GradientContext) => Value): GradientRule {
  return (context) => {
    const { node, needs, shapeOf } = context;
    const result = shapeOf(node.outputs[0]!);
    return [left, right].map((gradient, i) =>
      needs(i) ? sumTo(context, gradient(context), result, shapeOf(node.inputs[i]!)) : undefined,
    );
  };
}

const same = ({ gradients }: GradientContext): Value => gradients[0]!;
const op = ({ graph }: GradientContext, name: string, ...inputs: Value[]): Value => graph.insertOp(name, inputs);

export const arithmetic: GradientRules = {
  Add: binary(same, same),
  Sub: binary(same, (c) => op(c, 'Neg', same(c))),
  Mul: binary(
    (c) => op(c, 'Mul', same(c), c.node.inputs[1]!),
    (c) => op(c, 'Mul', same(c), c.node.inputs[0]!),
  ),
  // d(a / b)/db = -(a / b) / b
  Div: binary(
    (c) => op(c, 'Div', same(c), c.node.inputs[1]!),
    (c) => op(c, 'Neg', op(c, 'Div', op(c, 'Mul', same(c), c.node.outputs[0]!), c.node.inputs[1]!)),
  ),
  Sum: (context) => {
    const { node, needs, shapeOf } = context;
    const result = shapeOf(node.outputs[0]!);
    return node.inputs.map((input, i) =>
      input && needs(i) ? sumTo(context, same(context), result, shapeOf(input)) : undefined,
    );
  },
};
