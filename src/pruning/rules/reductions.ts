/** Reductions and pooling: channels pass through; an axis that is summed over can lose what is 0. */
import { axisFromStart } from '../../onnx/axis.js';
import type { Node } from '../../onnx/graph.js';
import type { PruningRule, PruningRules } from '../rule.js';
import type { Axis, Ties } from '../ties.js';

const POSITIONS = 'its positions are not units';

/** How an operator takes zeros: along the reduced axis, and at an index of another one where everything is 0. */
interface Reduction {
  readonly along: 'adds nothing' | 'mean' | 'counts';
  readonly apart: 'zero' | 'other' | 'not finite';
}

function axesOfReduction(node: Node, ties: Ties, rank: number): number[] | undefined {
  const given = node.inputs[1] ? ties.ints(node.inputs[1]) : (node.ints('axes') ?? []);
  if (!given) return undefined;
  if (given.length > 0) return given.map((axis) => axisFromStart(axis, rank));
  return node.int('noop_with_empty_axes', 0) !== 0 ? [] : Array.from({ length: rank }, (_, axis) => axis);
}

function followReduced(ties: Ties, axis: Axis, { along }: Reduction): void {
  if (along === 'adds nothing') return ties.sum(axis);
  if (along === 'mean' && ties.options.cutNormalized === true) return ties.free(axis);
  ties.fix(axis, 'reduces over it');
}

function reduction(kind: Reduction): PruningRule {
  return {
    follow: (node, ties) => {
      const x = ties.mustHave(node.inputs[0]);
      const y = ties.mustHave(node.outputs[0]);
      const reduced = axesOfReduction(node, ties, x.length);
      if (!reduced) return ties.fixAll([node.inputs[0], node.outputs[0]], 'its axes are computed');
      const keeps = node.int('keepdims', 1) !== 0;
      let at = 0;
      for (const [from, axis] of x.entries()) {
        if (reduced.includes(from)) {
          followReduced(ties, axis, kind);
          if (keeps) at++;
          continue;
        }
        const to = y[at++];
        ties.pass(axis, to);
        for (let i = 0; i < axis.size; i++) {
          if (kind.apart === 'not finite' && ties.isZero(axis, i)) ties.fixIndex(axis, i, 'is not finite at 0');
          if (kind.apart !== 'zero') ties.setZero(to, i, false);
        }
      }
    },
  };
}

const adds: Reduction = { along: 'adds nothing', apart: 'zero' };
const counts: Reduction = { along: 'counts', apart: 'zero' };

const argument: PruningRule = {
  follow: (node, ties) => {
    const x = ties.mustHave(node.inputs[0]);
    const y = ties.mustHave(node.outputs[0]);
    const over = axisFromStart(node.int('axis', 0), x.length);
    const others = x.filter((_, at) => at !== over);
    ties.fix(x[over], 'compares along it');
    const left = node.int('keepdims', 1) !== 0 ? y.filter((_, at) => at !== over) : y;
    for (const [at, axis] of others.entries()) ties.tieAll(axis, left[at]);
  },
};

const cumulative: PruningRule = {
  follow: (node, ties) => {
    const x = ties.mustHave(node.inputs[0]);
    const y = ties.mustHave(node.outputs[0]);
    const over = ties.ints(node.inputs[1])?.map((axis) => axisFromStart(axis, x.length));
    for (const [at, axis] of x.entries()) {
      ties.pass(axis, y[at]);
      if (over?.includes(at) ?? true) ties.fix(axis, 'accumulates along it');
    }
  },
};

/** Windows over positions. The second result of MaxPool counts positions through all channels. */
const pooling: PruningRule = {
  follow: (node, ties) => {
    const x = ties.mustHave(node.inputs[0]);
    const y = ties.mustHave(node.outputs[0]);
    ties.pass(x[0], y[0]);
    ties.pass(x[1], y[1]);
    for (const axis of [...x.slice(2), ...y.slice(2)]) ties.fix(axis, POSITIONS);
    const indices = node.outputs[1];
    if (indices && (indices.uses.size > 0 || ties.graph.isGraphOutput(indices))) {
      ties.fixAll([indices], 'its indices are read');
      ties.fix(y[1], 'its indices are read');
    }
  },
};

export const reductions: PruningRules = {
  ...Object.fromEntries(['ReduceSum', 'ReduceL1', 'ReduceL2', 'ReduceSumSquare'].map((op) => [op, reduction(adds)])),
  ...Object.fromEntries(['ReduceMax', 'ReduceMin', 'ReduceProd'].map((op) => [op, reduction(counts)])),
  ReduceMean: reduction({ along: 'mean', apart: 'zero' }),
  ReduceLogSumExp: reduction({ along: 'counts', apart: 'other' }),
  ReduceLogSum: reduction({ along: 'adds nothing', apart: 'not finite' }),
  ...{ ArgMax: argument, ArgMin: argument, CumSum: cumulative },
  ...Object.fromEntries(
    'MaxPool AveragePool LpPool GlobalMaxPool GlobalAveragePool GlobalLpPool'.split(' ').map((op) => [op, pooling]),
  ),
};
