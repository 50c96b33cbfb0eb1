/** Resize, a linear map along every axis that changes, and the exchange of depth for space. */
import { FlowCompressError } from '../../errors.js';
import { axisFromStart } from '../../onnx/axis.js';
import { intAttribute, intsAttribute } from '../../onnx/attributes.js';
import type { Node } from '../../onnx/graph.js';
import { formula, reshape, transpose } from '../../onnx/ops.js';
import type { GradientContext, GradientRule, GradientRules } from '../rule.js';
import { constantInts } from '../shapes.js';
import { mapAxes, transposedMatrix, type AxisMap, type Matrix } from './axis-maps.js';
import { knownSizes } from './window-sizes.js';

function refuse(node: Node, problem: string): FlowCompressError {
  return new FlowCompressError('unsupported', `This Resize ${problem}, which has no gradient rule.`, {
    node: node.label,
    hint: 'Export the model with nearest, linear or cubic interpolation between fixed sizes.',
  });
}

/**
 * Position in an axis of `size` elements of output element i (operator documentation). In float32, as engines compute it:
 * where a position lies on the border between two elements, they decide by the rounded number.
 */
function position(node: Node, i: number, size: number, length: number, scale: number): number {
  const f = Math.fround;
  const halfPixel = (): number => f(f(f(i + 0.5) / scale) - 0.5);
  const mode = node.string('coordinate_transformation_mode', 'half_pixel');
  switch (mode) {
    case 'half_pixel':
      return halfPixel();
    case 'pytorch_half_pixel':
      return length > 1 ? halfPixel() : 0;
    case 'half_pixel_symmetric':
      return f(f((size / 2) * f(1 - f(length / f(scale * size)))) + halfPixel());
    case 'align_corners':
      return length > 1 ? f((i * (size - 1)) / (length - 1)) : 0;
    case 'asymmetric':
      return f(i / scale);
    default:
      throw refuse(node, `has coordinates of kind ${mode}`);
  }
}

function nearest(node: Node, x: number): number {
  const mode = node.string('nearest_mode', 'round_prefer_floor');
  if (mode === 'floor') return Math.floor(x);
  if (mode === 'ceil') return Math.ceil(x);
  return mode === 'round_prefer_ceil' ? Math.floor(x + 0.5) : Math.ceil(x - 0.5);
}

/** Weights of the elements around a position, the first of them at `from`. */
function weightsAt(node: Node, x: number): { from: number; weights: number[] } {
  const mode = node.string('mode', 'nearest');
  const low = Math.floor(x);
  const t = x - low;
  if (mode === 'nearest') return { from: nearest(node, x), weights: [1] };
  if (mode === 'linear') return { from: low, weights: [1 - t, t] };
  if (mode !== 'cubic') throw refuse(node, `interpolates in mode ${mode}`);
  // Keys' cubic convolution: one polynomial for the two inner elements, one for the outer ones.
  const a = node.float('cubic_coeff_a', -0.75);
  const inner = (d: number): number => ((a + 2) * d - (a + 3)) * d * d + 1;
  const outer = (d: number): number => ((a * d - 5 * a) * d + 8 * a) * d - 4 * a;
  return { from: low - 1, weights: [outer(1 + t), inner(t), inner(1 - t), outer(2 - t)] };
}

/** By output element the weights of the input elements along one axis. Elements outside count as the nearest inside. */
function axisMatrix(node: Node, size: number, length: number, scale: number): Matrix {
  const exclude = node.int('exclude_outside', 0) !== 0 && node.string('mode', 'nearest') === 'cubic';
  return Array.from({ length }, (_, i) => {
    const { from, weights } = weightsAt(node, position(node, i, size, length, scale));
    const isInside = (k: number): boolean => from + k >= 0 && from + k < size;
    const total = exclude ? weights.reduce((sum, weight, k) => sum + (isInside(k) ? weight : 0), 0) : 1;
    const row = Array.from({ length: size }, () => 0);
    weights.forEach((weight, k) => {
      if (exclude && !isInside(k)) return;
      row[Math.min(Math.max(from + k, 0), size - 1)]! += weight / total;
    });
    return row;
  });
}

