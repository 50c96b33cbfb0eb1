/** How close a student has come to its teacher, read off one batch: what joint weighting goes by. */
import type { HostTensor } from '../runtime/engine.js';
import { argmax } from '../runtime/scores.js';
import { centred, linearCka, type CentredGram } from './cka.js';

export interface ClosenessInput {
  /** [N, classes]. */
  readonly teacher: HostTensor;
  readonly student: HostTensor;
  /** [N, classes]: the class of a sample is its greatest one. */
  readonly target: HostTensor;
  /** [N, D] in front of the last layers; D may differ. */
  readonly features?: { readonly teacher: HostTensor; readonly student: HostTensor } | undefined;
}

/** Shares of agreement, confidence and features. */
const [AGREEMENT, CONFIDENCE, FEATURES] = [0.4, 0.3, 0.3];
/** Probability of the class above which a right answer of the teacher is a sure one. */
const SURE = 0.7;
/** Sure samples that features are compared on; all samples where there are fewer. */
const FEWEST = 8;

/**
 * F = 0.4 agree + 0.3 conf + 0.3 feat, 0 to 1. agree: share of the teacher's right answers that the student shares; conf:
 * 1 - |mean p_T(y) - mean p_S(y)|; feat: linear CKA on samples that the teacher is right and sure of. What is not known (no right
 * answer, no features) is left out and the rest scaled up.
 */
export function closeness({ teacher, student, target, features }: ClosenessInput): number {
  const [samples = 0, classes = 0] = target.dims;
  const right: number[] = [];
  const sure: number[] = [];
  let [alike, theirs, own] = [0, 0, 0];
  for (let n = 0; n < samples; n++) {
    const [label, said, answered] = [target, teacher, student].map(({ data }) => argmax(data, n * classes, classes));
    const [p, q] = [teacher, student].map((scores) => probability(scores, n, label!));
    theirs += p! / samples;
    own += q! / samples;
    if (said !== label) continue;
    right.push(n);
    if (answered === said) alike++;
    if (p! > SURE) sure.push(n);
  }
  const parts: [number, number][] = [[CONFIDENCE, 1 - Math.abs(theirs - own)]];
  if (right.length > 0) parts.push([AGREEMENT, alike / right.length]);
  if (features) {
    const rows = sure.length >= FEWEST ? sure : Array.from({ length: samples }, (_, n) => n);
    parts.push([FEATURES, linearCka(gramOf(features.teacher, rows), gramOf(features.student, rows))]);
  }
  const whole = parts.reduce((sum, [share]) => sum + share, 0);
  return parts.reduce((sum, [share, value]) => sum + share * value, 0) / whole;
}

/** softmax(row)_label of logits [N, classes]. */
function probability({ data, dims: [, classes = 0] }: HostTensor, row: number, label: number): number {
  const at = row * classes;
  const top = Number(data[at + argmax(data, at, classes)]);
  let sum = 0;
  for (let c = 0; c < classes; c++) sum += Math.exp(Number(data[at + c]) - top);
  return Math.exp(Number(data[at + label]) - top) / sum;
}

function gramOf({ data, dims: [, width = 0] }: HostTensor, rows: readonly number[]): CentredGram {
  const size = rows.length;
  const values = new Float64Array(size * size);
  for (let i = 0; i < size; i++)
    for (let j = i; j < size; j++) {
      let dot = 0;
      for (let k = 0; k < width; k++) dot += Number(data[rows[i]! * width + k]) * Number(data[rows[j]! * width + k]);
      values[i * size + j] = values[j * size + i] = dot;
    }
  return centred({ size, values });
}
