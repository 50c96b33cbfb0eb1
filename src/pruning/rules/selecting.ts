/** Operators that put axes together, take them apart or pick indices: Concat, Split, Slice, Gather, Pad, Resize. */
import { axisFromStart } from '../../onnx/axis.js';
import type { Node } from '../../onnx/graph.js';
import type { Mender } from '../mender.js';
import type { PruningRule, PruningRules } from '../rule.js';
import type { Axis, Ties } from '../ties.js';

const concat: PruningRule = {
  follow: (node, ties) => {
    const y = ties.mustHave(node.outputs[0]);
    const along = axisFromStart(node.int('axis', 0), y.length);
    const operands = node.inputs.map((input) => ties.mustHave(input));
    for (const [at, axis] of y.entries()) {
      if (at === along) continue;
      for (const own of operands) ties.tieAll(own[at], axis);
      for (let i = 0; i < axis.size; i++)
        ties.setZero(
          axis,
          i,
          operands.every((own) => ties.isZero(own[at], i)),
        );
    }
    let offset = 0;
    for (const own of operands) {
      ties.free(own[along]);
      followPart(ties, own[along], y[along], offset);
      offset += own[along].size;
    }
  },
};

/** The whole of `part` is the piece of `whole` from `offset` on. */
function followPart(ties: Ties, part: Axis, whole: Axis, offset: number): void {
  for (let i = 0; i < part.size; i++) {
    ties.tie(part, i, whole, offset + i);
    ties.setZero(whole, offset + i, ties.isZero(part, i));
  }
}

const split: PruningRule = {
  follow: (node, ties) => {
    const x = ties.mustHave(node.inputs[0]);
    const along = axisFromStart(node.int('axis', 0), x.length);
    let offset = 0;
    if (node.inputs[1] && !ties.ints(node.inputs[1])) return ties.fixAll([...node.inputs, ...node.outputs], COMPUTED);
    for (const output of node.outputs) {
      if (!output) return ties.fixAll([node.inputs[0], ...node.outputs], 'one of its results has no name');
      for (const [at, axis] of ties.mustHave(output).entries()) {
        if (at !== along) ties.pass(x[at], axis);
        else offset += followPiece(ties, x[along], axis, offset);
      }
    }
  },
  mend: (node, mender) => {
    const along = axisFromStart(node.int('axis', 0), mender.before(node.inputs[0]).length);
    if (!mender.kept(node.inputs[0], along)) return;
    mender.removeAttribute(node, 'num_outputs');
    mender.give(
      node,
      1,
      'split',
      node.outputs.map((output) => mender.after(output)[along]),
    );
  },
};

const COMPUTED = 'its bounds are computed';

function followPiece(ties: Ties, whole: Axis, piece: Axis, offset: number): number {
  ties.free(whole);
  ties.free(piece);
  for (let i = 0; i < piece.size; i++) {
    ties.tie(whole, offset + i, piece, i);
    ties.setZero(piece, i, ties.isZero(whole, offset + i));
  }
  return piece.size;
}

interface Bounds {
  readonly axis: number;
  readonly start: number;
  readonly step: number;
}

/** Bounds of a Slice by its sorted axes; undefined where they are computed. */
function boundsOf(
  node: Node,
  ints: (index: number) => number[] | undefined,
  dims: readonly number[],
): Bounds[] | undefined {
  const [starts, ends] = [ints(1), ints(2)];
  const axes = node.inputs[3] ? ints(3) : starts?.map((_, at) => at);
  const steps = node.inputs[4] ? ints(4) : starts?.map(() => 1);
  if (!starts || !ends || !axes || !steps) return undefined;
  return axes.map((given, at) => {
    const axis = axisFromStart(given, dims.length);
    const size = dims[axis];
    const start = axisFromStart(starts[at], size);
    return { axis, start: Math.min(Math.max(start, 0), steps[at] < 0 ? size - 1 : size), step: steps[at] };
  });
}