/** The axes along which something changes, with the map from input to output; the first axis stays as it is. */
function axisMaps(context: GradientContext): AxisMap[] {
  const { node } = context;
  if (node.int('antialias', 0) !== 0) throw refuse(node, 'filters against aliasing');
  if (node.string('keep_aspect_ratio_policy', 'stretch') !== 'stretch') throw refuse(node, 'keeps the aspect ratio');
  const sizes = [1, ...knownSizes(context, node.inputs[0]!)];
  const lengths = [1, ...knownSizes(context, node.outputs[0]!)];
  const axes = (node.ints('axes') ?? sizes.map((_, i) => i)).map((axis) => axisFromStart(axis, sizes.length));
  const scales = node.inputs[3] ? [] : (constantInts(context, 2, 'scales') ?? []);
  return axes.flatMap((axis, i): AxisMap[] => {
    const [size, length] = [sizes[axis]!, lengths[axis]!];
    const scale = scales.length > 0 ? scales[i]! : Math.fround(length / size);
    if (length === size && scale === 1) return [];
    if (axis === 0) throw refuse(node, 'changes the size of the batch');
    return [{ axis, matrix: axisMatrix(node, size, length, scale) }];
  });
}

/** How often each element is repeated, where that is all that happens. */
function repetition(matrix: Matrix): number | undefined {
  const factor = matrix.length / matrix[0]!.length;
  const repeats = matrix.every((row, i) => row.every((weight, k) => weight === (Math.floor(i / factor) === k ? 1 : 0)));
  return Number.isInteger(factor) && repeats ? factor : undefined;
}

const resizeRule: GradientRule = (context) => {
  const { graph, node, gradients } = context;
  const gradient = gradients[0]!;
  const maps = axisMaps(context);
  const lengths = knownSizes(context, node.outputs[0]!);
  const factors = [1, ...lengths].map((_, axis) => {
    const map = maps.find((each) => each.axis === axis);
    return map ? repetition(map.matrix) : 1;
  });
  const [, channels, ...spatial] = factors;
  if (maps.length > 0 && channels === 1 && spatial.length > 0 && !spatial.includes(undefined)) {
    // Sums over blocks: averages over windows side by side.
    const kernel = spatial.map((factor) => factor!);
    const attributes = [intsAttribute('kernel_shape', kernel), intsAttribute('strides', kernel)];
    const average = graph.insertOp('AveragePool', [gradient], attributes);
    return [
      formula(graph)(
        'Mul',
        average,
        kernel.reduce((a, b) => a * b, 1),
      ),
    ];
  }
  const back = maps.map(({ axis, matrix }) => ({ axis, matrix: transposedMatrix(matrix) }));
  return [mapAxes(graph, gradient, lengths, back)];
};

const depthToSpace: GradientRule = (context) => {
  const { graph, node, gradients } = context;
  const blocksize = node.int('blocksize', 1);
  const gradient = gradients[0]!;
  if (node.string('mode', 'DCR') === 'DCR')
    return [graph.insertOp('SpaceToDepth', [gradient], [intAttribute('blocksize', blocksize)])];
  const [channels, height, width] = knownSizes(context, node.inputs[0]!) as [number, number, number];
  const depth = channels / (blocksize * blocksize);
  const blocks = reshape(graph, gradient, [-1, depth, height, blocksize, width, blocksize]);
  return [reshape(graph, transpose(graph, blocks, [0, 1, 3, 5, 2, 4]), [-1, channels, height, width])];
};

const spaceToDepth: GradientRule = ({ graph, node, gradients }) => [
  graph.insertOp('DepthToSpace', [gradients[0]], [intAttribute('blocksize', node.int('blocksize', 1))]),
];

export const resize: GradientRules = { Resize: resizeRule, DepthToSpace: depthToSpace, SpaceToDepth: spaceToDepth };
