/** Operators that give the same elements another shape, and those that repeat them. */
import type { Node } from '../../onnx/graph.js';
import type { Mender } from '../mender.js';
import type { PruningRule, PruningRules } from '../rule.js';
import type { Axis, Ties } from '../ties.js';
import { followBroadcast } from './broadcasting.js';

/** An axis with the distance of neighbours along it, in elements of its run. */
interface Strided {
  readonly axis: Axis;
  readonly stride: number;
}

/**
 * One way to tie an axis on either side of a reshape: the element at place p of the run is of unit
 * floor(p / low) mod (high / low).
 */
interface Pairing {
  readonly from: Strided;
  readonly to: Strided;
  readonly low: number;
  readonly high: number;
}

/** Runs of axes on both sides that hold the same elements, as short as possible; axes of length 1 are left out. */
function runsOf(from: readonly Axis[], to: readonly Axis[]): { from: Axis[]; to: Axis[] }[] {
  const runs: { from: Axis[]; to: Axis[] }[] = [];
  const [left, right] = [from, to].map((axes) => axes.filter(({ size }) => size !== 1));
  let [i, j] = [0, 0];
  while (i < left.length || j < right.length) {
    const run = { from: [] as Axis[], to: [] as Axis[] };
    let [a, b] = [1, 1];
    do {
      if (a <= b && i < left.length) a *= run.from[run.from.push(left[i++]) - 1].size;
      else if (j < right.length) b *= run.to[run.to.push(right[j++]) - 1].size;
      else a *= run.from[run.from.push(left[i++]) - 1].size;
    } while (a !== b && (i < left.length || j < right.length));
    runs.push(run);
  }
  return runs;
}

function strided(axes: readonly Axis[]): Strided[] {
  let stride = 1;
  return [...axes]
    .reverse()
    .map((axis) => {
      const own = { axis, stride };
      stride *= axis.size;
      return own;
    })
    .reverse();
}

/** All ways that leave more than one unit, those first whose units lie outermost: heads before places in a head. */
function pairings(from: readonly Axis[], to: readonly Axis[]): Pairing[] {
  const found: Pairing[] = [];
  for (const a of strided(from)) {
    for (const b of strided(to)) {
      const low = Math.max(a.stride, b.stride);
      const [endA, endB] = [a, b].map(({ axis, stride }) => axis.size * stride);
      const high = Math.min(endA, endB);
      const nested = [high % low, low % a.stride, low % b.stride, endA % high, endB % high];
      if (high > low && nested.every((rest) => rest === 0)) found.push({ from: a, to: b, low, high });
    }
  }
  return found.sort((a, b) => b.high - a.high || a.low - b.low);
}

const unitOf = ({ low, high }: Pairing, { stride }: Strided, index: number): number =>
  Math.floor((index * stride) / low) % (high / low);

function followPairing(ties: Ties, pairing: Pairing): void {
  const { from, to, low, high } = pairing;
  const count = high / low;
  const firsts = new Int32Array(count).fill(-1);
  const zero = new Uint8Array(count).fill(1);
  for (let i = 0; i < from.axis.size; i++) {
    const unit = unitOf(pairing, from, i);
    if (firsts[unit] < 0) firsts[unit] = i;
    else ties.tie(from.axis, i, from.axis, firsts[unit]);
    if (!ties.isZero(from.axis, i)) zero[unit] = 0;
  }
  for (let j = 0; j < to.axis.size; j++) {
    const unit = unitOf(pairing, to, j);
    ties.tie(from.axis, firsts[unit], to.axis, j);
    ties.setZero(to.axis, j, zero[unit] === 1);
  }
}

/**
 * Ties the axes of two shapes of the same elements in the same order. Where axes are merged or split one of them carries the
 * units, the others must stay whole.
 */
export function followReshape(ties: Ties, from: readonly Axis[], to: readonly Axis[]): void {
  for (const axis of [...from, ...to]) if (axis.size === 1) ties.free(axis);
  for (const [number, run] of runsOf(from, to).entries()) {
    if (run.from.length === 1 && run.to.length === 1) {
      ties.pass(run.from[0], run.to[0]);
      continue;
    }
    const all = run.from.some(({ size }) => size === 0) ? [] : pairings(run.from, run.to);
    const chosen = all[
      ties.choose(
        `run ${String(number)}`,
        all.map((each) => [each.from.axis]),
      )
    ] as Pairing | undefined;
    if (chosen) followPairing(ties, chosen);
    for (const axis of [...run.from, ...run.to]) {
      if (axis !== chosen?.from.axis && axis !== chosen?.to.axis) ties.fix(axis, 'is laid out in one axis with others');
    }
  }
}

function follow(node: Node, ties: Ties): void {
  followReshape(ties, ties.mustHave(node.inputs[0]), ties.mustHave(node.outputs[0]));
}

const COMPUTED = 'its shape is computed';

const reshape: PruningRule = {
  follow: (node, ties) => {
    if (node.inputs[1] && !ties.ints(node.inputs[1])) return ties.fixAll([node.inputs[0], node.outputs[0]], COMPUTED);
    follow(node, ties);
  },
  mend: (node, mender) => {
    giveShape(node, mender, (entry, axis) => {
      if (entry === -1) return -1;
      const copies = entry === 0 && node.int('allowzero', 0) === 0;
      const [from, to] = [node.inputs[0], node.outputs[0]].map((value) => mender.after(value)[axis]);
      return copies && from === to ? 0 : to;
    });
  },
};