const slice: PruningRule = {
  follow: (node, ties) => {
    const [x, y] = [ties.mustHave(node.inputs[0]), ties.mustHave(node.outputs[0])];
    const dims = ties.dims(node.inputs[0]) ?? [];
    const bounds = node.inputs[1] ? boundsOf(node, (index) => ties.ints(node.inputs[index]), dims) : undefined;
    if (!bounds) return ties.fixAll([node.inputs[0], node.outputs[0]], COMPUTED);
    for (const [at, axis] of x.entries()) {
      const own = bounds.find((each) => each.axis === at);
      if (!own) ties.pass(axis, y[at]);
      else if (own.step !== 1) ties.fixBoth(axis, y[at], 'slices it with steps');
      else followPiece(ties, axis, y[at], own.start);
    }
  },
  mend: (node, mender) => {
    const dims = mender.before(node.inputs[0]);
    const ints = (index: number): number[] | undefined => mender.ints(node.inputs[index]);
    const [starts, ends] = [ints(1) ?? [], ints(2) ?? []];
    for (const [at, { axis, start }] of (boundsOf(node, ints, dims) ?? []).entries()) {
      if (!mender.kept(node.inputs[0], axis)) continue;
      starts[at] = mender.keptBelow(node.inputs[0], axis, start);
      // An end behind the last index is behind it still.
      if (ends[at] < dims[axis]) ends[at] = starts[at] + mender.after(node.outputs[0])[axis];
    }
    if (starts.some((start, at) => start !== ints(1)?.[at])) mender.give(node, 1, 'starts', starts);
    if (ends.some((end, at) => end !== ints(2)?.[at])) mender.give(node, 2, 'ends', ends);
  },
};

const gather: PruningRule = {
  follow: (node, ties) => {
    const [x, index] = [ties.mustHave(node.inputs[0]), node.inputs[1]];
    const y = ties.mustHave(node.outputs[0]);
    const along = axisFromStart(node.int('axis', 0), x.length);
    const constant = ties.ints(index);
    const rank = ties.dims(index)?.length ?? 0;
    const picked = y.slice(along, along + rank);
    for (const [at, axis] of x.entries()) {
      if (at !== along) ties.pass(axis, y[at < along ? at : at + rank - 1]);
    }
    const source = x[along];
    ties.free(source);
    if (!constant) {
      ties.fix(source, 'picks from it by numbers that are computed');
      for (const [at, axis] of ties.mustHave(index).entries()) ties.tieAll(axis, picked[at]);
    } else if (rank === 1) {
      constant.forEach((number, j) => {
        const i = axisFromStart(number, source.size);
        ties.tie(source, i, picked[0], j);
        ties.setZero(picked[0], j, ties.isZero(source, i));
      });
    } else {
      for (const number of constant) ties.fixIndex(source, axisFromStart(number, source.size), 'picks it by itself');
      for (const axis of picked) ties.fix(axis, 'is an axis of constant numbers');
    }
  },
  mend: (node, mender) => {
    const [data, index] = node.inputs;
    const dims = mender.before(data);
    const along = axisFromStart(node.int('axis', 0), dims.length);
    const numbers = mender.ints(index);
    const kept = mender.kept(data, along);
    if (!numbers || !kept) return;
    const fresh = new Map([...kept].map((old, now) => [old, now]));
    const left = numbers.map((number) => fresh.get(axisFromStart(number, dims[along])));
    mender.giveIndices(
      node,
      left.filter((number) => number !== undefined),
    );
  },
  layer: { weight: 0, made: -1, axes: () => ({ producer: -1 }) },
};

