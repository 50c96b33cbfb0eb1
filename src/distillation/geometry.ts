/**
 * The shape of features in their space, and how much of a teacher's features is still in a student's. All of it follows from Gram
 * matrices, so that the width of the features does not matter.
 */
import { FlowCompressError } from '../errors.js';
import { choleskyInverse } from '../linalg/cholesky-inverse.js';
import { symmetricEigenvalues } from '../linalg/symmetric-eigenvalues.js';
import { centred, type Gram } from './cka.js';

export interface Geometry {
  /** Width of the features. */
  readonly features: number;
  /** exp(-sum p ln p) of p = sigma / sum sigma, the singular values of the centred features: 1 to min(n - 1, d); 0 without variance. */
  readonly effectiveRank: number;
  /** Share of the variance in the ten largest directions; 0 without variance. */
  readonly topShare: number;
  /** Mean distance of two samples, every sample divided by its norm: 0 to 2. */
  readonly diversity: number;
  /** tr(S_b) / tr(S_w), scatter between classes over scatter within them; absent without labels, or without scatter within. */
  readonly separability?: number;
}

const TOP = 10;
/** Samples behind the diversity at most. */
const DIVERSITY_SAMPLES = 500;

/**
 * @param gram X X^T, not centred
 * @param width columns of X
 * @param labels class of every sample
 */
export function geometryOf(gram: Gram, width: number, labels?: ArrayLike<number>): Geometry {
  const { size, values, norm } = centred(gram);
  const eigenvalues = norm === 0 ? new Float64Array(0) : symmetricEigenvalues(values, size);
  // The rest is rounding: n points span n - 1 directions.
  const floor = size * Number.EPSILON * (eigenvalues[0] ?? 0);
  const variances = eigenvalues.subarray(0, Math.min(width, size - 1)).filter((v) => v > floor);
  const total = sumOf(variances);
  const separability = labels && separabilityOf({ size, values }, labels);
  return {
    features: width,
    effectiveRank: total > 0 ? effectiveRank(variances) : 0,
    topShare: total > 0 ? Math.min(1, sumOf(variances.subarray(0, TOP)) / total) : 0,
    diversity: diversityOf(gram),
    ...(separability !== undefined && { separability }),
  };
}

function effectiveRank(variances: Float64Array): number {
  const singular = variances.map(Math.sqrt);
  const total = sumOf(singular);
  return Math.exp(-singular.reduce((sum, s) => sum + (s / total) * Math.log(s / total), 0));
}

/** Samples that are 0 have no direction and are left out. */
function diversityOf({ size, values }: Gram): number {
  let [sum, pairs] = [0, 0];
  for (let i = 0; i < Math.min(size, DIVERSITY_SAMPLES); i++) {
    for (let j = 0; j < i; j++) {
      const norms = Math.sqrt(values[i * size + i] * values[j * size + j]);
      if (norms === 0) continue;
      sum += Math.sqrt(Math.min(4, Math.max(0, 2 - (2 * values[i * size + j]) / norms)));
      pairs++;
    }
  }
  return pairs === 0 ? 0 : sum / pairs;
}

/** @param gram of centred features: |sum of a class|^2 / its samples, over all classes, is tr(S_b) */
function separabilityOf({ size, values }: Gram, labels: ArrayLike<number>): number | undefined {
  const classes = new Map<number, number[]>();
  for (let i = 0; i < size; i++) {
    const members = classes.get(labels[i]) ?? [];
    classes.set(labels[i], members);
    members.push(i);
  }
  let [total, between] = [0, 0];
  for (const members of classes.values()) {
    let square = 0;
    for (const i of members) for (const j of members) square += values[i * size + j];
    between += square / members.length;
    for (const i of members) total += values[i * size + i];
  }
  const within = total - between;
  return within <= size * Number.EPSILON * total ? undefined : Math.max(0, between / within);
}

/** Strengths of the ridge that are tried, relative to the mean square of a sample of the student's features. */
const RIDGES = [1e-4, 1e-3, 1e-2, 1e-1, 1, 10, 100];

