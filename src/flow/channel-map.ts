/** Ridge regression of one tensor's channels on another's, from sums that a stream of samples was reduced to. */
import { solveCholesky } from '../linalg/cholesky.js';
import { heldCholesky } from '../linalg/held-cholesky.js';

/** Sums over `count` positions x [inputs] and y [outputs]. */
export interface ChannelSums {
  readonly inputs: number;
  readonly outputs: number;
  /** [inputs, inputs]: sum of x x^T. */
  readonly gram: Float64Array;
  /** [outputs, inputs]: sum of y x^T. */
  readonly cross: Float64Array;
  readonly sumX: Float64Array;
  readonly sumY: Float64Array;
  count: number;
}

/** y ~ matrix x + bias. */
export interface ChannelMap {
  /** [outputs, inputs]. */
  readonly matrix: Float32Array;
  readonly bias: Float32Array;
}

/** Positions per input channel below which a map would rather memorise the samples than describe the step. */
const MIN_POSITIONS_PER_INPUT = 4;

/** Weight of ||matrix||^2 beside the mean squared error, relative to the mean variance of the inputs. */
const RIDGE = 1e-3;

export function emptyChannelSums(inputs: number, outputs: number): ChannelSums {
  return {
    inputs,
    outputs,
    gram: new Float64Array(inputs * inputs),
    cross: new Float64Array(outputs * inputs),
    sumX: new Float64Array(inputs),
    sumY: new Float64Array(outputs),
    count: 0,
  };
}

/** Whether enough positions were seen to fit a map. */
export function isDetermined(sums: ChannelSums): boolean {
  return sums.count >= MIN_POSITIONS_PER_INPUT * sums.inputs;
}

/** The sums of some of the channels alone. @param inputs, outputs which, ascending */
export function sumsBetween(sums: ChannelSums, inputs: readonly number[], outputs: readonly number[]): ChannelSums {
  const part = (of: Float64Array, rows: readonly number[]): Float64Array =>
    Float64Array.from(rows.flatMap((row) => inputs.map((column) => of[row * sums.inputs + column]!)));
  return {
    ...{ inputs: inputs.length, outputs: outputs.length, count: sums.count },
    ...{ gram: part(sums.gram, inputs), cross: part(sums.cross, outputs) },
    sumX: Float64Array.from(inputs, (channel) => sums.sumX[channel]!),
    sumY: Float64Array.from(outputs, (channel) => sums.sumY[channel]!),
  };
}

/**
 * The P and b that minimise E||y - P x - b||^2 + lam ||P||^2, lam = 1e-3 x mean variance of x: P on centred channels, b the
 * difference of means. Equal scaling of x and y leaves P as it is.
 */
export function solveChannelMap(sums: ChannelSums): ChannelMap {
  const { inputs, outputs, count } = sums;
  const meanX = sums.sumX.map((v) => v / count);
  const meanY = sums.sumY.map((v) => v / count);
  const gram = new Float64Array(inputs * inputs);
  let trace = 0;
  for (let i = 0; i < inputs; i++) {
    for (let j = 0; j < inputs; j++) gram[i * inputs + j] = sums.gram[i * inputs + j]! / count - meanX[i]! * meanX[j]!;
    trace += Math.max(0, gram[i * inputs + i]!);
  }
  const matrix = new Float32Array(outputs * inputs);
  const bias = new Float32Array(outputs);
  // Inputs that never vary say nothing about the outputs: only the means are left.
  if (trace > 0) {
    const { factor } = heldCholesky(gram, inputs, (RIDGE * trace) / inputs);
    const row = new Float64Array(inputs);
    for (let o = 0; o < outputs; o++) {
      for (let i = 0; i < inputs; i++) row[i] = sums.cross[o * inputs + i]! / count - meanY[o]! * meanX[i]!;
      solveCholesky(factor, inputs, row);
      matrix.set(row, o * inputs);
    }
  }
  for (let o = 0; o < outputs; o++) {
    let mapped = 0;
    for (let i = 0; i < inputs; i++) mapped += matrix[o * inputs + i]! * meanX[i]!;
    bias[o] = meanY[o]! - mapped;
  }
  return { matrix, bias };
}
