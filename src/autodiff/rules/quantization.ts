/**
 * QuantizeLinear and DequantizeLinear, with the straight-through gradient in x and the learned-step gradient in the scale
 * (Esser et al. 2020, "Learned step size quantization").
 *
 * The two rules meet in a convention: the gradient in an integer tensor q is that in the real numbers it stands for,
 * s (q - z). DequantizeLinear therefore hands its gradient on as it is, moving operators between the two may pass it along,
 * and QuantizeLinear takes what arrives as the gradient in the rounded x, which holds only if every reader of q
 * dequantizes with its own scale; other graphs are refused.
 *
 * Each node adds its part of the gradient in the scale, q held fixed in the one and x in the other:
 *   DequantizeLinear   g (q - z)
 *   QuantizeLinear     -g x / s inside the range, 0 outside
 * The two nodes of a pair read one scale, where differentiate adds the parts: g (round(x/s) - x/s) inside the range, and
 * g (Qmin - z) or g (Qmax - z) outside. Two scales of equal numbers would part in training: they must be constant.
 */
import { FlowCompressError } from '../../errors.js';
import { axisFromStart } from '../../onnx/axis.js';
import { dataTypeInfo, DataType } from '../../onnx/dtypes.js';
import type { Graph, Node, Value } from '../../onnx/graph.js';
import { formula, reduce, reshape, toFloat } from '../../onnx/ops.js';
import { readFloats } from '../../onnx/tensor.js';
import type { GradientContext, GradientRule, GradientRules } from '../rule.js';

/** Operators that move or choose elements of an integer tensor and leave their scale alone. */
const MOVING = new Set([
  ...[
    'Identity',
    'Reshape',
    'Flatten',
    'Squeeze',
    'Unsqueeze',
    'Transpose',
    'Slice',
    'Split',
    'Expand',
    'Tile',
    'Gather',
  ],
  ...['DepthToSpace', 'SpaceToDepth', 'MaxPool'],
]);

function refuse(node: Node, problem: string, hint: string): FlowCompressError {
  return new FlowCompressError('unsupported', problem, { node: node.label, hint });
}

/** Axis along which the scale varies; undefined where there is one scale for the whole tensor. */
function scaleAxis({ node, shapeOf }: GradientContext): number | undefined {
  if (node.int('block_size', 0) !== 0)
    throw refuse(node, 'Block-wise quantization has no gradient rule.', 'Quantize per tensor or per axis to train.');
  const size = shapeOf(node.inputs[1]!);
  if (size.length === 0 || (size.length === 1 && size[0] === 1)) return undefined;
  return axisFromStart(node.int('axis', 1), shapeOf(node.inputs[0]!).length);
}

/** A value like the scale, shaped to broadcast with x. */
function alongAxis(context: GradientContext, value: Value): Value {
  const { graph, node, shapeOf } = context;
  const axis = scaleAxis(context);
  const trailing = axis === undefined ? 0 : shapeOf(node.inputs[0]!).length - 1 - axis;
  return trailing === 0 ? value : reshape(graph, value, [-1, ...Array.from({ length: trailing }, () => 1)]);
}

/** Sums a value of the shape of x to that of the scale. */
function summedToScale(context: GradientContext, value: Value): Value {
  const { graph, node, shapeOf } = context;
  const axis = scaleAxis(context);
  if (axis === undefined) {
    const total = reduce(graph, 'ReduceSum', value);
    return shapeOf(node.inputs[1]!).length === 0 ? total : reshape(graph, total, [1]);
  }
  const others = Array.from({ length: shapeOf(node.inputs[0]!).length }, (_, i) => i).filter((i) => i !== axis);
  return others.length === 0 ? value : reduce(graph, 'ReduceSum', value, others);
}

