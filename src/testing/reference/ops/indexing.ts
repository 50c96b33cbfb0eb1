/** Operators that read or write elements by index, and those that find indices. */
import { FlowCompressError } from '../../../errors.js';
import type { Node } from '../../../onnx/graph.js';
import { array, at, axisOf, build, forEachIndex, stridesOf, zip, type NdArray } from '../array.js';
import type { ReferenceOperator } from '../operator.js';

/** An index below 0 counts from the end. @throws FlowCompressError `internal` where it is out of bounds */
function inBounds(index: number, size: number): number {
  const from = index < 0 ? index + size : index;
  if (from < 0 || from >= size)
    throw new FlowCompressError('internal', `The index ${String(index)} does not fit ${String(size)} elements.`);
  return from;
}

const gather: ReferenceOperator = ([x, indices], node) => {
  const axis = axisOf(node.int('axis', 0), x!.dims.length);
  const rank = indices!.dims.length;
  return [
    build([...x!.dims.slice(0, axis), ...indices!.dims, ...x!.dims.slice(axis + 1)], (index) => {
      const chosen = inBounds(at(indices!, index.slice(axis, axis + rank)), x!.dims[axis]!);
      return at(x!, [...index.slice(0, axis), chosen, ...index.slice(axis + rank)]);
    }),
  ];
};

const gatherElements: ReferenceOperator = ([x, indices], node) => {
  const axis = axisOf(node.int('axis', 0), x!.dims.length);
  return [build(indices!.dims, (index) => at(x!, index.with(axis, inBounds(at(indices!, index), x!.dims[axis]!))))];
};

/** The last axis of the indices addresses the leading axes of the data, behind `batch_dims` common ones. */
const gatherNd: ReferenceOperator = ([x, indices], node) => {
  const batch = node.int('batch_dims', 0);
  const depth = indices!.dims.at(-1)!;
  const lead = indices!.dims.slice(0, -1);
  return [
    build([...lead, ...x!.dims.slice(batch + depth)], (index) => {
      const row = index.slice(0, lead.length);
      const address = Array.from({ length: depth }, (_, k) => inBounds(at(indices!, [...row, k]), x!.dims[batch + k]!));
      return at(x!, [...index.slice(0, batch), ...address, ...index.slice(lead.length)]);
    }),
  ];
};

const REDUCTIONS: Readonly<Record<string, (old: number, update: number) => number>> = {
  none: (_, update) => update,
  add: (old, update) => old + update,
  mul: (old, update) => old * update,
  max: Math.max,
  min: Math.min,
};

function writer(x: NdArray, node: Node): { data: Float64Array; write: (to: readonly number[], value: number) => void } {
  const data = Float64Array.from(x.data);
  const strides = stridesOf(x.dims);
  const combine = REDUCTIONS[node.string('reduction', 'none')]!;
  return {
    data,
    write(to, value) {
      const flat = to.reduce((sum, i, axis) => sum + i * strides[axis]!, 0);
      data[flat] = combine(data[flat]!, value);
    },
  };
}

const scatterElements: ReferenceOperator = ([x, indices, updates], node) => {
  const axis = axisOf(node.int('axis', 0), x!.dims.length);
  const { data, write } = writer(x!, node);
  forEachIndex(indices!.dims, (index, flat) => {
    write(index.with(axis, inBounds(indices!.data[flat]!, x!.dims[axis]!)), updates!.data[flat]!);
  });
  return [array(x!.dims, data)];
};

const scatterNd: ReferenceOperator = ([x, indices, updates], node) => {
  const lead = indices!.dims.slice(0, -1);
  const depth = indices!.dims.at(-1)!;
  const { data, write } = writer(x!, node);
  forEachIndex(updates!.dims, (index, flat) => {
    const row = index.slice(0, lead.length);
    const address = Array.from({ length: depth }, (_, k) => inBounds(at(indices!, [...row, k]), x!.dims[k]!));
    write([...address, ...index.slice(lead.length)], updates!.data[flat]!);
  });
  return [array(x!.dims, data)];
};

