/** Arrays of the reference evaluator: every number is a float64, whatever type the model declares. */
import { FlowCompressError } from '../../errors.js';

export interface NdArray {
  readonly dims: readonly number[];
  /** Row-major. Integers and booleans (0, 1) are held as the same numbers. */
  readonly data: Float64Array;
}

export function sizeOf(dims: readonly number[]): number {
  return dims.reduce((a, b) => a * b, 1);
}

export function array(dims: readonly number[], data: ArrayLike<number> = new Float64Array(sizeOf(dims))): NdArray {
  if (data.length !== sizeOf(dims))
    throw new FlowCompressError('internal', `${String(data.length)} elements for [${dims.join()}]`);
  return { dims: [...dims], data: data instanceof Float64Array ? data : Float64Array.from(data) };
}

/** Elements between neighbours along each axis. */
export function stridesOf(dims: readonly number[]): number[] {
  const strides = dims.map(() => 1);
  for (let i = dims.length - 2; i >= 0; i--) strides[i] = strides[i + 1]! * dims[i + 1]!;
  return strides;
}

/** Calls with every index tuple of `dims` in row-major order, and its flat position. The tuple is reused. */
export function forEachIndex(dims: readonly number[], visit: (index: readonly number[], flat: number) => void): void {
  const index = dims.map(() => 0);
  const total = sizeOf(dims);
  for (let flat = 0; flat < total; flat++) {
    visit(index, flat);
    for (let axis = dims.length - 1; axis >= 0; axis--) {
      if (++index[axis]! < dims[axis]!) break;
      index[axis] = 0;
    }
  }
}

/** An array whose element at an index tuple is `element(tuple)`. */
export function build(dims: readonly number[], element: (index: readonly number[]) => number): NdArray {
  const data = new Float64Array(sizeOf(dims));
  forEachIndex(dims, (index, flat) => (data[flat] = element(index)));
  return { dims: [...dims], data };
}

export function at(a: NdArray, index: readonly number[]): number {
  const strides = stridesOf(a.dims);
  return a.data[index.reduce((sum, i, axis) => sum + i * strides[axis]!, 0)]!;
}

export function map(a: NdArray, f: (x: number) => number): NdArray {
  return { dims: a.dims, data: a.data.map(f) };
}

/** numpy broadcasting. @throws FlowCompressError `internal` where the dims do not fit */
export function broadcastDims(...all: readonly (readonly number[])[]): number[] {
  const rank = Math.max(...all.map((dims) => dims.length));
  return Array.from({ length: rank }, (_, axis) => {
    const sizes = all.map((dims) => dims[axis - (rank - dims.length)] ?? 1);
    const size = sizes.find((s) => s !== 1) ?? 1;
    if (sizes.some((s) => s !== 1 && s !== size))
      throw new FlowCompressError('internal', `Cannot broadcast ${all.map((d) => `[${d.join()}]`).join(' and ')}.`);
    return size;
  });
}

/** Element-wise over broadcast operands. */
export function zip(f: (...values: number[]) => number, ...operands: readonly NdArray[]): NdArray {
  const dims = broadcastDims(...operands.map((a) => a.dims));
  const strides = operands.map((a) => {
    const own = stridesOf(a.dims);
    const lead = dims.length - a.dims.length;
    return dims.map((_, axis) => (axis < lead || a.dims[axis - lead] === 1 ? 0 : own[axis - lead]!));
  });
  return build(dims, (index) =>
    f(...operands.map((a, k) => a.data[index.reduce((sum, i, axis) => sum + i * strides[k]![axis]!, 0)]!)),
  );
}

/** -1 is the last axis. */
export function axisOf(axis: number, rank: number): number {
  return axis < 0 ? axis + rank : axis;
}

/** The arrays of elements that differ only along `axes`, in row-major order of the other axes, changed by `f`. */
export function mapGroups(
  x: NdArray,
  axes: ReadonlySet<number>,
  f: (values: readonly number[]) => readonly number[],
): NdArray {
  const groups = new Map<string, number[]>();
  forEachIndex(x.dims, (index, flat) => {
    const key = index.map((i, axis) => (axes.has(axis) ? '' : i)).join();
    const group = groups.get(key);
    if (group) group.push(flat);
    else groups.set(key, [flat]);
  });
  const data = new Float64Array(x.data.length);
  for (const group of groups.values()) {
    const changed = f(group.map((flat) => x.data[flat]!));
    group.forEach((flat, i) => (data[flat] = changed[i]!));
  }
  return { dims: x.dims, data };
}