/** Least and greatest code of the type that the zero point, the attribute output_dtype or the declared output gives. */
function rangeOf(graph: Graph, node: Node): readonly [min: number, max: number] {
  const zeroPoint = node.inputs[2];
  const declared = (value: Value | undefined): number | undefined => {
    const type = value?.info?.type?.value;
    return graph.constant(value)?.dataType ?? (type?.case === 'tensorType' ? type.value.elemType : undefined);
  };
  const asked = node.int('output_dtype', 0);
  const fallback = zeroPoint ? undefined : asked || DataType.UINT8;
  const code = declared(zeroPoint) ?? declared(node.outputs[0]) ?? fallback;
  if (code === undefined)
    throw refuse(node, 'The type of the zero point is not known.', 'Store the zero point as an initializer.');
  const { range, name } = dataTypeInfo(code);
  if (!range) throw refuse(node, `Quantization to ${name} has no gradient rule.`, 'Quantize to integers to train.');
  return [Number(range[0]), Number(range[1])];
}

function sameNumbers(graph: Graph, a: Value | undefined, b: Value | undefined): boolean {
  const [left, right] = [graph.constant(a), graph.constant(b)];
  return left !== undefined && right !== undefined && readFloats(left).join() === readFloats(right).join();
}

/**
 * @param fixed whether the scale stays as it is, so that it may be stored twice
 * @throws FlowCompressError `unsupported` where a reader of q would see it at another scale
 */
function checkReaders(graph: Graph, quantize: Node, q: Value, fixed: boolean): void {
  const own = quantize.inputs[1];
  const isOwn = (scale: Value | undefined): boolean => scale === own || (fixed && sameNumbers(graph, scale, own));
  for (const { node, index } of q.uses) {
    if (node.is('Shape') || node.is('Size')) continue;
    if (node.domain === '' && MOVING.has(node.opType) && index === 0) {
      for (const output of node.outputs) if (output) checkReaders(graph, quantize, output, fixed);
    } else if (!node.is('DequantizeLinear') || index !== 0 || !isOwn(node.inputs[1])) {
      throw refuse(
        quantize,
        `The integers of this QuantizeLinear are read by ${node.label} (${node.opType}) at another scale.`,
        'Let every QuantizeLinear be followed by a DequantizeLinear of the same scale.',
      );
    }
  }
}

/** Zero where x is beyond the greatest or least number that the codes stand for. */
const quantizeLinear: GradientRule = (context) => {
  const { graph, node, gradients, needs } = context;
  const op = formula(graph);
  const [x, s, zeroPoint, g] = [node.inputs[0]!, node.inputs[1]!, node.inputs[2], gradients[0]!];
  checkReaders(graph, node, node.outputs[0]!, !needs(1));
  const [least, greatest] = rangeOf(graph, node);
  const zero = zeroPoint && toFloat(graph, zeroPoint);
  const bound = (code: number): Value => alongAxis(context, op('Mul', s, zero ? op('Sub', code, zero) : code));
  const inside = op('And', op('GreaterOrEqual', x, bound(least)), op('LessOrEqual', x, bound(greatest)));
  const inX = op('Mul', g, toFloat(graph, inside));
  if (!needs(1)) return [inX];
  return [inX, op('Neg', op('Div', summedToScale(context, op('Mul', inX, x)), s))];
};

/** The node that made an integer tensor, looking through those that moved it. */
function quantizerOf(q: Value): Node | undefined {
  const { producer } = q;
  return producer?.domain === '' && MOVING.has(producer.opType) ? quantizerOf(producer.inputs[0]!) : producer;
}

const dequantizeLinear: GradientRule = (context) => {
  const { graph, node, gradients, needs } = context;
  const op = formula(graph);
  const [q, s, y, g] = [node.inputs[0]!, node.inputs[1]!, node.outputs[0]!, gradients[0]!];
  scaleAxis(context);
  if (needs(0) && needs(1) && quantizerOf(q)?.inputs[1] !== s)
    throw refuse(node, 'A trained scale is not that of the QuantizeLinear before.', 'Let both nodes read one scale.');
  // q - z is y / s, and y is there.
  return [g, needs(1) ? op('Div', summedToScale(context, op('Mul', g, y)), s) : undefined];
};

export const quantization: GradientRules = { QuantizeLinear: quantizeLinear, DequantizeLinear: dequantizeLinear };
