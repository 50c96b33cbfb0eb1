/** Pooling: maxima send their gradient to the elements that won, averages spread it over their windows. */
import { intsAttribute, stringAttribute } from '../../onnx/attributes.js';
import { convGeometry, kernelTaps, type ConvGeometry } from '../../onnx/conv-geometry.js';
import { DataType } from '../../onnx/dtypes.js';
import type { Graph, Value } from '../../onnx/graph.js';
import {
  concat,
  constantOf,
  formula,
  outputOf,
  padZeros,
  reduceKeeping,
  reshape,
  slice,
  toFloat,
} from '../../onnx/ops.js';
import { makeTensor } from '../../onnx/tensor.js';
import type { GradientContext, GradientRule, GradientRules } from '../rule.js';
import { mapAxes, type AxisMap } from './axis-maps.js';
import { knownSizes } from './window-sizes.js';

interface Windows extends ConvGeometry {
  readonly channels: number;
  /** Spatial dims of X. */
  readonly input: readonly number[];
}

const product = (sizes: readonly number[]): number => sizes.reduce((a, b) => a * b, 1);

function windowsOf(context: GradientContext): Windows {
  const { node } = context;
  const [channels, ...input] = knownSizes(context, node.inputs[0]!);
  const [, ...output] = knownSizes(context, node.outputs[0]!);
  const kernel = node.ints('kernel_shape') ?? [];
  const geometry = convGeometry(node, [1, channels!, ...input], [1, 1, ...kernel]);
  // With ceil_mode there may be one window more.
  return { ...geometry, output, channels: channels!, input };
}

/** Windows side by side that neither overlap nor leave gaps. */
function areBlocks({ kernel, strides, dilations }: Windows): boolean {
  return kernel.every((k, i) => k === strides[i] && (k === 1 || dilations[i] === 1));
}

/** Every element repeated over its block. */
function repeat(graph: Graph, value: Value, factors: readonly number[]): Value {
  return graph.insertOp(
    'Resize',
    [value, undefined, constantOf(graph, [1, 1, ...factors], 'float32')],
    [
      stringAttribute('mode', 'nearest'),
      stringAttribute('coordinate_transformation_mode', 'asymmetric'),
      stringAttribute('nearest_mode', 'floor'),
    ],
  );
}

/**
 * Which form a MaxPool's gradient takes; the one place where it is chosen. Measured in ONNX Runtime 1.30 with 2 threads:
 * - `blocks`: X is compared with its maximum repeated over each window; for windows that do not overlap, faster than
 *   indices, whose output takes the forward pool off its fast path. A tie is shared evenly;
 * - `indices`: dY is added up at the positions that the forward pool reports, the first of a tie; opset 16;
 * - `taps`: for every kernel position the slice of X is compared with the maximum. A tie is shared evenly.
 */
export type MaxPoolForm = 'blocks' | 'indices' | 'taps';

function chooseMaxPoolForm(windows: Windows, opset: number, rowMajor: boolean): MaxPoolForm {
  if (areBlocks(windows)) return 'blocks';
  return opset >= 16 && rowMajor ? 'indices' : 'taps';
}

const maxPool: GradientRule = (context) => {
  const { graph, node, gradients } = context;
  const gradient = gradients[0];
  // Only the indices enter the loss.
  if (!gradient) return [];
  const windows = windowsOf(context);
  const form = chooseMaxPoolForm(windows, graph.opset(), node.int('storage_order', 0) === 0);
  return [MAX_POOL_GRADIENTS[form](context, windows, gradient)];
};

type MaxPoolGradient = (context: GradientContext, windows: Windows, gradient: Value) => Value;

const maxByBlocks: MaxPoolGradient = ({ graph, node }, windows, gradient) => {
  const { kernel, output, padBegin, input } = windows;
  const apply = formula(graph);
  const end = output.map((n, i) => n * kernel[i]! - input[i]! - padBegin[i]!);
  const x = padWith(graph, node.inputs[0]!, padBegin, end, -Infinity);
  const won = toFloat(graph, apply('Equal', x, repeat(graph, node.outputs[0]!, kernel)));
  const ties = graph.insertOp(
    'AveragePool',
    [won],
    [intsAttribute('kernel_shape', kernel), intsAttribute('strides', kernel)],
  );
  const share = apply('Div', gradient, apply('Mul', ties, product(kernel)));
  const found = apply('Mul', won, repeat(graph, share, kernel));
  const back = (counts: readonly number[]): number[] => [0, 0, ...counts.map((count) => -count)];
  return padZeros(graph, found, back(padBegin), back(end));
};

const maxByIndices: MaxPoolGradient = ({ graph, node }, { channels, input }, gradient) => {
  const size = reshape(graph, graph.insertOp('Size', [node.inputs[0]]), [1]);
  const flat = (value: Value): Value => reshape(graph, value, [-1]);
  const found = graph.insertOp(
    'ScatterElements',
    [graph.insertOp('ConstantOfShape', [size]), flat(outputOf(graph, node, 1)), flat(gradient)],
    [stringAttribute('reduction', 'add')],
  );
  return reshape(graph, found, [-1, channels, ...input]);
};

