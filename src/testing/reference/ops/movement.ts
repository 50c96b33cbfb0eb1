/** Operators that only move or make elements. */
import { FlowCompressError } from '../../../errors.js';
import { readTensor } from '../../../onnx/tensor.js';
import { array, at, axisOf, build, sizeOf, zip, type NdArray } from '../array.js';
import type { ReferenceOperator } from '../operator.js';

/** A size 0 copies that of the operand, one of -1 is what remains. */
const reshape: ReferenceOperator = ([x, shape], node) => {
  const wanted = [...shape!.data].map((size, i) => (size === 0 && !node.int('allowzero', 0) ? x!.dims[i]! : size));
  const known = wanted.filter((size) => size >= 0).reduce((a, b) => a * b, 1);
  const dims = wanted.map((size) => (size < 0 ? sizeOf(x!.dims) / known : size));
  return [array(dims, x!.data)];
};

const flatten: ReferenceOperator = ([x], node) => {
  const axis = axisOf(node.int('axis', 1), x!.dims.length);
  return [array([sizeOf(x!.dims.slice(0, axis)), sizeOf(x!.dims.slice(axis))], x!.data)];
};

const transpose: ReferenceOperator = ([x], node) => {
  const rank = x!.dims.length;
  const perm = node.ints('perm') ?? Array.from({ length: rank }, (_, i) => rank - 1 - i);
  const dims = perm.map((axis) => x!.dims[axis]!);
  return [
    build(dims, (index) => {
      const from = x!.dims.map(() => 0);
      perm.forEach((axis, i) => (from[axis] = index[i]!));
      return at(x!, from);
    }),
  ];
};

const unsqueeze: ReferenceOperator = ([x, axes]) => {
  const rank = x!.dims.length + axes!.data.length;
  const added = new Set([...axes!.data].map((axis) => axisOf(axis, rank)));
  const dims = [...x!.dims];
  return [
    array(
      Array.from({ length: rank }, (_, axis) => (added.has(axis) ? 1 : dims.shift()!)),
      x!.data,
    ),
  ];
};

const squeeze: ReferenceOperator = ([x, axes]) => {
  const rank = x!.dims.length;
  const gone = axes && new Set([...axes.data].map((axis) => axisOf(axis, rank)));
  return [
    array(
      x!.dims.filter((size, axis) => (gone ? !gone.has(axis) : size !== 1)),
      x!.data,
    ),
  ];
};

/** Elements from, from + 1, ... below `to` along one axis. */
function between(x: NdArray, axis: number, from: number, to: number): NdArray {
  return build(x.dims.with(axis, to - from), (index) => at(x, index.with(axis, index[axis]! + from)));
}

const concat: ReferenceOperator = (inputs, node) => {
  const parts = inputs.map((x) => x!);
  const axis = axisOf(node.int('axis', 0), parts[0]!.dims.length);
  const total = parts.reduce((sum, x) => sum + x.dims[axis]!, 0);
  return [
    build(parts[0]!.dims.with(axis, total), (index) => {
      let position = index[axis]!;
      let k = 0;
      while (position >= parts[k]!.dims[axis]!) position -= parts[k++]!.dims[axis]!;
      return at(parts[k]!, index.with(axis, position));
    }),
  ];
};

/** Sizes are given, or equal; with `num_outputs` the last part may be smaller. */
const split: ReferenceOperator = ([x, sizes], node) => {
  const axis = axisOf(node.int('axis', 0), x!.dims.length);
  const length = x!.dims[axis]!;
  const count = node.int('num_outputs', node.outputs.length);
  const chunk = Math.ceil(length / count);
  const parts = sizes ? [...sizes.data] : Array.from({ length: count }, (_, i) => Math.min(chunk, length - i * chunk));
  let from = 0;
  return parts.map((size) => between(x!, axis, from, (from += size)));
};

/** Positions start, start + step, ... of an axis of `size` elements, bounds clamped as the operator says. */
function slicePositions(size: number, start: number, end: number, step: number): number[] {
  const clamp = (value: number, low: number, high: number): number => Math.min(Math.max(value, low), high);
  const wrap = (value: number): number => (value < 0 ? value + size : value);
  const positions: number[] = [];
  if (step > 0) for (let i = clamp(wrap(start), 0, size); i < clamp(wrap(end), 0, size); i += step) positions.push(i);
  else for (let i = clamp(wrap(start), 0, size - 1); i > clamp(wrap(end), -1, size - 1); i += step) positions.push(i);
  return positions;
}

const slice: ReferenceOperator = ([x, starts, ends, axes, steps]) => {
  const kept = x!.dims.map((size) => Array.from({ length: size }, (_, i) => i));
  starts!.data.forEach((start, i) => {
    const axis = axisOf(axes?.data[i] ?? i, x!.dims.length);
    kept[axis] = slicePositions(x!.dims[axis]!, start, ends!.data[i]!, steps?.data[i] ?? 1);
  });
  return [
    build(
      kept.map((positions) => positions.length),
      (index) =>
        at(
          x!,
          index.map((i, axis) => kept[axis]![i]!),
        ),
    ),
  ];
};