/** Constant borders. Where border indices go, the padding shrinks. */
const pad: PruningRule = {
  follow: (node, ties) => {
    const [x, y] = [ties.mustHave(node.inputs[0]), ties.mustHave(node.outputs[0])];
    const begins = padsOf(node, (index) => ties.ints(node.inputs[index]), x.length)?.begins;
    if (!begins) return ties.fixAll([node.inputs[0], node.outputs[0]], COMPUTED);
    const plain = node.string('mode', 'constant') === 'constant';
    const zero = plain && isZeroBorder(node, ties);
    for (const [at, axis] of x.entries()) {
      if (axis.size === y[at].size && begins[at] === 0) ties.pass(axis, y[at]);
      else if (!plain || begins[at] < 0 || y[at].size < begins[at] + axis.size) {
        ties.fixBoth(axis, y[at], 'pads it with more than a constant');
      } else {
        for (let j = 0; j < y[at].size; j++) ties.setZero(y[at], j, zero);
        ties.free(axis);
        ties.free(y[at]);
        followPart(ties, axis, y[at], begins[at]);
      }
    }
    // What is 0 along one axis is not where another one has a border of something else.
    if (!zero && x.some((axis, at) => axis.size !== y[at].size)) {
      for (const axis of y) for (let j = 0; j < axis.size; j++) ties.setZero(axis, j, false);
    }
  },
  mend: (node, mender) => {
    const rank = mender.before(node.inputs[0]).length;
    const pads = padsOf(node, (index) => mender.ints(node.inputs[index]), rank);
    if (!pads) return;
    const { begins, ends, axes } = pads;
    for (let axis = 0; axis < rank; axis++) {
      if (!mender.kept(node.outputs[0], axis)) continue;
      const begin = mender.keptBelow(node.outputs[0], axis, begins[axis]);
      ends[axis] = mender.after(node.outputs[0])[axis] - mender.after(node.inputs[0])[axis] - begin;
      begins[axis] = begin;
    }
    mender.give(node, 1, 'pads', [...axes.map((axis) => begins[axis]), ...axes.map((axis) => ends[axis])]);
  },
};

interface Pads {
  /** By axis of the operand. */
  readonly begins: number[];
  readonly ends: number[];
  /** Axes in the order in which the node states them. */
  readonly axes: readonly number[];
}

function padsOf(node: Node, ints: (index: number) => number[] | undefined, rank: number): Pads | undefined {
  const given = node.inputs[1] ? ints(1) : node.ints('pads');
  const all = Array.from({ length: rank }, (_, axis) => axis);
  const axes = node.inputs[3] ? ints(3)?.map((axis) => axisFromStart(axis, rank)) : all;
  if (!given || !axes) return undefined;
  const [begins, ends] = [0, axes.length].map((from) => {
    const side = all.map(() => 0);
    axes.forEach((axis, at) => (side[axis] = given[from + at]));
    return side;
  });
  return { begins, ends, axes };
}

function isZeroBorder(node: Node, ties: Ties): boolean {
  if (!node.inputs[2]) return node.float('value', 0) === 0;
  const tensor = ties.graph.constant(node.inputs[2]);
  return tensor !== undefined && tensor.rawData.every((byte) => byte === 0) && tensor.rawData.length > 0;
}

/** Samples and channels of one size pass; everything else is positions. */
const resize: PruningRule = {
  follow: (node, ties) => {
    const [x, y] = [ties.mustHave(node.inputs[0]), ties.mustHave(node.outputs[0])];
    const sizes = node.inputs[3];
    const computed = sizes !== undefined && !ties.ints(sizes);
    const crops = node.string('coordinate_transformation_mode', '') === 'tf_crop_and_resize';
    for (const [at, axis] of x.entries()) {
      if (at > 1 || computed || crops || axis.size !== y[at].size) ties.fixBoth(axis, y[at], 'resizes it');
      else ties.pass(axis, y[at]);
    }
  },
  mend: (node, mender) => {
    mendSizes(node, mender);
  },
};

function mendSizes(node: Node, mender: Mender): void {
  const sizes = mender.ints(node.inputs[3]);
  const after = mender.after(node.outputs[0]);
  const axes = node.ints('axes')?.map((axis) => axisFromStart(axis, after.length)) ?? after.map((_, axis) => axis);
  const changed = sizes?.map((_, at) => after[axes[at]]);
  if (changed?.some((size, at) => size !== sizes?.[at])) mender.give(node, 3, 'sizes', changed);
}

export const selecting: PruningRules = {
  ...{ Concat: concat, Split: split, Slice: slice, Gather: gather, Pad: pad, Resize: resize, Upsample: resize },
};
