/** Losses of distillation beside those of training/losses.ts, one number per sample. */
import type { Graph, Value } from '../onnx/graph.js';
import { constantOf, formula, reduce, reduceKeeping, reshape, transpose } from '../onnx/ops.js';
import type { Loss, LossContext } from '../training/losses.js';

const LEAST_FLOW = 1e-8;

/** A(a, b) = 1/2 (a - b) ln(a / b), the symmetric relative entropy of two flows; both [N], or [1] of a whole batch. */
export const flowAlignment: Loss = (context) => asymmetry(context, context.output, context.target);

/**
 * The same along the depth: sum_g q_g A(a_g, b_g) of flows at the points of a grid.
 * @param quadrature q, [G]: weights of the points
 */
export function integratedAlignment(quadrature: readonly number[]): Loss {
  return (context) => {
    const { graph, output, target } = context;
    const weights = constantOf(graph, quadrature, 'float32');
    return reduce(graph, 'ReduceSum', formula(graph)('Mul', asymmetry(context, output, target), weights), [1]);
  };
}

function asymmetry({ graph }: LossContext, output: Value, target: Value): Value {
  const calc = formula(graph);
  const [a, b] = [calc('Add', target, LEAST_FLOW), calc('Add', output, LEAST_FLOW)];
  const logs = calc('Sub', calc('Log', a), calc('Log', b));
  return calc('Mul', calc('Mul', calc('Sub', a, b), logs), 0.5);
}

/** ||output - target||_2 of every sample, [N]: of maps with norm 1 (attention transfer, Zagoruyko and Komodakis 2017). */
export const distance: Loss = ({ graph, output, target, rank }) => {
  const calc = formula(graph);
  const error = calc('Sub', output, target);
  const axes = Array.from({ length: rank - 1 }, (_, i) => i + 1);
  return calc('Sqrt', calc('Add', reduce(graph, 'ReduceSum', calc('Mul', error, error), axes), 1e-12));
};

/**
 * In-batch contrast (CRD, Tian et al. 2020, with the batch in the place of the memory bank): cross-entropy of u_i . v_j / t over
 * j, whose truth is j = i; u and v have norm 1.
 * @param projection name of the matrix [D_T, K] that brings the fed features of the teacher, [N, D_T], to those of the student, [N, K]
 */
export function contrast(projection: string, temperature: number): Loss {
  return ({ graph, output, target }) => {
    const calc = formula(graph);
    const projected = graph.insertOp('MatMul', [target, graph.mustGet(projection)]);
    const [u, v] = [unitRows(graph, output), unitRows(graph, projected)];
    const scores = calc('Div', graph.insertOp('MatMul', [u, transpose(graph, v, [1, 0])]), temperature);
    const own = calc('Div', reduce(graph, 'ReduceSum', calc('Mul', u, v), [1]), temperature);
    // Scores are 1 / t at most: no sum of exponentials overflows for the temperatures in use.
    const all = calc('Log', reduce(graph, 'ReduceSum', calc('Exp', scores), [1]));
    return calc('Sub', all, own);
  };
}

/** Rows of norm 1. */
export function unitRows(graph: Graph, x: Value): Value {
  const calc = formula(graph);
  const squares = reduceKeeping(graph, 'ReduceSum', calc('Mul', x, x), [1]);
  return calc('Div', x, calc('Sqrt', calc('Add', squares, 1e-12)));
}

/** ||G_T / ||G_T|| - G_S / ||G_S|| ||_F^2 of the batch's Gram matrices, spread evenly over its samples: relations between samples. */
export const relations: Loss = ({ graph, output, target }) => {
  const calc = formula(graph);
  const gram = (x: Value): Value => {
    const rows = reshape(graph, x, [0, -1]);
    const product = graph.insertOp('MatMul', [rows, transpose(graph, rows, [1, 0])]);
    const norm = calc('Sqrt', calc('Add', reduce(graph, 'ReduceSum', calc('Mul', product, product)), 1e-12));
    return calc('Div', product, norm);
  };
  const error = calc('Sub', gram(target), gram(output));
  return reduce(graph, 'ReduceSum', calc('Mul', error, error), [1]);
};
