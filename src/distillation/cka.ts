/**
 * Gram matrices of features, and linear CKA: how alike two layers see the same samples, whatever the widths of the layers
 * (Kornblith et al. 2019). Everything is computed from the [n, n] products of samples, so that the width does not matter.
 */
import { FlowCompressError } from '../errors.js';
import { DataType } from '../onnx/dtypes.js';
import { emptyModel, Graph } from '../onnx/graph.js';
import { intAttribute } from '../onnx/attributes.js';
import { toBytes } from '../onnx/to-bytes.js';
import { tensorInfo } from '../onnx/value-info.js';
import type { Engine, HostTensor } from '../runtime/engine.js';

/** What a layer gives for some samples: row-major [samples, width]. Feature maps are flat. */
export interface Features {
  readonly samples: number;
  readonly width: number;
  readonly values: Float32Array;
}

/** X X^T of features X, row-major [size, size]. */
export interface Gram {
  readonly size: number;
  readonly values: Float64Array;
}

/** A Gram matrix of features whose mean over the samples is 0. */
export interface CentredGram extends Gram {
  /** Frobenius norm. */
  readonly norm: number;
}

export interface GramMaker {
  of(features: Features): Promise<Gram>;
  release(): Promise<void>;
}

/** Columns multiplied at a time: what goes to the engine in float64 stays small for any width. */
const BLOCK = 2048;

/** Lets the engine multiply, in float64: JavaScript would take seconds for a feature map. @throws what the engine reports */
export async function openGramMaker(engine: Engine): Promise<GramMaker> {
  const graph = new Graph(emptyModel(13));
  const x = graph.addInput(tensorInfo('x', DataType.DOUBLE, ['n', 'k']));
  const before = graph.addInput(tensorInfo('before', DataType.DOUBLE, ['n', 'n']));
  const sum = graph.insertOp('Gemm', [x, x, before], [intAttribute('transB', 1)], 'sum');
  sum.info = tensorInfo(sum.name, DataType.DOUBLE, ['n', 'n']);
  graph.outputs.push(sum);
  const session = await engine.createSession(toBytes(graph.toModel()));
  const float64 = (dims: readonly number[], data: Float64Array): HostTensor => ({ type: 'float64', dims, data });
  return {
    async of({ samples: n, width, values }) {
      let total = float64([n, n], new Float64Array(n * n));
      for (let from = 0; from < width; from += BLOCK) {
        const columns = Math.min(BLOCK, width - from);
        const block = new Float64Array(n * columns);
        for (let i = 0; i < n; i++)
          block.set(values.subarray(i * width + from, i * width + from + columns), i * columns);
        total = (await session.run({ x: float64([n, columns], block), before: total }))[sum.name];
      }
      return { size: n, values: total.data as Float64Array };
    },
    release: () => session.release(),
  };
}

/** Size of what rounding leaves of features without variance, relative to the features. */
const ROUNDING = 1e-12;

/** (I - 1 1^T / n) K (I - 1 1^T / n): the Gram matrix of the features less their mean; zeros where they are the same for all samples. */
export function centred({ size: n, values }: Gram): CentredGram {
  const means = new Float64Array(n);
  let mean = 0;
  for (let i = 0; i < n; i++) {
    for (let j = 0; j < n; j++) means[i] += values[i * n + j] / n;
    mean += means[i] / n;
  }
  const out = values.map((v, at) => v - means[Math.floor(at / n)] - means[at % n] + mean);
  const norm = Math.sqrt(dot(out, out));
  return norm <= ROUNDING * Math.sqrt(dot(values, values))
    ? { size: n, values: out.fill(0), norm: 0 }
    : { size: n, values: out, norm };
}

/**
 * Linear CKA, ||Y^T X||_F^2 / (||X^T X||_F ||Y^T Y||_F) of centred features, computed as tr(K L) / sqrt(tr(K K) tr(L L)).
 * @param a of n samples
 * @param b of the same samples
 * @returns 0 to 1: 1 for features that a rotation, reflection and scale turn into each other; 0 as well where one of them is
 *   the same for all samples
 * @throws FlowCompressError `internal` for different numbers of samples
 */
export function linearCka(a: CentredGram, b: CentredGram): number {
  if (a.size !== b.size)
    throw new FlowCompressError('internal', `CKA of ${String(a.size)} and of ${String(b.size)} samples.`);
  const norms = a.norm * b.norm;
  return norms === 0 ? 0 : Math.min(1, Math.max(0, dot(a.values, b.values) / norms));
}

/** Linear CKA of every layer of one model with every layer of another: [l][m] for `teacher[l]` and `student[m]`. */
export function ckaMatrix(teacher: readonly CentredGram[], student: readonly CentredGram[]): number[][] {
  return teacher.map((a) => student.map((b) => linearCka(a, b)));
}

function dot(a: Float64Array, b: Float64Array): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i] * b[i];
  return sum;
}