/** Indices out of range give rows without an "on" value. */
const oneHot: ReferenceOperator = ([indices, depth, values], node) => {
  const size = depth!.data[0]!;
  const axis = axisOf(node.int('axis', -1), indices!.dims.length + 1);
  const [off, on] = values!.data;
  return [
    build(indices!.dims.toSpliced(axis, 0, size), (index) => {
      const chosen = at(indices!, index.toSpliced(axis, 1));
      return (chosen < 0 ? chosen + size : chosen) === index[axis] ? on! : off!;
    }),
  ];
};

/** Every line of elements along an axis: its position elsewhere, and the elements. */
function forEachLine(x: NdArray, axis: number, visit: (at: readonly number[], line: readonly number[]) => void): void {
  forEachIndex(x.dims.with(axis, 1), (index) => {
    visit(
      index,
      Array.from({ length: x.dims[axis]! }, (_, i) => at(x, index.with(axis, i))),
    );
  });
}

/** Values in order with their indices; of equal values the one of lower index comes first. */
const topK: ReferenceOperator = ([x, k], node) => {
  const axis = axisOf(node.int('axis', -1), x!.dims.length);
  const sign = node.int('largest', 1) ? -1 : 1;
  const dims = x!.dims.with(axis, k!.data[0]!);
  const strides = stridesOf(dims);
  const [values, indices] = [array(dims), array(dims)];
  forEachLine(x!, axis, (index, line) => {
    const order = [...line.keys()].sort((a, b) => sign * (line[a]! - line[b]!) || a - b);
    const base = index.reduce((sum, i, dim) => sum + i * strides[dim]!, 0);
    for (let i = 0; i < dims[axis]!; i++) {
      values.data[base + i * strides[axis]!] = line[order[i]!]!;
      indices.data[base + i * strides[axis]!] = order[i]!;
    }
  });
  return [values, indices];
};

const cumSum: ReferenceOperator = ([x, axisInput], node) => {
  const axis = axisOf(axisInput!.data[0]!, x!.dims.length);
  const [exclusive, reverse] = [node.int('exclusive', 0), node.int('reverse', 0)];
  return [
    build(x!.dims, (index) => {
      const own = index[axis]!;
      let sum = 0;
      for (let i = 0; i < x!.dims[axis]!; i++) {
        const before = reverse ? i > own : i < own;
        if (before || (i === own && !exclusive)) sum += at(x!, index.with(axis, i));
      }
      return sum;
    }),
  ];
};

const argBest =
  (better: (candidate: number, best: number) => boolean): ReferenceOperator =>
  ([x], node) => {
    const axis = axisOf(node.int('axis', 0), x!.dims.length);
    const last = node.int('select_last_index', 0) === 1;
    const found: number[] = [];
    forEachLine(x!, axis, (_, line) => {
      let best = 0;
      line.forEach((value, i) => {
        if (better(value, line[best]!) || (last && value === line[best])) best = i;
      });
      found.push(best);
    });
    const kept = x!.dims.with(axis, 1);
    return [array(node.int('keepdims', 1) ? kept : kept.toSpliced(axis, 1), found)];
  };

/** The remainder has the sign of the divisor, with `fmod` that of the dividend. */
const mod: ReferenceOperator = ([a, b], node) => [
  zip((x, y) => (node.int('fmod', 0) ? x % y : x - y * Math.floor(x / y)), a!, b!),
];

export const indexing: Readonly<Record<string, ReferenceOperator>> = {
  Gather: gather,
  GatherElements: gatherElements,
  GatherND: gatherNd,
  ScatterElements: scatterElements,
  ScatterND: scatterNd,
  OneHot: oneHot,
  TopK: topK,
  CumSum: cumSum,
  Mod: mod,
  ArgMax: argBest((a, b) => a > b),
  ArgMin: argBest((a, b) => a < b),
};
