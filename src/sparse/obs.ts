/**
 * Optimal Brain Surgeon on single layers: removes weights one by one so that the layer's output on its calibration inputs
 * changes least, and lets the other weights of the row make up for what they can (Optimal Brain Compression, Frantar and
 * Alistarh 2022, the exact unstructured form).
 *
 * Objective: sum over rows of (w - w0)^T H (w - w0), H = E[x x^T], damped. In a row, removing weight p costs w_p^2 / [H^-1]_pp
 * when the others move by -w_p / [H^-1]_pp H^-1[:, p]; then row and column p leave H^-1 by one step of elimination. Each row
 * is gone through to its end; the layer takes the cheapest removals of all rows. O(rows cols^3) operations (kernels/surgeon.ts).
 */
import type { Gram } from '../flow/gram-probe.js';
import { cholesky, solveCholesky } from '../linalg/cholesky.js';
import { choleskyInverse } from '../linalg/cholesky-inverse.js';
import { kernelArrays } from '../linalg/kernels.js';
import type { WeightLayer } from '../onnx/layers.js';
import { magnitudeMasks } from './magnitude.js';

type LayerShape = Pick<WeightLayer, 'rows' | 'cols' | 'groups'>;

/** Share of the mean of H's diagonal that is added to it. */
const DAMPING = 0.01;

export interface PrunedMatrix {
  /** [rows, cols], 0 where a weight was removed. */
  readonly weights: Float32Array;
  /** Expected squared error of the layer's output, summed over rows: sum (w - w0)^T E[x x^T] (w - w0). */
  readonly error: number;
}

/**
 * Removes round(sparsity * rows * cols) weights. The weights that magnitude would keep are tried too, refitted alike: the error
 * is never above that of removing by magnitude, with or without a refit.
 * @param weights [rows, cols] matrix of the layer
 * @throws FlowCompressError `bad-input` for a sparsity that is not in [0, 1)
 */
export function obsPrune(layer: LayerShape, weights: Float32Array, gram: Gram, sparsity: number): PrunedMatrix {
  const name = 'layer';
  const options = { scope: 'local', measure: 'plain' } as const;
  const magnitude = magnitudeMasks(new Map([[name, weights]]), sparsity, options).get(name)!;
  const masks = [surgeonMask(layer, weights, gram, Math.round(sparsity * weights.length)), magnitude];
  const [first, second] = masks.map((mask): PrunedMatrix => {
    const fitted = refit(layer, weights, gram, mask);
    return { weights: fitted, error: outputError(layer, weights, fitted, gram) };
  });
  return first!.error <= second!.error ? first! : second!;
}

/**
 * The weights that a mask leaves, moved to where the layer's output changes least: per row the least squares solution on
 * its support, H_SS w_S = (H w0)_S.
 * @param mask [rows, cols], 1 for a weight that stays
 */
export function refit(layer: LayerShape, weights: Float32Array, gram: Gram, mask: Uint8Array): Float32Array {
  const { cols } = layer;
  const out = new Float32Array(weights.length);
  forEachGroup(layer, gram, (h, first, end) => {
    for (let row = first; row < end; row++) {
      const support: number[] = [];
      for (let i = 0; i < cols; i++) if (mask[row * cols + i] === 1) support.push(i);
      const n = support.length;
      if (n === 0) continue;
      const own = weights.subarray(row * cols, (row + 1) * cols);
      const part = new Float64Array(n * n);
      const target = new Float64Array(n);
      support.forEach((i, a) => {
        for (let b = 0; b <= a; b++) part[a * n + b] = h[i * cols + support[b]!]!;
        for (let j = 0; j < cols; j++) target[a]! += h[i * cols + j]! * own[j]!;
      });
      solveCholesky(cholesky(part, n), n, target);
      support.forEach((i, a) => (out[row * cols + i] = target[a]!));
    }
  });
  return out;
}

/** sum over rows of (a - b)^T E[x x^T] (a - b), for matrices [rows, cols]. */
export function outputError({ rows, cols, groups }: LayerShape, a: Float32Array, b: Float32Array, gram: Gram): number {
  let total = 0;
  const d = new Float64Array(cols);
  for (let row = 0; row < rows; row++) {
    const block = Math.floor((row * groups) / rows) * cols * cols;
    for (let i = 0; i < cols; i++) d[i] = a[row * cols + i]! - b[row * cols + i]!;
    for (let i = 0; i < cols; i++) {
      if (d[i] === 0) continue;
      let product = 0;
      for (let j = 0; j < cols; j++) product += gram.data[block + i * cols + j]! * d[j]!;
      total += d[i]! * product;
    }
  }
  return total;
}

/** Calls `visit` with the damped H [cols, cols] of each group and its range of rows. */
function forEachGroup(
  { rows, cols, groups }: LayerShape,
  gram: Gram,
  visit: (h: Float64Array, first: number, end: number) => void,
): void {
  const perGroup = rows / groups;
  for (let group = 0; group < groups; group++) {
    const h = gram.data.slice(group * cols * cols, (group + 1) * cols * cols);
    let trace = 0;
    for (let i = 0; i < cols; i++) trace += h[i * cols + i]!;
    const add = Math.max((DAMPING * trace) / cols, 1e-12);
    for (let i = 0; i < cols; i++) h[i * cols + i]! += add;
    visit(h, group * perGroup, (group + 1) * perGroup);
  }
}

/** The mask [rows, cols] without the `count` cheapest removals of all rows, each after those before it in its row. */
function surgeonMask(layer: LayerShape, weights: Float32Array, gram: Gram, count: number): Uint8Array {
  const { cols } = layer;
  const order = new Int32Array(weights.length);
  const costs = new Float64Array(weights.length);
  forEachGroup(layer, gram, (h, first, end) => {
    const inverse = choleskyInverse(h, cols);
    const { kernels, float64 } = kernelArrays((cols + 5) * cols * 8 + 1024);
    const vector = (): Float64Array => float64(cols);
    const [a, w, room, index, removed, added] = [
      float64(cols * cols),
      vector(),
      vector(),
      vector(),
      vector(),
      vector(),
    ];
    for (let row = first; row < end; row++) {
      const from = row * cols;
      a.set(inverse);
      w.set(weights.subarray(from, from + cols));
      for (let i = 0; i < cols; i++) index[i] = i;
      kernels.removeWeights(
        ...([cols, a.byteOffset, w.byteOffset, room.byteOffset, index.byteOffset, removed.byteOffset] as const),
        added.byteOffset,
      );
      order.set(removed, from);
      // A removal is reached when all before it in its row were made.
      let most = 0;
      for (let k = 0; k < cols; k++) costs[from + k] = most = Math.max(most, added[k]!);
    }
  });
  const mask = new Uint8Array(weights.length).fill(1);
  const threshold = costs.slice().sort()[count - 1] ?? -Infinity;
  const remove = (k: number): void => {
    mask[k - (k % cols) + order[k]!] = 0;
  };
  let left = count;
  costs.forEach((cost, k) => {
    if (cost >= threshold) return;
    remove(k);
    left--;
  });
  for (let k = 0; left > 0; k++) {
    if (costs[k] !== threshold) continue;
    remove(k);
    left--;
  }
  return mask;
}