/**
 * R^2 of a ridge regression of the teacher's features on the student's. Every other sample is fitted to, and the strength of the
 * ridge is chosen there by leaving one out (PRESS); the other samples are predicted. In dual form, with C = (K + lambda I)^-1
 * over the fitted samples, the error at sample i left out is (C T)_i / C_ii and the prediction of others is K' C T.
 * @param student, teacher X X^T of the same samples, not centred
 * @returns 1 when nothing is lost, 0 when the student says no more than the mean does, less where it misleads; undefined
 *   where the teacher's features do not vary, or for fewer than four samples
 * @throws FlowCompressError `internal` for different numbers of samples
 */
export function informationKept(student: Gram, teacher: Gram): number | undefined {
  const { size } = student;
  if (size !== teacher.size)
    throw new FlowCompressError('internal', `Features of ${String(size)} and of ${String(teacher.size)} samples.`);
  if (size < 4) return undefined;
  const fitted = indices(size, 0);
  const held = indices(size, 1);
  const [x, t] = [around(student, fitted), around(teacher, fitted)];
  const target = block(t, fitted, fitted);
  const spread = centred({ size: held.length, values: block(t, held, held) });
  if (spread.norm === 0) return undefined;
  const n = fitted.length;
  if (centred({ size: n, values: block(student, fitted, fitted) }).norm === 0) return 0;
  const inverse = bestInverse(block(x, fitted, fitted), target, n);
  // Rows of M are the weights of the fitted samples in the predictions of the held ones.
  const m = product(block(x, held, fitted), inverse, held.length, n, n);
  const mt = product(m, target, held.length, n, n);
  const cross = block(t, held, fitted);
  let error = traceOf(block(t, held, held), held.length);
  for (let at = 0; at < m.length; at++) error += m[at] * (mt[at] - 2 * cross[at]);
  return Math.min(1, 1 - Math.max(0, error) / traceOf(spread.values, held.length));
}

/** C of the ridge that leaves least error at samples that are left out. */
function bestInverse(k: Float64Array, target: Float64Array, n: number): Float64Array {
  const scale = traceOf(k, n) / n;
  let best: Float64Array = new Float64Array(n * n);
  let least = Infinity;
  for (const ridge of RIDGES) {
    const inverse = choleskyInverse(
      k.map((v, at) => (at % (n + 1) === 0 ? v + ridge * scale : v)),
      n,
    );
    const ct = product(inverse, target, n, n, n);
    let press = 0;
    for (let i = 0; i < n; i++) {
      let square = 0;
      for (let j = 0; j < n; j++) square += ct[i * n + j] * inverse[i * n + j];
      press += square / inverse[i * n + i] ** 2;
    }
    if (press < least) [best, least] = [inverse, press];
  }
  return best;
}

function indices(size: number, parity: number): number[] {
  return Array.from({ length: Math.ceil((size - parity) / 2) }, (_, i) => 2 * i + parity);
}

/** The Gram matrix of the features less the mean of some samples. */
function around({ size, values }: Gram, samples: readonly number[]): Gram {
  const means = new Float64Array(size);
  for (let i = 0; i < size; i++) for (const j of samples) means[i] += values[i * size + j] / samples.length;
  const mean = samples.reduce((sum, i) => sum + means[i] / samples.length, 0);
  return { size, values: values.map((v, at) => v - means[Math.floor(at / size)] - means[at % size] + mean) };
}

function block({ size, values }: Gram, rows: readonly number[], columns: readonly number[]): Float64Array {
  return Float64Array.from(
    { length: rows.length * columns.length },
    (_, at) => values[rows[Math.floor(at / columns.length)] * size + columns[at % columns.length]],
  );
}

/** a [p, q] times b [q, r]. */
function product(a: Float64Array, b: Float64Array, p: number, q: number, r: number): Float64Array {
  const out = new Float64Array(p * r);
  for (let i = 0; i < p; i++) {
    const row = out.subarray(i * r, (i + 1) * r);
    for (let k = 0; k < q; k++) {
      const factor = a[i * q + k];
      for (let j = 0, at = k * r; j < r; j++, at++) row[j] += factor * b[at];
    }
  }
  return out;
}

function traceOf(matrix: Float64Array, n: number): number {
  let trace = 0;
  for (let i = 0; i < n; i++) trace += matrix[i * n + i];
  return trace;
}

function sumOf(values: Float64Array): number {
  return values.reduce((a, b) => a + b, 0);
}
