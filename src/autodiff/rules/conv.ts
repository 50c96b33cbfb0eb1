/** Conv and ConvTranspose: each one's gradients are made of the other, of slices and of matrix products. */
import { FlowCompressError } from '../../errors.js';
import { intAttribute, intsAttribute } from '../../onnx/attributes.js';
import { convGeometry } from '../../onnx/conv-geometry.js';
import type { Graph, Node, Value } from '../../onnx/graph.js';
import { firstElements, reduce } from '../../onnx/ops.js';
import type { GradientContext, GradientRule, GradientRules } from '../rule.js';
import { INPUT_GRADIENTS } from './conv-input-gradient.js';
import type { ConvShape } from './conv-shape.js';
import { WEIGHT_GRADIENTS } from './conv-weight-gradient.js';
import { knownSizes } from './window-sizes.js';

const convolution: GradientRule = (context) => {
  const { graph, node, gradients, needs } = context;
  const [x, w, bias] = node.inputs as [Value, Value, Value | undefined];
  const gradient = gradients[0]!;
  const shape = convShape(context);
  const forms = context.formsFor(shape);
  return [
    needs(0) ? INPUT_GRADIENTS[forms.input](graph, shape, gradient, w) : undefined,
    needs(1) ? WEIGHT_GRADIENTS[forms.weight](graph, shape, x, gradient) : undefined,
    bias && needs(2) ? biasGradient(graph, shape, gradient) : undefined,
  ];
};

/** What is known of a Conv. @throws FlowCompressError `unsupported` where a size varies that must be known */
export function convShape(context: Pick<GradientContext, 'node' | 'shapeOf' | 'block'>): ConvShape {
  const { node } = context;
  const [inChannels, ...input] = knownSizes(context, node.inputs[0]!);
  const [inner, ...kernel] = knownSizes(context, node.inputs[1]!);
  const [outChannels] = knownSizes(context, node.outputs[0]!);
  const geometry = convGeometry(node, [1, inChannels!, ...input], [outChannels!, inner!, ...kernel]);
  return {
    ...{ ...geometry, input, inChannels: inChannels!, outChannels: outChannels!, groups: node.int('group', 1) },
    ...{ samples: context.shapeOf(node.inputs[0]!)[0], block: context.block },
  };
}

/** Summed over samples and positions. */
function biasGradient(graph: Graph, { kernel }: Pick<ConvShape, 'kernel'>, gradient: Value): Value {
  return reduce(graph, 'ReduceSum', gradient, [0, ...kernel.map((_, i) => i + 2)]);
}

/** Y = ConvTranspose(X) is the way back through a convolution of Y to X, so dX is that convolution of dY. */
const convTranspose: GradientRule = (context) => {
  const { graph, node, gradients, needs } = context;
  const [x, w, bias] = node.inputs as [Value, Value, Value | undefined];
  const gradient = gradients[0]!;
  const shape = transposedShape(context);
  return [
    needs(0) ? convolved(graph, shape, gradient, w) : undefined,
    needs(1) ? WEIGHT_GRADIENTS[context.formsFor(shape).weight](graph, shape, gradient, x) : undefined,
    bias && needs(2) ? biasGradient(graph, shape, gradient) : undefined,
  ];
};

function convolved(graph: Graph, shape: ConvShape, gradient: Value, weight: Value): Value {
  const { strides, dilations, padBegin, padEnd, groups, output } = shape;
  const found = graph.insertOp(
    'Conv',
    [gradient, weight],
    [
      intAttribute('group', groups),
      intsAttribute('strides', strides),
      intsAttribute('dilations', dilations),
      intsAttribute('pads', [...padBegin, ...padEnd]),
    ],
  );
  return firstElements(graph, found, 2, reachedSizes(shape), output);
}

/** Output size of the convolution as its attributes have it; more than X has where output padding exceeds the stride. */
function reachedSizes({ input, kernel, strides, dilations, padBegin, padEnd }: ConvShape): number[] {
  return input.map((n, i) => {
    const free = n + padBegin[i]! + padEnd[i]! - (kernel[i]! - 1) * dilations[i]! - 1;
    return Math.floor(free / strides[i]!) + 1;
  });
}

/** The convolution from Y [N, Cout, output...] to X that a ConvTranspose goes back through. */
function transposedShape(context: GradientContext): ConvShape {
  const { node } = context;
  const [inChannels, ...spatial] = knownSizes(context, node.inputs[0]!);
  const [, ...kernel] = knownSizes(context, node.inputs[1]!);
  const [outChannels, ...full] = knownSizes(context, node.outputs[0]!);
  const strides = node.ints('strides') ?? kernel.map(() => 1);
  const dilations = node.ints('dilations') ?? kernel.map(() => 1);
  const padBegin = transposedPads(node, spatial, full, kernel, strides, dilations);
  // What the output lacks of the full size at its end; output padding beyond that is never read.
  const padEnd = full.map((n, i) =>
    Math.max(0, (spatial[i]! - 1) * strides[i]! + (kernel[i]! - 1) * dilations[i]! + 1 - padBegin[i]! - n),
  );
  return {
    ...{ kernel, strides, dilations, padBegin, padEnd, input: full, output: spatial },
    ...{ inChannels: outChannels!, outChannels: inChannels!, groups: node.int('group', 1) },
    ...{ samples: context.shapeOf(node.inputs[0]!)[0], block: context.block },
  };
}

/** Padding before the output: given, or the share that the operator's documentation puts there of what was cut away. */
function transposedPads(
  node: Node,
  spatial: readonly number[],
  full: readonly number[],
  kernel: readonly number[],
  strides: readonly number[],
  dilations: readonly number[],
): number[] {
  const autoPad = node.string('auto_pad', 'NOTSET');
  if (autoPad === 'VALID') return kernel.map(() => 0);
  const pads = node.ints('pads') ?? kernel.flatMap(() => [0, 0]);
  if (autoPad === 'NOTSET' && !node.ints('output_shape')) {
    if (pads.every((count) => count >= 0)) return pads.slice(0, kernel.length);
    throw new FlowCompressError('unsupported', 'This ConvTranspose has negative padding.', {
      node: node.label,
      hint: 'Export the model with a Slice or Pad instead.',
    });
  }
  const extra = node.ints('output_padding') ?? kernel.map(() => 0);
  return spatial.map((n, i) => {
    const reach = (n - 1) * strides[i]! + (kernel[i]! - 1) * dilations[i]! + 1 + extra[i]!;
    const total = Math.max(0, reach - full[i]!);
    return autoPad === 'SAME_UPPER' ? Math.floor(total / 2) : Math.ceil(total / 2);
  });
}

export const conv: GradientRules = { Conv: convolution, ConvTranspose: convTranspose };
