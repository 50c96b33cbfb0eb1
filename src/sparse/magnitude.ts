/** Which weights are removed one by one: those of least magnitude, of all layers together or of each by itself. */
import { FlowCompressError } from '../errors.js';
import type { Graph } from '../onnx/graph.js';
import { findLayers } from '../onnx/layers.js';
import { edgeLayers } from '../quantization/floors.js';
import { rootMeanSquare } from '../quantization/recover/learned.js';
import { weightUnits, type WeightUnit } from '../quantization/units.js';

export interface MagnitudeOptions {
  /** `global`: one threshold for all layers; `local`: the same share of every layer. */
  readonly scope: 'global' | 'local';
  /** What a global threshold is compared with: magnitudes, or magnitudes over the root mean square of their layer. */
  readonly measure: 'plain' | 'rms';
}

/** By name of the weight tensor. */
export type WeightsByTensor = ReadonlyMap<string, Float32Array>;
/** 1 for a weight that stays, 0 for one that goes, in the order of the weights that they were chosen for. */
export type Masks = ReadonlyMap<string, Uint8Array>;

/**
 * Weight tensors whose weights may be removed: those of all layers but embeddings, and, unless asked for, the first and
 * last layers, which hold few weights and hurt most.
 */
export function sparsifiable(graph: Graph, { edges = false }: { readonly edges?: boolean } = {}): WeightUnit[] {
  const layers = findLayers(graph);
  const names = (values: typeof graph.inputs): Set<string> => new Set(values.map(({ name }) => name));
  const kept = edges ? new Set<string>() : edgeLayers(layers, names(graph.inputs), names(graph.outputs));
  return weightUnits(layers).filter(({ readers }) =>
    readers.every(({ op, name }) => op !== 'Gather' && !kept.has(name)),
  );
}

/**
 * Removes round(sparsity * weights) of them, exactly; of equal ones the first. Weights that are 0 go first, so that masks of a
 * growing sparsity are nested when removed weights are set to 0.
 * @param sparsity share of the weights that go, of all layers or of each, in [0, 1)
 * @throws FlowCompressError `bad-input` for another sparsity
 */
export function magnitudeMasks(
  weights: WeightsByTensor,
  sparsity: number,
  { scope, measure }: MagnitudeOptions,
): Map<string, Uint8Array> {
  if (!(sparsity >= 0 && sparsity < 1))
    throw new FlowCompressError('bad-input', `A sparsity of ${String(sparsity)} is not in [0, 1).`, {
      hint: 'Give the share of the weights that are removed: 0.9 for nine of ten.',
    });
  if (scope === 'local')
    return new Map([...weights].map(([name, w]) => [name, maskOf(magnitudes([w], 'plain'), sparsity)]));
  const all = maskOf(magnitudes([...weights.values()], measure), sparsity);
  let at = 0;
  return new Map([...weights].map(([name, w]) => [name, all.slice(at, (at += w.length))]));
}

/**
 * Sparsity after update t of T when it rises from s0 to sf: s_f + (s_0 - s_f)(1 - t/T)^3 (Zhu and Gupta 2017).
 * @param t beyond T the sparsity stays
 */
export function cubicSparsity(t: number, total: number, first: number, last: number): number {
  const rest = total > 0 ? 1 - Math.min(Math.max(t / total, 0), 1) : 0;
  return last + (first - last) * rest ** 3;
}

function magnitudes(tensors: readonly Float32Array[], measure: MagnitudeOptions['measure']): Float32Array {
  const scores = new Float32Array(tensors.reduce((sum, w) => sum + w.length, 0));
  let at = 0;
  for (const w of tensors) {
    const unit = (measure === 'rms' && rootMeanSquare(w)) || 1;
    for (const value of w) scores[at++] = Math.abs(value) / unit;
  }
  return scores;
}

function maskOf(scores: Float32Array, sparsity: number): Uint8Array {
  const mask = new Uint8Array(scores.length).fill(1);
  let left = Math.round(sparsity * scores.length);
  if (left === 0) return mask;
  const threshold = scores.slice().sort()[left - 1]!;
  scores.forEach((score, i) => {
    if (score >= threshold) return;
    mask[i] = 0;
    left--;
  });
  for (let i = 0; left > 0; i++) {
    if (scores[i] !== threshold) continue;
    mask[i] = 0;
    left--;
  }
  return mask;
}
