/** Convolutions: plain ones sum over their input channels, those of several groups keep channels with their group. */
import type { Node } from '../../onnx/graph.js';
import type { PruningRule, PruningRules } from '../rule.js';
import type { Axis, Ties } from '../ties.js';

const POSITIONS = 'its positions are not units';

/** Operands and results of a convolution by channels: `inner` belongs to one group, on either side of the weight. */
interface Channels {
  readonly input: Axis;
  readonly output: Axis;
  /** Axis of the weight with all channels of that side. */
  readonly whole: Axis;
  /** Axis of the weight with the channels of one group of the other side. */
  readonly inner: Axis;
  readonly bias: Axis | undefined;
  readonly transposed: boolean;
}

function follow(node: Node, ties: Ties, transposed: boolean): void {
  const [input, weight, bias] = node.inputs;
  const x = ties.mustHave(input);
  const w = ties.mustHave(weight);
  const y = ties.mustHave(node.outputs[0]);
  ties.pass(x[0], y[0]);
  for (const axis of [...x.slice(2), ...w.slice(2), ...y.slice(2)]) ties.fix(axis, POSITIONS);
  const channels: Channels = {
    ...{ input: x[1], output: y[1], whole: w[0], inner: w[1], transposed },
    bias: bias && ties.mustHave(bias)[0],
  };
  const groups = node.int('group', 1);
  if (groups === 1) followPlain(ties, channels);
  else followGroups(ties, channels, groups);
}

function followPlain(ties: Ties, { input, output, whole, inner, bias, transposed }: Channels): void {
  const [made, summed] = transposed ? [inner, whole] : [whole, inner];
  ties.sumOver(input, summed);
  ties.pass(made, output);
  followBias(ties, bias, output);
}

/**
 * Either a group goes with all its channels on both sides, or the channels of one number go in every group. The first leaves
 * more to choose from; the second is right where one side must stay.
 */
function followGroups(ties: Ties, channels: Channels, groups: number): void {
  const { input, output, whole, inner, bias, transposed } = channels;
  const [wholeSide, innerSide] = transposed ? [input, output] : [output, input];
  const perGroup = whole.size / groups;
  if (ties.choose('groups', [[input], [input, output]]) === 0) {
    ties.fix(inner, 'the channels of a group stay together');
    ties.tieAll(whole, wholeSide);
    for (let i = 0; i < whole.size; i++) {
      const group = Math.floor(i / perGroup);
      ties.tie(whole, i, whole, group * perGroup);
      for (let j = 0; j < inner.size; j++) ties.tie(whole, i, innerSide, group * inner.size + j);
      for (let j = 0; j < inner.size; j++) {
        if (transposed) ties.setZero(output, group * inner.size + j, ties.isZero(whole, i));
      }
      if (!transposed) ties.setZero(output, i, ties.isZero(whole, i));
    }
  } else {
    for (let i = 0; i < innerSide.size; i++) ties.tie(inner, i % inner.size, innerSide, i);
    for (let i = 0; i < whole.size; i++) ties.tie(whole, i % perGroup, wholeSide, i);
    for (let i = 0; i < whole.size; i++) ties.tie(whole, i % perGroup, whole, i);
    if (transposed) {
      for (let i = 0; i < output.size; i++) ties.setZero(output, i, ties.isZero(inner, i % inner.size));
      requireZero(ties, input, (i) => ties.isZero(whole, i));
    } else {
      for (let i = 0; i < output.size; i++) ties.setZero(output, i, ties.isZero(whole, i));
      requireZero(ties, input, (i) => ties.isZero(inner, i % inner.size));
    }
  }
  followBias(ties, bias, output);
}

function requireZero(ties: Ties, input: Axis, isZero: (i: number) => boolean): void {
  for (let i = 0; i < input.size; i++) {
    if (!isZero(i) && !ties.isZero(input, i)) ties.fixIndex(input, i, 'sums over it, and it would not be 0 there');
  }
}

function followBias(ties: Ties, bias: Axis | undefined, output: Axis): void {
  if (!bias) return;
  ties.tieAll(bias, output);
  for (let i = 0; i < output.size; i++) ties.setZero(output, i, ties.isZero(output, i) && ties.isZero(bias, i));
}

const conv: PruningRule = {
  follow: (node, ties) => {
    follow(node, ties, false);
  },
  mend: (node, mender) => {
    const [input, weight] = node.inputs;
    const groups = mender.after(input)[1] / mender.after(weight)[1];
    if (node.int('group', 1) !== groups) mender.setInt(node, 'group', groups);
  },
  layer: { weight: 1, made: 1, axes: () => ({ producer: 0, consumer: 1 }) },
};

const convTranspose: PruningRule = {
  follow: (node, ties) => {
    follow(node, ties, true);
  },
  mend: (node, mender) => {
    const groups = mender.after(node.outputs[0])[1] / mender.after(node.inputs[1])[1];
    if (node.int('group', 1) !== groups) mender.setInt(node, 'group', groups);
  },
  layer: { weight: 1, made: 1, axes: () => ({ producer: 1, consumer: 0 }) },
};

export const convolution: PruningRules = { Conv: conv, ConvTranspose: convTranspose };
