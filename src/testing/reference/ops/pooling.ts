/** Pooling over windows, and over all positions. */
import type { Node } from '../../../onnx/graph.js';
import { array, at, build, forEachIndex, sizeOf, stridesOf, type NdArray } from '../array.js';
import type { ReferenceOperator } from '../operator.js';

interface Windows {
  readonly kernel: readonly number[];
  /** Spatial dims of the output. */
  readonly output: readonly number[];
  /** Position of a kernel element in the input, possibly in the padding; undefined beyond the padding. */
  readonly locate: (position: readonly number[], tap: readonly number[]) => number[] | undefined;
}

function windowsOf(node: Node, dims: readonly number[]): Windows {
  const input = dims.slice(2);
  const kernel = node.ints('kernel_shape')!;
  const strides = node.ints('strides') ?? kernel.map(() => 1);
  const dilations = node.ints('dilations') ?? kernel.map(() => 1);
  const extent = kernel.map((k, i) => (k - 1) * dilations[i]! + 1);
  const autoPad = node.string('auto_pad', 'NOTSET');
  const declared = (autoPad === 'NOTSET' ? node.ints('pads') : undefined) ?? kernel.flatMap(() => [0, 0]);
  let begin = declared.slice(0, kernel.length);
  let end = declared.slice(kernel.length);
  if (autoPad.startsWith('SAME')) {
    const total = input.map((n, i) => Math.max(0, (Math.ceil(n / strides[i]!) - 1) * strides[i]! + extent[i]! - n));
    begin = total.map((t) => (autoPad === 'SAME_UPPER' ? Math.floor(t / 2) : Math.ceil(t / 2)));
    end = total.map((t, i) => t - begin[i]!);
  }
  const output = input.map((n, i) => {
    const steps = (n + begin[i]! + end[i]! - extent[i]!) / strides[i]!;
    if (node.int('ceil_mode', 0) === 0) return Math.floor(steps) + 1;
    const count = Math.ceil(steps) + 1;
    // A window that would begin behind the input and its first padding is left out.
    return (count - 1) * strides[i]! >= n + begin[i]! ? count - 1 : count;
  });
  const locate: Windows['locate'] = (position, tap) => {
    const found = position.map((p, i) => p * strides[i]! + tap[i]! * dilations[i]! - begin[i]!);
    return found.every((p, i) => p < input[i]! + end[i]!) ? found : undefined;
  };
  return { kernel, output, locate };
}

/** Calls with every input element of a window, the padding left out. */
function inWindow(
  x: NdArray,
  { kernel, locate }: Windows,
  [n, c, ...position]: readonly number[],
  visit: (value: number, index: readonly number[]) => void,
): void {
  forEachIndex(kernel, (tap) => {
    const found = locate(position, tap);
    if (!found?.every((p, i) => p >= 0 && p < x.dims[i + 2]!)) return;
    const index = [n!, c!, ...found];
    visit(at(x, index), index);
  });
}

/** Ties go to the first element in row-major order. Indices count through the whole tensor. */
const maxPool: ReferenceOperator = ([x], node) => {
  const windows = windowsOf(node, x!.dims);
  const dims = [...x!.dims.slice(0, 2), ...windows.output];
  const [values, indices] = [array(dims), array(dims)];
  const steps = stridesOf(x!.dims);
  // Storage order 1 counts down the columns: the last two axes exchanged, as the first axis moves fastest.
  if (node.int('storage_order', 0) !== 0) {
    const spatial = x!.dims.slice(2);
    spatial.forEach((_, i) => (steps[i + 2] = sizeOf(spatial.slice(0, i))));
  }
  forEachIndex(dims, (index, flat) => {
    let best = -Infinity;
    inWindow(x!, windows, index, (value, from) => {
      if (value <= best) return;
      best = value;
      indices.data[flat] = from.reduce((sum, i, axis) => sum + i * steps[axis]!, 0);
    });
    values.data[flat] = best;
  });
  return [values, indices];
};

const averagePool: ReferenceOperator = ([x], node) => {
  const windows = windowsOf(node, x!.dims);
  const withPadding = node.int('count_include_pad', 0) === 1;
  const y = build([...x!.dims.slice(0, 2), ...windows.output], (index) => {
    let [sum, inside, padded] = [0, 0, 0];
    inWindow(x!, windows, index, (value) => {
      sum += value;
      inside++;
    });
    forEachIndex(windows.kernel, (tap) => {
      if (windows.locate(index.slice(2), tap)) padded++;
    });
    return sum / (withPadding ? padded : inside);
  });
  return [y];
};

const global =
  (f: (values: Float64Array) => number): ReferenceOperator =>
  ([x]) => {
    const [n, c, ...spatial] = x!.dims;
    const size = sizeOf(spatial);
    return [
      build([n!, c!, ...spatial.map(() => 1)], ([i, j]) => {
        const from = (i! * c! + j!) * size;
        return f(x!.data.subarray(from, from + size));
      }),
    ];
  };

export const pooling: Readonly<Record<string, ReferenceOperator>> = {
  MaxPool: maxPool,
  AveragePool: averagePool,
  GlobalAveragePool: global((values) => values.reduce((a, b) => a + b, 0) / values.length),
  GlobalMaxPool: global((values) => Math.max(...values)),
};