/** Writes the shape operand anew where an axis of the result has another length. */
function giveShape(node: Node, mender: Mender, entryOf: (entry: number, axis: number) => number): void {
  const shape = mender.given(node, 1, 'shape');
  const result = node.outputs[0];
  if (!shape) return;
  const changed = shape.map((entry, axis) => (mender.kept(result, axis) || entry === 0 ? entryOf(entry, axis) : entry));
  if (changed.some((entry, axis) => entry !== shape[axis])) mender.give(node, 1, 'shape', changed);
}

const squeeze: PruningRule = {
  follow: (node, ties) => {
    // Without axes everything of length 1 goes, which an axis may become.
    if (!node.inputs[1] && !node.ints('axes')) {
      return ties.fixAll([node.inputs[0], node.outputs[0]], 'drops whatever has length 1');
    }
    follow(node, ties);
  },
};

const transpose: PruningRule = {
  follow: (node, ties) => {
    const x = ties.mustHave(node.inputs[0]);
    const order = node.ints('perm') ?? x.map((_, axis) => x.length - 1 - axis);
    for (const [to, axis] of ties.mustHave(node.outputs[0]).entries()) ties.pass(x[order[to]], axis);
  },
};

const expand: PruningRule = {
  follow: (node, ties) => {
    if (!ties.ints(node.inputs[1])) return ties.fixAll([node.inputs[0], node.outputs[0]], COMPUTED);
    followBroadcast(ties, [ties.mustHave(node.inputs[0])], ties.mustHave(node.outputs[0]), 'all');
  },
  mend: (node, mender) => {
    const shape = mender.ints(node.inputs[1]) ?? [];
    const after = mender.after(node.outputs[0]);
    // Axes in front that only the operand has are not in the shape.
    const lead = after.length - shape.length;
    const changed = shape.map((entry, at) =>
      entry !== 1 && mender.kept(node.outputs[0], lead + at) ? after[lead + at] : entry,
    );
    if (changed.some((entry, at) => entry !== shape[at])) mender.give(node, 1, 'shape', changed);
  },
};

const tile: PruningRule = {
  follow: (node, ties) => {
    if (!ties.ints(node.inputs[1])) return ties.fixAll([node.inputs[0], node.outputs[0]], 'its repeats are computed');
    const y = ties.mustHave(node.outputs[0]);
    for (const [at, axis] of ties.mustHave(node.inputs[0]).entries()) {
      ties.free(axis);
      ties.free(y[at]);
      if (axis.size <= 1) continue;
      for (let j = 0; j < y[at].size; j++) {
        ties.tie(axis, j % axis.size, y[at], j);
        ties.setZero(y[at], j, ties.isZero(axis, j % axis.size));
      }
    }
  },
  mend: (node, mender) => {
    const repeats = mender.ints(node.inputs[1]) ?? [];
    const [before, after] = [mender.before(node.inputs[0]), mender.after(node.outputs[0])];
    // Only what was repeated from a single index has a count of its own.
    const changed = repeats.map((count, axis) => (before[axis] === 1 ? after[axis] : count));
    if (changed.some((count, axis) => count !== repeats[axis])) mender.give(node, 1, 'repeats', changed);
  },
};

/** Blocks of channels that become positions. */
const depthToSpace: PruningRule = {
  follow: (node, ties) => {
    const side = node.int('blocksize', 1);
    const columnFirst = node.string('mode', 'DCR') === 'CRD';
    followBlocks(node, ties, (channel, block, channels) =>
      columnFirst ? channel * side * side + block : block * channels + channel,
    );
  },
};

/** Positions that become blocks of channels. */
const spaceToDepth: PruningRule = {
  follow: (node, ties) => {
    followBlocks(node, ties, (channel, block, channels) => block * channels + channel);
  },
};

/** @param wide index along the axis that holds all blocks */
function followBlocks(
  node: Node,
  ties: Ties,
  wide: (channel: number, block: number, channels: number) => number,
): void {
  const x = ties.mustHave(node.inputs[0]);
  const y = ties.mustHave(node.outputs[0]);
  ties.pass(x[0], y[0]);
  for (const axis of [...x.slice(2), ...y.slice(2)]) ties.fix(axis, 'its positions are not units');
  const blocks = node.int('blocksize', 1) ** 2;
  const spreads = x[1].size > y[1].size;
  const [narrow, all] = spreads ? [y[1], x[1]] : [x[1], y[1]];
  for (let channel = 0; channel < narrow.size; channel++) {
    let zero = true;
    for (let block = 0; block < blocks; block++) {
      const index = wide(channel, block, narrow.size);
      ties.tie(narrow, channel, all, index);
      if (spreads) zero &&= ties.isZero(all, index);
      else ties.setZero(all, index, ties.isZero(narrow, channel));
    }
    if (spreads) ties.setZero(narrow, channel, zero);
  }
}

/** Flatten counts a negative axis from the end, and 1 is its default; the shapes say it all. */
export const reshaping: PruningRules = {
  ...{ Reshape: reshape, Flatten: { follow }, Squeeze: squeeze, Unsqueeze: { follow }, Transpose: transpose },
  ...{ Expand: expand, Tile: tile, DepthToSpace: depthToSpace, SpaceToDepth: spaceToDepth },
};
