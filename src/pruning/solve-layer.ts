/** The weights and bias with which a layer comes nearest to targets, from moments of its input and of the targets. */
import { solveCholesky } from '../linalg/cholesky.js';
import { heldCholesky } from '../linalg/held-cholesky.js';
import type { Graph } from '../onnx/graph.js';
import { weightMatrix, type WeightLayer } from '../onnx/layers.js';

/** Means over rows of inputs x and targets y. */
export interface TargetMoments {
  /** Row-major [cols, cols]: x x^T. */
  readonly xx: Float64Array;
  /** Row-major [cols, channels]: x y^T. */
  readonly xy: Float64Array;
  readonly x: Float64Array;
  readonly y: Float64Array;
}

/** Row-major [channels, cols], and [channels]. */
export interface LayerWeights {
  readonly weights: Float32Array;
  readonly bias: Float32Array;
}

/** Share of the mean variance of a column by which the weights are held where they are. */
const DAMPING = 1e-3;

/**
 * The W and b that minimize E|W x + b - y|^2 + d |W - W0|^2, with W0 the weights of the layer:
 * W = (cov(y, x) + d W0) (cov(x, x) + d I)^-1 and b = E y - W E x.
 */
export function solveLayer(graph: Graph, layer: WeightLayer, { xx, xy, x, y }: TargetMoments): LayerWeights {
  const { cols, channels } = layer;
  const prior = weightMatrix(graph, layer);
  const system = new Float64Array(cols * cols);
  let trace = 0;
  for (let i = 0; i < cols; i++) {
    for (let j = 0; j <= i; j++) system[i * cols + j] = xx[i * cols + j]! - x[i]! * x[j]!;
    trace += system[i * cols + i]!;
  }
  // A layer whose input never changes keeps its weights.
  const { factor, hold } = heldCholesky(system, cols, trace > 0 ? (DAMPING * trace) / cols : 1);
  const weights = new Float32Array(channels * cols);
  const bias = new Float32Array(channels);
  for (let row = 0; row < channels; row++) {
    const right = Float64Array.from(
      { length: cols },
      (_, i) => xy[i * channels + row]! - x[i]! * y[row]! + hold * prior[row * cols + i]!,
    );
    solveCholesky(factor, cols, right);
    let shift = y[row]!;
    for (let i = 0; i < cols; i++) {
      weights[row * cols + i] = right[i]!;
      shift -= right[i]! * x[i]!;
    }
    bias[row] = shift;
  }
  return { weights, bias };
}
