/**
 * The order in which channels go when each is judged after least squares on those that are left: with H the covariance of a
 * reader's input, W its weights and P the columns of a channel, the reader loses trace(W_P ([H^-1]_PP)^-1 W_P^T). After each
 * one, W and H^-1 are those of the remaining channels (Optimal Brain Surgeon, for sets of columns).
 */
import type { Gram } from '../flow/gram-probe.js';
import { choleskyInverse, inverseOfFactor } from '../linalg/cholesky-inverse.js';
import { heldCholesky } from '../linalg/held-cholesky.js';

/** A layer that reads the units. */
export interface Reader {
  /** Row-major [rows, cols]. */
  readonly weights: Float32Array;
  readonly rows: number;
  readonly gram: Gram;
  /** Columns of each unit, by its place. */
  readonly columns: readonly (readonly number[])[];
}

/** Share of the mean variance of a column that is added to every one. */
const DAMPING = 1e-3;
/** Multiply-accumulates that the order of one group may take. */
const EFFORT = 2e10;

/** Whether the order is found within seconds. */
export function canEliminate(readers: readonly Reader[]): boolean {
  const work = readers.reduce((sum, { gram: { cols }, columns }) => {
    const all = columns.reduce((count, own) => count + own.length, 0);
    const squares = columns.reduce((total, own) => total + own.length ** 2, 0);
    return sum + cols ** 3 + all * cols ** 2 + columns.length * squares * cols;
  }, 0);
  return readers.length > 0 && work <= EFFORT;
}

/** Places of all units, the first to go first. */
export function eliminationOrder(readers: readonly Reader[], units: number): number[] {
  const states = readers.map((reader) => new ReaderState(reader));
  const left = new Set(Array.from({ length: units }, (_, unit) => unit));
  const order: number[] = [];
  while (left.size > 1) {
    let [least, next] = [Infinity, -1];
    for (const unit of left) {
      const loss = states.reduce((sum, state) => sum + state.loss(unit), 0);
      if (loss < least || next < 0) [least, next] = [loss, unit];
    }
    for (const state of states) state.remove(next);
    left.delete(next);
    order.push(next);
  }
  return [...order, ...left];
}

class ReaderState {
  private readonly inverse: Float64Array;
  private readonly weights: Float64Array;
  /** Of the output, which makes readers comparable. */
  private readonly variance: number;

  constructor(private readonly reader: Reader) {
    const { gram, rows } = reader;
    const { cols, data, mean } = gram;
    const h = new Float64Array(cols * cols);
    let trace = 0;
    for (let i = 0; i < cols; i++) {
      for (let j = 0; j < cols; j++) h[i * cols + j] = data[i * cols + j]! - mean[i]! * mean[j]!;
      trace += h[i * cols + i]!;
    }
    this.weights = Float64Array.from(reader.weights);
    this.variance = energyOf(this.weights, h, rows, cols);
    const { factor } = heldCholesky(h, cols, trace > 0 ? (DAMPING * trace) / cols : 1);
    this.inverse = inverseOfFactor(factor, cols);
  }

  /** What the output's variance loses with the unit, as a share of it. */
  loss(unit: number): number {
    const { rows, gram, columns } = this.reader;
    const own = columns[unit]!;
    if (own.length === 0 || this.variance <= 0) return 0;
    const inner = this.innerInverse(own);
    let loss = 0;
    for (let row = 0; row < rows; row++) {
      const at = row * gram.cols;
      own.forEach((i, a) => {
        let sum = 0;
        own.forEach((j, b) => (sum += inner[a * own.length + b]! * this.weights[at + j]!));
        loss += sum * this.weights[at + i]!;
      });
    }
    return loss / this.variance;
  }

  /** ([H^-1]_PP)^-1. */
  private innerInverse(own: readonly number[]): Float64Array {
    const { cols } = this.reader.gram;
    const block = Float64Array.from(
      { length: own.length ** 2 },
      (_, at) => this.inverse[own[Math.floor(at / own.length)]! * cols + own[at % own.length]!]!,
    );
    return choleskyInverse(block, own.length);
  }

  remove(unit: number): void {
    const { gram, rows, columns } = this.reader;
    const { cols } = gram;
    const { inverse, weights } = this;
    const own = columns[unit]!;
    if (own.length === 0) return;
    const inner = this.innerInverse(own);
    // ([H^-1]_PP)^-1 [H^-1]_P:
    const solved = new Float64Array(own.length * cols);
    for (let a = 0; a < own.length; a++)
      for (let b = 0; b < own.length; b++) {
        const factor = inner[a * own.length + b]!;
        const from = own[b]! * cols;
        for (let j = 0; j < cols; j++) solved[a * cols + j]! += factor * inverse[from + j]!;
      }
    const subtract = (target: Float64Array, count: number): void => {
      const factors = new Float64Array(own.length);
      for (let row = 0; row < count; row++) {
        own.forEach((i, a) => (factors[a] = target[row * cols + i]!));
        for (let a = 0; a < own.length; a++) {
          const factor = factors[a]!;
          if (factor === 0) continue;
          for (let j = 0; j < cols; j++) target[row * cols + j]! -= factor * solved[a * cols + j]!;
        }
      }
    };
    subtract(weights, rows);
    subtract(inverse, cols);
    // What is left of rounding must not come back; what is gone stays invertible.
    for (const i of own) {
      for (let j = 0; j < cols; j++) inverse[i * cols + j] = inverse[j * cols + i] = 0;
      inverse[i * cols + i] = 1;
      for (let row = 0; row < rows; row++) weights[row * cols + i] = 0;
    }
  }
}

/** trace(W H W^T). */
function energyOf(weights: Float64Array, h: Float64Array, rows: number, cols: number): number {
  let energy = 0;
  for (let row = 0; row < rows; row++) {
    for (let i = 0; i < cols; i++) {
      let sum = 0;
      for (let j = 0; j < cols; j++) sum += h[i * cols + j]! * weights[row * cols + j]!;
      energy += weights[row * cols + i]! * sum;
    }
  }
  return energy;
}