const maxByTaps: MaxPoolGradient = ({ graph, node }, windows, gradient) => {
  const { kernel, strides, dilations, padBegin, output, input, channels } = windows;
  const apply = formula(graph);
  const reached = output.map((n, i) => (n - 1) * strides[i]! + (kernel[i]! - 1) * dilations[i]! + 1);
  const end = reached.map((n, i) => Math.max(0, n - input[i]! - padBegin[i]!));
  const x = padWith(graph, node.inputs[0]!, padBegin, end, -Infinity);
  const axes = kernel.map((_, i) => i + 2);
  const won = kernelTaps(kernel).map((tap) => {
    const starts = tap.map((k, i) => k * dilations[i]!);
    const ends = starts.map((start, i) => start + (output[i]! - 1) * strides[i]! + 1);
    return toFloat(graph, apply('Equal', slice(graph, x, axes, starts, ends, strides), node.outputs[0]!));
  });
  const share = apply('Div', gradient, graph.insertOp('Sum', won));
  // A plane for every kernel position; a transposed convolution puts each where its position lies, and adds them up.
  const planes = concat(
    graph,
    won.map((mask) => reshape(graph, apply('Mul', mask, share), [-1, 1, ...output])),
    1,
  );
  const count = won.length;
  const unit = Float32Array.from({ length: count * count }, (_, i) => (Math.floor(i / count) === i % count ? 1 : 0));
  const weight = makeTensor(graph.uniqueName('taps'), DataType.FLOAT, [count, 1, ...kernel], unit);
  const found = graph.insertOp(
    'ConvTranspose',
    [planes, graph.addInitializer(weight)],
    [intsAttribute('strides', strides), intsAttribute('dilations', dilations)],
  );
  const after = input.map((n, i) => n + padBegin[i]! - reached[i]!);
  const cut = padZeros(graph, found, [0, 0, ...padBegin.map((count) => -count)], [0, 0, ...after]);
  return reshape(graph, cut, [-1, channels, ...input]);
};

const MAX_POOL_GRADIENTS: Readonly<Record<MaxPoolForm, MaxPoolGradient>> = {
  blocks: maxByBlocks,
  indices: maxByIndices,
  taps: maxByTaps,
};

/** Values around the spatial axes; negative counts cut off. */
function padWith(graph: Graph, x: Value, begin: readonly number[], end: readonly number[], value: number): Value {
  if ([...begin, ...end].every((count) => count === 0)) return x;
  const counts = constantOf(graph, [0, 0, ...begin, 0, 0, ...end], 'int64');
  return graph.insertOp('Pad', [x, counts, constantOf(graph, [value], 'float32', { scalar: true })]);
}

/** Windows are boxes, so that an average is one per axis; each of them is undone by a product with a constant matrix. */
const averagePool: GradientRule = (context) => {
  const { graph, node, gradients } = context;
  const windows = windowsOf(context);
  const { kernel, output, input, channels, padBegin, padEnd } = windows;
  const exact = output.every((n, i) => n * kernel[i]! === input[i]) && [...padBegin, ...padEnd].every((p) => p === 0);
  if (exact && areBlocks(windows)) {
    const share = formula(graph)('Mul', gradients[0]!, 1 / product(kernel));
    return [repeat(graph, share, kernel)];
  }
  const withPadding = node.int('count_include_pad', 0) === 1;
  const maps = kernel.map((_, i): AxisMap => ({ axis: i + 2, matrix: averagedAxis(windows, i, withPadding) }));
  return [mapAxes(graph, gradients[0]!, [channels, ...output], maps)];
};

/** By input element and window, the part of the window's gradient that the element gets, along one axis. */
function averagedAxis(windows: Windows, i: number, withPadding: boolean): number[][] {
  const [size, count, begin] = [windows.input[i]!, windows.output[i]!, windows.padBegin[i]!];
  const matrix = Array.from({ length: size }, () => Array.from({ length: count }, () => 0));
  for (let o = 0; o < count; o++) {
    const positions = Array.from(
      { length: windows.kernel[i]! },
      (_, k) => o * windows.strides[i]! + k * windows.dilations[i]! - begin,
    );
    const inside = positions.filter((p) => p >= 0 && p < size);
    const counted = withPadding ? positions.filter((p) => p < size + windows.padEnd[i]!).length : inside.length;
    for (const p of inside) matrix[p]![o]! += 1 / counted;
  }
  return matrix;
}

const globalAveragePool: GradientRule = (context) => {
  const { graph, node, gradients } = context;
  const [, ...spatial] = knownSizes(context, node.inputs[0]!);
  const share = formula(graph)('Mul', gradients[0]!, 1 / product(spatial));
  return [graph.insertOp('Expand', [share, graph.insertOp('Shape', [node.inputs[0]])])];
};

/** A tie is shared evenly. */
const globalMaxPool: GradientRule = ({ graph, node, gradients, shapeOf }) => {
  const apply = formula(graph);
  const x = node.inputs[0]!;
  const won = toFloat(graph, apply('Equal', x, node.outputs[0]!));
  const positions = shapeOf(x)
    .slice(2)
    .map((_, i) => i + 2);
  const share = apply('Div', gradients[0]!, reduceKeeping(graph, 'ReduceSum', won, positions));
  return [apply('Mul', won, share)];
};

export const pooling: GradientRules = {
  MaxPool: maxPool,
  AveragePool: averagePool,
  GlobalAveragePool: globalAveragePool,
  GlobalMaxPool: globalMaxPool,
};
