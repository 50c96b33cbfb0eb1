/** Which weights are removed one by one: those of least magnitude, of all layers together or of each by itself. */
import { FlowCompressError } from '../errors.js';
import type { Graph } from '../onnx/graph.js';
import { findLayers } from '../onnx/layers.js';
import { edgeLayers } from '../quantization/floors.js';
import { rootMeanSquare } from '../recovery/learned.js';
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
  refuseShare(sparsity);
  if (scope === 'local') return localMasks(weights, new Map([...weights.keys()].map((name) => [name, sparsity])));
  const all = maskOf(magnitudes([...weights.values()], measure), sparsity);
  let at = 0;
  return new Map([...weights].map(([name, w]) => [name, all.slice(at, (at += w.length))]));
}

/** As `magnitudeMasks`, with a sparsity for each tensor. @throws FlowCompressError `bad-input` for one not in [0, 1] */
export function localMasks(weights: WeightsByTensor, sparsities: ReadonlyMap<string, number>): Map<string, Uint8Array> {
  return new Map([...weights].map(([name, w]) => [name, maskOf(magnitudes([w], 'plain'), sparsities.get(name)!)]));
}

/**
 * Sparsities of tensors whose shares of weights left are in proportion to sum(dims) / product(dims), at most 1, so that together
 * they have the given sparsity: the Erdos-Renyi kernel distribution (Evci et al. 2020), which leaves more to small layers.
 * @throws FlowCompressError `bad-input` for a sparsity that is not in [0, 1)
 */
export function kernelSparsities(
  tensors: ReadonlyMap<string, readonly number[]>,
  sparsity: number,
): Map<string, number> {
  refuseShare(sparsity);
  const parts = [...tensors].map(([name, dims]) => {
    const count = dims.reduce((a, b) => a * b, 1);
    return { name, count, odds: dims.reduce((a, b) => a + b, 0) / count };
  });
  // The smallest layers are full first: the more of them are, the more is left to the others.
  const byOdds = parts.sort((a, b) => b.odds - a.odds);
  let left = (1 - sparsity) * parts.reduce((sum, { count }) => sum + count, 0);
  let rest = byOdds.reduce((sum, { count, odds }) => sum + count * odds, 0);
  const found = new Map<string, number>();
  for (const { name, count, odds } of byOdds) {
    const share = Math.min(1, (left / rest) * odds);
    found.set(name, 1 - share);
    if (share < 1) continue;
    left -= count;
    rest -= count * odds;
  }
  return new Map([...tensors.keys()].map((name) => [name, found.get(name)!]));
}

function refuseShare(sparsity: number): void {
  if (sparsity >= 0 && sparsity < 1) return;
  throw new FlowCompressError('bad-input', `A sparsity of ${String(sparsity)} is not in [0, 1).`, {
    hint: 'Give the share of the weights that are removed: 0.9 for nine of ten.',
  });
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
