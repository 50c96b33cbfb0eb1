/**
 * TopKD (arXiv 2508.04539), in our reading of its summary, with constants of ours: the teacher's highest scores are raised by rank,
 * and highest, lowest and other scores of teacher and student are held together by angles, each group for itself.
 */
import type { Graph, Value } from '../onnx/graph.js';
import { formula, reduce, reshape, slice, transpose } from '../onnx/ops.js';
import type { HostTensor } from '../runtime/engine.js';
import { argmax } from '../runtime/scores.js';
import type { Loss } from '../training/losses.js';
import { withAnswers } from './baselines.js';
import { classesOf, type Lesson, type LessonRequest, type TaughtBatch, type Term } from './lesson.js';
import { unitRows } from './losses.js';

/** K: scores that count as the highest, and as the lowest; half of the classes at most. */
const TOP = 5;
/** Beside the answers. */
const FACTOR = 1;
/** Of the contrast between the scores of a batch. */
const TEMPERATURE = 1;

export function topScores(request: LessonRequest): Lesson {
  const { student, teacher, batchSize } = request;
  const classes = classesOf(teacher, 'topkd');
  return withAnswers(request, () => {
    const term: Term = {
      ...{ name: 'top-k', answer: teacher.answers[0]!, kept: true },
      prepare: (said, { target }: TaughtBatch) => raisedRows(said, target),
      hint: { value: student.answers[0]!, loss: topAngles, targetDims: [batchSize, 3, classes] },
    };
    return { terms: [term], factors: [FACTOR] };
  });
}

export interface RaisedScores {
  /** Less the mean of those that are not raised, which a softmax does not see. */
  readonly scores: Float64Array;
  /** 1 for the highest K and the label, and for the lowest K of the others. */
  readonly highest: Uint8Array;
  readonly lowest: Uint8Array;
}

/**
 * The K highest scores and the label's become z (1 + (K - rank) / K) + delta, rank from 0, delta = mean of the highest - mean of the
 * rest, z less that mean. A label that the teacher does not rank first takes the score and the rank of what it does.
 * @param logits of one sample @param label its class
 */
export function raisedScores(logits: ArrayLike<number>, label: number, top = TOP): RaisedScores {
  const order = Array.from(logits, (_, c) => c).sort((a, b) => logits[b]! - logits[a]! || a - b);
  const k = Math.max(1, Math.min(top, Math.floor(order.length / 2)));
  const chosen = new Set([...order.slice(0, k), label]);
  const rest = order.filter((c) => !chosen.has(c));
  const mean = (classes: readonly number[]): number => classes.reduce((sum, c) => sum + logits[c]!, 0) / classes.length;
  // Of two classes both may be chosen.
  const floor = rest.length > 0 ? mean(rest) : logits[order.at(-1)!]!;
  const delta = mean(order.slice(0, k)) - floor;
  const scores = Float64Array.from(logits, (z) => z - floor);
  for (const [rank, c] of [...order.slice(0, k), label].entries()) {
    const [from, at] = c === label ? [order[0]!, 0] : [c, rank];
    scores[c] = (logits[from]! - floor) * (1 + (k - at) / k) + delta;
  }
  const low = new Set(rest.slice(-k));
  return {
    scores,
    highest: Uint8Array.from(logits, (_, c) => (chosen.has(c) ? 1 : 0)),
    lowest: Uint8Array.from(logits, (_, c) => (low.has(c) ? 1 : 0)),
  };
}

/** [N, 3, classes]: the raised scores, and the marks of the highest and of the lowest. */
function raisedRows(said: HostTensor, target: HostTensor): HostTensor {
  const samples = said.dims[0] ?? 1;
  const classes = said.data.length / samples;
  const rows = new Float32Array(samples * 3 * classes);
  for (let n = 0; n < samples; n++) {
    const logits = (said.data as Float32Array).subarray(n * classes, (n + 1) * classes);
    const { scores, highest, lowest } = raisedScores(logits, argmax(target.data, n * classes, classes));
    for (const [part, values] of [scores, highest, lowest].entries()) rows.set(values, (3 * n + part) * classes);
  }
  return { type: 'float32', dims: [samples, 3, classes], data: rows };
}

/**
 * 1 - the mean cosine of teacher's and student's scores over the highest, the lowest and the other classes, as far as there are
 * such; and the contrast of whole rows over the batch, both ways. Targets as `raisedRows`.
 */
export const topAngles: Loss = ({ graph, output, target }) => {
  const calc = formula(graph);
  const part = (index: number): Value => reshape(graph, slice(graph, target, [1], [index], [index + 1], [1]), [0, -1]);
  const [scores, highest, lowest] = [part(0), part(1), part(2)];
  const z = reshape(graph, output, [0, -1]);
  const others = calc('Sub', calc('Sub', 1, highest), lowest);
  const groups = [highest, lowest, others].map((mask) => ({
    there: reduce(graph, 'ReduceMax', mask, [1]),
    cosine: cosine(graph, calc('Mul', z, mask), calc('Mul', scores, mask)),
  }));
  const sum = (values: readonly Value[]): Value => values.reduce((a, b) => calc('Add', a, b));
  const mean = calc('Div', sum(groups.map(({ cosine: c }) => c)), sum(groups.map(({ there }) => there)));
  return calc('Add', calc('Sub', 1, mean), twoWayContrast(graph, z, scores));
};

/** Of the rows of two matrices, [N]; 0 where one of them is 0. */
function cosine(graph: Graph, a: Value, b: Value): Value {
  const calc = formula(graph);
  const dot = (x: Value, y: Value): Value => reduce(graph, 'ReduceSum', calc('Mul', x, y), [1]);
  const squares = calc('Add', calc('Mul', dot(a, a), dot(b, b)), 1e-12);
  return calc('Div', dot(a, b), calc('Sqrt', squares));
}

/** Cross-entropy of the cosines of all pairs of rows with those of equal number as the truth, by rows and by columns. */
function twoWayContrast(graph: Graph, a: Value, b: Value): Value {
  const calc = formula(graph);
  const [u, v] = [unitRows(graph, a), unitRows(graph, b)];
  const powers = calc('Exp', calc('Div', graph.insertOp('MatMul', [u, transpose(graph, v, [1, 0])]), TEMPERATURE));
  const own = calc('Div', reduce(graph, 'ReduceSum', calc('Mul', u, v), [1]), TEMPERATURE);
  const all = [1, 0].map((axis) => calc('Log', reduce(graph, 'ReduceSum', powers, [axis])));
  return calc('Sub', calc('Mul', calc('Add', all[0]!, all[1]!), 0.5), own);
}
