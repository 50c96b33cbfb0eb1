/** Matrix products, of stored weights and of two computed values alike: both sides of the sum lose the same indices. */
import type { Node } from '../../onnx/graph.js';
import type { PruningRule, PruningRules } from '../rule.js';
import type { Axis, Ties } from '../ties.js';
import { followBroadcast } from './broadcasting.js';

const ONE: Axis = { start: -1, size: 1 };

function followMatMul(node: Node, ties: Ties): void {
  const left = ties.mustHave(node.inputs[0]);
  const right = ties.mustHave(node.inputs[1]);
  const result = ties.mustHave(node.outputs[0]);
  const a = left.length === 1 ? [ONE, ...left] : left;
  const b = right.length === 1 ? [...right, ONE] : right;
  const rest = [...result];
  const columns = right.length === 1 ? ONE : (rest.pop() ?? ONE);
  const rows = left.length === 1 ? ONE : (rest.pop() ?? ONE);
  ties.sumOver(a[a.length - 1], b[b.length - 2]);
  ties.pass(a[a.length - 2], rows);
  ties.pass(b[b.length - 1], columns);
  followBroadcast(ties, [a.slice(0, -2), b.slice(0, -2)], rest, 'any');
}

/** Products of two computed values with an axis of heads. */
function noteHeads(node: Node, ties: Ties): void {
  const result = ties.mustHave(node.outputs[0]);
  if (node.inputs.some((input) => input?.isInitializer)) return;
  for (const axis of result.slice(0, -2)) if (axis.size > 1) ties.heads.push(axis);
}

const matMul: PruningRule = {
  follow: (node, ties) => {
    followMatMul(node, ties);
    noteHeads(node, ties);
  },
  layer: { weight: 1, made: -1, axes: () => ({ producer: -1, consumer: -2 }) },
};

const gemm: PruningRule = {
  follow: (node, ties) => {
    const orient = (axes: readonly Axis[], transpose: boolean): readonly Axis[] =>
      transpose ? [axes[1], axes[0]] : axes;
    const [rows, leftSum] = orient(ties.mustHave(node.inputs[0]), node.int('transA', 0) !== 0);
    const [rightSum, columns] = orient(ties.mustHave(node.inputs[1]), node.int('transB', 0) !== 0);
    const result = ties.mustHave(node.outputs[0]);
    ties.sumOver(leftSum, rightSum);
    ties.pass(rows, result[0]);
    ties.pass(columns, result[1]);
    if (!node.inputs[2]) return;
    const product = result.map((axis) => Array.from({ length: axis.size }, (_, i) => ties.isZero(axis, i)));
    const bias = ties.mustHave(node.inputs[2]);
    followBroadcast(ties, [bias], result, 'all');
    for (const [axis, zeros] of product.entries()) {
      zeros.forEach((zero, i) => {
        ties.setZero(result[axis], i, zero && ties.isZero(result[axis], i));
      });
    }
  },
  layer: {
    weight: 1,
    made: 1,
    axes: (node) => (node.int('transB', 0) !== 0 ? { producer: 0, consumer: 1 } : { producer: 1, consumer: 0 }),
  },
};

export const products: PruningRules = { MatMul: matMul, Gemm: gemm };