/** Where an element of the padded axis comes from; undefined for the constant. `position` counts from the unpadded start. */
function padSource(position: number, size: number, mode: string): number | undefined {
  if (position >= 0 && position < size) return position;
  if (mode === 'edge') return position < 0 ? 0 : size - 1;
  if (mode === 'wrap') return ((position % size) + size) % size;
  if (mode !== 'reflect') return undefined;
  // Back and forth between the first and the last element, neither of them repeated.
  const period = Math.max(1, 2 * (size - 1));
  const at = ((position % period) + period) % period;
  return at < size ? at : period - at;
}

const pad: ReferenceOperator = ([x, pads, value, axes], node) => {
  const mode = node.string('mode', 'constant');
  const rank = x!.dims.length;
  const [begins, ends] = [x!.dims.map(() => 0), x!.dims.map(() => 0)];
  const count = pads!.data.length / 2;
  for (let i = 0; i < count; i++) {
    const axis = axisOf(axes?.data[i] ?? i, rank);
    begins[axis] = pads!.data[i]!;
    ends[axis] = pads!.data[i + count]!;
  }
  const dims = x!.dims.map((size, axis) => begins[axis]! + size + ends[axis]!);
  return [
    build(dims, (index) => {
      const from = index.map((i, axis) => padSource(i - begins[axis]!, x!.dims[axis]!, mode));
      return from.every((i) => i !== undefined) ? at(x!, from) : (value?.data[0] ?? 0);
    }),
  ];
};

const tile: ReferenceOperator = ([x, repeats]) => [
  build(
    x!.dims.map((size, axis) => size * repeats!.data[axis]!),
    (index) =>
      at(
        x!,
        index.map((i, axis) => i % x!.dims[axis]!),
      ),
  ),
];

const trilu: ReferenceOperator = ([x, k], node) => {
  const upper = node.int('upper', 1) === 1;
  const diagonal = k?.data[0] ?? 0;
  return [
    build(x!.dims, (index) => {
      const offset = index.at(-1)! - index.at(-2)!;
      return (upper ? offset >= diagonal : offset <= diagonal) ? at(x!, index) : 0;
    }),
  ];
};

const shape: ReferenceOperator = ([x], node) => {
  const rank = x!.dims.length;
  const bound = (value: number): number => Math.min(Math.max(axisOf(value, rank), 0), rank);
  const dims = x!.dims.slice(bound(node.int('start', 0)), bound(node.int('end', rank)));
  return [array([dims.length], dims)];
};

const constant: ReferenceOperator = (_, node) => {
  const tensor = node.tensor('value');
  if (tensor) return [array(tensor.dims.map(Number), Array.from<number | bigint, number>(readTensor(tensor), Number))];
  const one = node.attributes.get('value_float')?.f ?? node.int('value_int');
  if (one !== undefined) return [array([], [one])];
  const many = node.attributes.get('value_floats')?.floats ?? [];
  const values = node.ints('value_ints') ?? many;
  if (node.attributes.has('value_ints') || node.attributes.has('value_floats')) return [array([values.length], values)];
  throw new FlowCompressError('internal', 'The reference knows no such constant.', { node: node.label });
};

const constantOfShape: ReferenceOperator = ([dims], node) => {
  const tensor = node.tensor('value');
  const value = tensor ? Number(readTensor(tensor)[0]) : 0;
  return [build([...dims!.data], () => value)];
};

const range: ReferenceOperator = ([start, limit, delta]) => {
  const [from, to, step] = [start!.data[0]!, limit!.data[0]!, delta!.data[0]!];
  const count = Math.max(0, Math.ceil((to - from) / step));
  return [
    array(
      [count],
      Array.from({ length: count }, (_, i) => from + i * step),
    ),
  ];
};

/** Ones on the diagonal `k` of a matrix of the operand's shape. */
const eyeLike: ReferenceOperator = ([x], node) => [
  build(x!.dims, ([row, column]) => (column! - row! === node.int('k', 0) ? 1 : 0)),
];

export const movement: Readonly<Record<string, ReferenceOperator>> = {
  Reshape: reshape,
  Flatten: flatten,
  Transpose: transpose,
  Unsqueeze: unsqueeze,
  Squeeze: squeeze,
  Concat: concat,
  Split: split,
  Slice: slice,
  Pad: pad,
  Expand: ([x, dims]) => [zip((a) => a, x!, array([...dims!.data]))],
  Tile: tile,
  Trilu: trilu,
  Size: ([x]) => [array([], [sizeOf(x!.dims)])],
  Shape: shape,
  Constant: constant,
  ConstantOfShape: constantOfShape,
  Range: range,
  EyeLike: eyeLike,
};
