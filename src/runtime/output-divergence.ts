/** How far the outputs of a changed model are from the original's: the one measure behind widths and executions. */
import type { HostTensor } from './engine.js';

export type Outputs = Readonly<Record<string, HostTensor>>;

/** Kullback-Leibler divergence of class probabilities, or squared error relative to the energy of the outputs. */
export type DivergenceKind = 'kl' | 'relative-error';

/** @param scores name of the output with one score per class, if the model has one */
export function divergenceKind(reference: Outputs, scores: string | undefined): DivergenceKind {
  const tensor = scores === undefined ? undefined : reference[scores];
  return tensor?.type === 'float32' ? 'kl' : 'relative-error';
}

/**
 * @param reference all outputs of the original
 * @param changed the same outputs of the changed model, on the same samples
 * @param scores name of the output with one score per class; the other outputs do not count then
 * @returns nats, or a ratio of energies, as `divergenceKind(reference, scores)` says; NaN when an output is
 */
export function outputDivergence(reference: Outputs, changed: Outputs, scores: string | undefined): number {
  if (scores === undefined || divergenceKind(reference, scores) === 'relative-error')
    return relativeError(Object.keys(reference), reference, changed);
  const original = reference[scores]!;
  return meanKl(original, changed[scores]!, isProbabilities(original));
}

/** True when the rows of [N, classes] are non-negative and sum to 1. */
export function isProbabilities({ data, dims }: HostTensor): boolean {
  const classes = dims[1]!;
  const values = data as Float32Array;
  for (let n = 0; n < dims[0]!; n++) {
    let sum = 0;
    for (let c = 0; c < classes; c++) {
      const v = values[n * classes + c]!;
      if (!(v >= 0)) return false;
      sum += v;
    }
    if (Math.abs(sum - 1) > 1e-3) return false;
  }
  return true;
}

/** Mean over samples of KL(p || q) from logits (or probabilities) of shape [N, classes], in nats. */
export function meanKl(reference: HostTensor, changed: HostTensor, probabilities = false): number {
  const [samples, classes] = reference.dims as [number, number];
  const p = reference.data as Float32Array;
  const q = changed.data as Float32Array;
  let total = 0;
  for (let n = 0; n < samples; n++) {
    const base = n * classes;
    const logP = logSoftmax(p, base, classes, probabilities);
    const logQ = logSoftmax(q, base, classes, probabilities);
    for (let c = 0; c < classes; c++) total += Math.exp(logP[c]!) * (logP[c]! - logQ[c]!);
  }
  return Math.max(0, total / Math.max(samples, 1));
}

/** Logarithms of the class probabilities of the first sample, from logits or probabilities of shape [N, classes]. */
export function logProbabilities(scores: HostTensor): Float64Array {
  return logSoftmax(scores.data as Float32Array, 0, scores.dims[1]!, isProbabilities(scores));
}

function logSoftmax(values: Float32Array, base: number, classes: number, probabilities: boolean): Float64Array {
  const out = new Float64Array(classes);
  if (probabilities) {
    for (let c = 0; c < classes; c++) out[c] = Math.log(Math.max(values[base + c]!, 1e-12));
    return out;
  }
  let peak = -Infinity;
  for (let c = 0; c < classes; c++) peak = Math.max(peak, values[base + c]!);
  let sum = 0;
  for (let c = 0; c < classes; c++) sum += Math.exp(values[base + c]! - peak);
  const shift = peak + Math.log(sum);
  for (let c = 0; c < classes; c++) out[c] = values[base + c]! - shift;
  return out;
}

/** ||changed - reference||^2 / ||reference||^2 over all outputs of floating type. */
export function relativeError(
  names: readonly string[],
  reference: Record<string, HostTensor>,
  changed: Record<string, HostTensor>,
): number {
  let error = 0;
  let energy = 0;
  for (const name of names) {
    const a = reference[name]!.data;
    const b = changed[name]!.data;
    if (!(a instanceof Float32Array) || !(b instanceof Float32Array)) continue;
    for (let i = 0; i < a.length; i++) {
      error += (b[i]! - a[i]!) ** 2;
      energy += a[i]! ** 2;
    }
  }
  return energy > 0 ? error / energy : 0;
}
