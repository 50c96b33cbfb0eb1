/** Operators that only move or repeat elements. */
import { FlowCompressError } from '../../errors.js';
import { axisFromStart } from '../../onnx/axis.js';
import { intAttribute } from '../../onnx/attributes.js';
import { concat, constantOf, reduceKeeping, reshape, slice, transpose } from '../../onnx/ops.js';
import { sumTo } from '../broadcast.js';
import type { GradientRule, GradientRules } from '../rule.js';
import { constantInts, knownShape, reshapeLike, reshapeTarget, zerosLike } from '../shapes.js';
import { slicePad } from './slice-pad.js';

/** Operators that keep the elements in their order. */
const reordered: GradientRule = (context) => {
  const x = context.node.inputs[0]!;
  const empty = context.shapeOf(x).includes(0);
  return empty ? [] : [reshapeLike(context, context.gradients[0]!, x)];
};

const transposeRule: GradientRule = ({ graph, node, gradients, shapeOf }) => {
  const rank = shapeOf(node.inputs[0]!).length;
  const perm = node.ints('perm') ?? Array.from({ length: rank }, (_, i) => rank - 1 - i);
  return [
    transpose(
      graph,
      gradients[0]!,
      perm.map((_, axis) => perm.indexOf(axis)),
    ),
  ];
};

/** One slice for one operand, one Split for several. */
const concatRule: GradientRule = (context) => {
  const { graph, node, gradients, needs, shapeOf } = context;
  const gradient = gradients[0]!;
  const axis = axisFromStart(node.int('axis', 0), shapeOf(node.outputs[0]!).length);
  const inputs = node.inputs.map((input) => input!);
  const sizes = knownShape(inputs.map((input) => shapeOf(input)[axis]));
  const wanted = inputs.flatMap((_, i) => (needs(i) ? [i] : []));
  const [only, ...more] = wanted;
  if (sizes && only !== undefined && more.length === 0) {
    const start = sizes.slice(0, only).reduce((a, b) => a + b, 0);
    const part = slice(graph, gradient, [axis], [start], [start + sizes[only]!], [1]);
    return inputs.map((_, i) => (i === only ? part : undefined));
  }
  const lengths = sizes
    ? constantOf(graph, sizes, 'int64')
    : concat(
        graph,
        inputs.map((input) => slice(graph, graph.insertOp('Shape', [input]), [0], [axis], [axis + 1], [1])),
        0,
      );
  return graph.insert({
    opType: 'Split',
    inputs: [gradient, lengths],
    outputs: inputs.map((_, i) => graph.uniqueName(`${node.label}_part${String(i)}`)),
    attributes: [intAttribute('axis', axis)],
  }).outputs;
};

/** Outputs that the loss does not depend on count as zeros. */
const split: GradientRule = (context) => {
  const { graph, node, gradients } = context;
  const parts = node.outputs.map((output, i) => {
    const gradient = gradients[i];
    if (gradient) return gradient;
    if (output) return zerosLike(context, output);
    throw new FlowCompressError('unsupported', 'An output of this Split is left out.', {
      node: node.label,
      hint: 'Give every output of the node a name.',
    });
  });
  return [concat(graph, parts, node.int('axis', 0))];
};

const expand: GradientRule = (context) => {
  const { node, gradients, shapeOf } = context;
  const [x, y] = [node.inputs[0]!, node.outputs[0]!];
  return [sumTo(context, gradients[0]!, shapeOf(y), shapeOf(x))];
};

/** A repeated axis is cut into repetitions and elements, and the repetitions are summed. */
const tile: GradientRule = (context) => {
  const { graph, node, gradients, shapeOf } = context;
  const x = node.inputs[0]!;
  const repeats = constantInts(context, 1, 'repeats')!;
  const cut: (number | undefined)[] = [];
  const summed: number[] = [];
  shapeOf(x).forEach((size, axis) => {
    const times = repeats[axis]!;
    if (times !== 1) {
      summed.push(cut.length);
      cut.push(times);
    }
    cut.push(size);
  });
  if (summed.length === 0) return [gradients[0]];
  if (repeats.includes(0)) return [];
  const target = reshapeTarget(cut);
  if (!target)
    throw new FlowCompressError('unsupported', 'More than one axis of what this Tile repeats varies in size.', {
      node: node.label,
      hint: 'Export the model with only the batch of varying size.',
    });
  const sum = reduceKeeping(graph, 'ReduceSum', reshape(graph, gradients[0]!, target), summed);
  return [reshapeLike(context, sum, x)];
};

/** What lies outside of the triangle got lost. */
const trilu: GradientRule = ({ graph, node, gradients }) => [
  graph.insertOp('Trilu', [gradients[0], node.inputs[1]], [intAttribute('upper', node.int('upper', 1))]),
];

export const movement: GradientRules = {
  ...slicePad,
  Reshape: reordered,
  Flatten: reordered,
  Squeeze: reordered,
  Unsqueeze: reordered,
  Transpose: transposeRule,
  Concat: concatRule,
  Split: split,
  Expand: expand,
  Tile: tile,
  Trilu: trilu,
};
