/** The way back through numpy broadcasting: what was repeated is summed. */
import type { Value } from '../onnx/graph.js';
import { constantOf, reduceKeeping, reshape } from '../onnx/ops.js';
import type { GradientContext, Shape } from './rule.js';

/**
 * A gradient in the broadcast result as the gradient in one operand.
 * @param gradient of shape `from`
 * @param to shape of the operand; a dim that is not known is taken to be that of the result, not 1
 */
export function sumTo({ graph }: Pick<GradientContext, 'graph'>, gradient: Value, from: Shape, to: Shape): Value {
  const lead = from.length - to.length;
  const axes = from.flatMap((size, axis) => (axis < lead || (to[axis - lead] === 1 && size !== 1) ? [axis] : []));
  const summed = axes.length > 0 ? reduceKeeping(graph, 'ReduceSum', gradient, axes) : gradient;
  if (lead === 0) return summed;
  const squeezed = Array.from({ length: lead }, (_, axis) => axis);
  return to.length === 0
    ? reshape(graph, summed, [])
    : graph.insertOp('Squeeze', [summed, constantOf(graph, squeezed, 'int64')]);
}
