/** Operators that only move elements. */
import { array, at, axisOf, build, sizeOf, zip } from '../array.js';
import type { ReferenceOperator } from '../evaluate.js';

export const movement: Readonly<Record<string, ReferenceOperator>> = {
  Reshape: ([x, shape], node) => {
    const wanted = [...shape!.data].map((size, i) => (size === 0 && !node.int('allowzero', 0) ? x!.dims[i]! : size));
    const known = wanted.filter((size) => size >= 0).reduce((a, b) => a * b, 1);
    const dims = wanted.map((size) => (size < 0 ? sizeOf(x!.dims) / known : size));
    return [array(dims, x!.data)];
  },
  Transpose: ([x], node) => {
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
  },
  Unsqueeze: ([x, axes]) => {
    const rank = x!.dims.length + axes!.data.length;
    const added = new Set([...axes!.data].map((axis) => axisOf(axis, rank)));
    const dims = [...x!.dims];
    return [
      array(
        Array.from({ length: rank }, (_, axis) => (added.has(axis) ? 1 : dims.shift()!)),
        x!.data,
      ),
    ];
  },
  Squeeze: ([x, axes]) => {
    const rank = x!.dims.length;
    const gone = axes && new Set([...axes.data].map((axis) => axisOf(axis, rank)));
    return [
      array(
        x!.dims.filter((size, axis) => (gone ? !gone.has(axis) : size !== 1)),
        x!.data,
      ),
    ];
  },
  Expand: ([x, shape]) => [zip((a) => a, x!, array([...shape!.data]))],
  Size: ([x]) => [array([], [sizeOf(x!.dims)])],
  Shape: ([x], node) => {
    const rank = x!.dims.length;
    const dims = x!.dims.slice(axisOf(node.int('start', 0), rank), axisOf(node.int('end', rank), rank));
    return [array([dims.length], dims)];
  },
};
