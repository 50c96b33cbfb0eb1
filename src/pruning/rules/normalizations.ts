/** Normalizations: what is computed over an axis needs all of it; scales and shifts go with their channel. */
import { axisFromStart } from '../../onnx/axis.js';
import type { Node, Value } from '../../onnx/graph.js';
import type { PruningRule, PruningRules } from '../rule.js';
import type { Axis, Ties } from '../ties.js';

const OVER = 'normalizes over it';

/** The axis of the result is 0 where all of the parameters are. */
function zeroWhere(ties: Ties, axis: Axis, parameters: readonly (readonly Axis[])[]): void {
  for (let i = 0; i < axis.size; i++)
    ties.setZero(
      axis,
      i,
      parameters.every((own) => ties.isZero(own[0], i)),
    );
}

function readsMore(ties: Ties, node: Node): Value[] {
  return node.outputs
    .slice(1)
    .filter((value) => value !== undefined)
    .filter((value) => value.uses.size > 0 || ties.graph.isGraphOutput(value));
}

/** Per channel: a scale and a shift, and perhaps statistics that are stored. */
const perChannel: PruningRule = {
  follow: (node, ties) => {
    const [x, ...parameters] = node.inputs.map((input) => ties.mustHave(input));
    const y = ties.mustHave(node.outputs[0]);
    for (const [at, axis] of x.entries()) ties.tieAll(axis, y[at]);
    for (const parameter of parameters) ties.tieAll(parameter[0], y[1]);
    zeroWhere(ties, y[1], parameters.slice(0, 2));
    // Over the samples and positions, or with statistics of them: these do not shrink without an operator that says so.
    for (const axis of [y[0], ...y.slice(2)]) ties.fix(axis, 'its positions are not units');
    ties.fixAll(readsMore(ties, node), 'statistics of the batch are read');
  },
};

function followTrailing(node: Node, ties: Ties): void {
  const [x, ...parameters] = node.inputs.filter((input) => input).map((input) => ties.mustHave(input));
  const y = ties.mustHave(node.outputs[0]);
  const first = axisFromStart(node.int('axis', -1), x.length);
  for (const [at, axis] of x.entries()) {
    ties.tieAll(axis, y[at]);
    if (at >= first && ties.options.cutNormalized !== true) ties.fix(axis, OVER);
    for (const parameter of parameters) {
      const own = parameter[at - x.length + parameter.length] as Axis | undefined;
      if (own?.size === axis.size) ties.tieAll(own, axis);
      else if (own) ties.free(own);
    }
  }
  ties.fixAll(readsMore(ties, node), 'its statistics are read');
}

/** Over the trailing axes from `axis` on. */
const trailing: PruningRule = { follow: followTrailing };

/** Whole groups of channels. The scale has an entry per channel, or (opset 18) one per group. */
const groups: PruningRule = {
  follow: (node, ties) => {
    const [x, ...parameters] = node.inputs.map((input) => ties.mustHave(input));
    const y = ties.mustHave(node.outputs[0]);
    for (const [at, axis] of x.entries()) ties.tieAll(axis, y[at]);
    for (const axis of [y[0], ...y.slice(2)]) ties.fix(axis, 'its positions are not units');
    const perGroup = y[1].size / node.int('num_groups', 1);
    for (let i = 0; i < y[1].size; i++) {
      const group = Math.floor(i / perGroup);
      ties.tie(y[1], i, y[1], group * perGroup);
      for (const [own] of parameters) ties.tie(own, own.size === y[1].size ? i : group, y[1], i);
      const zero = parameters.every(([own]) => ties.isZero(own, own.size === y[1].size ? i : group));
      ties.setZero(y[1], i, zero);
    }
  },
  mend: (node, mender) => {
    const perGroup = mender.before(node.inputs[0])[1] / node.int('num_groups', 1);
    mender.setInt(node, 'num_groups', mender.after(node.inputs[0])[1] / perGroup);
  },
};

/** x over its own norm along an axis: zeros add nothing to the norm. */
const lpNormalization: PruningRule = {
  follow: (node, ties) => {
    const x = ties.mustHave(node.inputs[0]);
    const y = ties.mustHave(node.outputs[0]);
    const over = axisFromStart(node.int('axis', -1), x.length);
    for (const [at, axis] of x.entries()) {
      if (at === over) ties.sum(axis);
      ties.pass(axis, y[at]);
    }
  },
};

/** Operators that need every index of one axis, and keep the others apart. */
function along(axisOf: (node: Node, rank: number) => readonly number[], zeros: 'keep' | 'lose'): PruningRule {
  return {
    follow: (node, ties) => {
      const x = ties.mustHave(node.inputs[0]);
      const over = axisOf(node, x.length).map((axis) => axisFromStart(axis, x.length));
      for (const output of node.outputs) {
        if (!output) continue;
        const y = ties.mustHave(output);
        for (const [at, axis] of x.entries()) {
          if (over.includes(at)) {
            ties.fix(axis, `${node.opType} works along it`);
            ties.fix(y[at], `${node.opType} works along it`);
          } else if (zeros === 'keep') ties.pass(axis, y[at]);
          else ties.tieAll(axis, y[at]);
        }
      }
    },
  };
}

/** Before opset 13 all axes from `axis` on, which was 1 where it was not given. */
function softmaxAxes(node: Node, rank: number, opset: number): readonly number[] {
  if (opset >= 13) return [node.int('axis', -1)];
  const first = axisFromStart(node.int('axis', 1), rank);
  return Array.from({ length: rank - first }, (_, i) => first + i);
}

const softmax: PruningRule = {
  follow: (node, ties) => {
    along((each, rank) => softmaxAxes(each, rank, ties.graph.opset()), 'lose').follow(node, ties);
  },
};

export const normalizations: PruningRules = {
  ...{ BatchNormalization: perChannel, InstanceNormalization: perChannel, GroupNormalization: groups },
  ...{ LayerNormalization: trailing, RMSNormalization: trailing, SimplifiedLayerNormalization: trailing },
  ...{ Softmax: softmax, LogSoftmax: softmax, Hardmax: softmax, LpNormalization: lpNormalization },
  LRN: along(() => [1], 'keep'),
  MeanVarianceNormalization: along((node, rank) => node.ints('axes') ?? [0, 2, 3].slice(0, rank), 'lose'),
  TopK: along((node) => [node.int('axis', -1)], 'lose'),
  Trilu: along(() => [-1, -2], 'keep'),
};
