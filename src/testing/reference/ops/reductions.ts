/** Reductions over axes. */
import { axisOf, forEachIndex, sizeOf, stridesOf, type NdArray } from '../array.js';
import type { ReferenceOperator } from '../operator.js';

/** Axes are an attribute or the second input; none at all stands for every axis, unless told to reduce none. */
const reduction =
  (f: (values: readonly number[]) => number): ReferenceOperator =>
  ([x, given], node) => {
    const rank = x!.dims.length;
    const listed = node.ints('axes') ?? (given ? [...given.data] : []);
    const none = listed.length === 0 && node.int('noop_with_empty_axes', 0) !== 0;
    const axes = new Set(listed.length > 0 || none ? listed.map((a) => axisOf(a, rank)) : x!.dims.keys());
    return [reduced(x!, axes, node.int('keepdims', 1) === 1, f)];
  };

/** What `f` makes of all elements that differ only along `axes`. */
export function reduced(
  x: NdArray,
  axes: ReadonlySet<number>,
  keep: boolean,
  f: (values: readonly number[]) => number,
): NdArray {
  const kept = x.dims.map((size, axis) => (axes.has(axis) ? 1 : size));
  const strides = stridesOf(kept);
  const groups = Array.from({ length: sizeOf(kept) }, (): number[] => []);
  forEachIndex(x.dims, (index, flat) => {
    const to = index.reduce((sum, i, axis) => sum + (axes.has(axis) ? 0 : i * strides[axis]!), 0);
    groups[to]!.push(x.data[flat]!);
  });
  const dims = keep ? kept : x.dims.filter((_, axis) => !axes.has(axis));
  return { dims, data: Float64Array.from(groups, f) };
}

const sum = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0);
export const mean = (values: readonly number[]): number => sum(values) / values.length;
const sumSquare = (values: readonly number[]): number => sum(values.map((v) => v * v));

export const reductions: Readonly<Record<string, ReferenceOperator>> = {
  ReduceSum: reduction(sum),
  ReduceMean: reduction(mean),
  ReduceMax: reduction((values) => Math.max(...values)),
  ReduceMin: reduction((values) => Math.min(...values)),
  ReduceProd: reduction((values) => values.reduce((a, b) => a * b, 1)),
  ReduceL1: reduction((values) => sum(values.map(Math.abs))),
  ReduceL2: reduction((values) => Math.sqrt(sumSquare(values))),
  ReduceSumSquare: reduction(sumSquare),
  ReduceLogSum: reduction((values) => Math.log(sum(values))),
  ReduceLogSumExp: reduction((values) => {
    const most = Math.max(...values);
    return most + Math.log(sum(values.map((v) => Math.exp(v - most))));
  }),
};
