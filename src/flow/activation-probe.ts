/** Range and histogram of one activation, reduced inside the engine as far as operators reach. */
import type { Value } from '../onnx/graph.js';
import { reduce, reshape, slice } from '../onnx/ops.js';
import type { HostTensor } from '../runtime/engine.js';
import type { Probe } from '../runtime/probe.js';
import { addToHistogram, emptyHistogram, type Histogram } from './histogram.js';

/** Smallest and largest value seen. */
export interface Range {
  readonly min: number;
  readonly max: number;
}

export interface RangeProbe extends Probe {
  result(): Range;
}

/** Exact minimum and maximum of a value over all samples; 0 is always inside. */
export function rangeProbe(name: string): RangeProbe {
  let min = 0;
  let max = 0;
  return {
    attach({ graph, shapes }) {
      const value = graph.mustGet(name);
      // Pooling over positions stays in the engine's blocked layout, which a plain reduction would have to leave.
      const pooled = shapes.get(name)?.dims.length === 4 ? graph.insertOp('GlobalMaxPool', [value]) : value;
      const high = reduce(graph, 'ReduceMax', pooled);
      return isNonNegative(value) ? [high] : [high, reduce(graph, 'ReduceMin', value)];
    },
    update([high, low]: HostTensor[]) {
      max = Math.max(max, (high!.data as Float32Array)[0]!);
      if (low) min = Math.min(min, (low.data as Float32Array)[0]!);
    },
    result: () => ({ min, max }),
  };
}

const REARRANGING = new Set(['Reshape', 'Flatten', 'Squeeze', 'Unsqueeze', 'Transpose', 'Identity']);

/** The value with the same elements as this one, in another order or shape, that is computed first: one range serves both. */
export function sameElements(value: Value): Value {
  const node = value.producer;
  const source = node?.domain === '' && REARRANGING.has(node.opType) ? node.inputs[0] : undefined;
  return source ? sameElements(source) : value;
}

/** True for values that cannot be below 0: the smallest need not be looked for. */
function isNonNegative(value: Value): boolean {
  const node = value.producer;
  if (!node) return false;
  if (node.is('Relu') || node.is('Sigmoid') || node.is('Softmax')) return true;
  const passes = ['GlobalAveragePool', 'AveragePool', 'MaxPool', 'Flatten', 'Reshape', 'Transpose'].some((op) =>
    node.is(op),
  );
  return passes && node.inputs[0] !== undefined && isNonNegative(node.inputs[0]);
}

export interface HistogramProbe extends Probe {
  result(): Histogram;
}

/** Histogram of a strided sample of at most about `perSample` elements of each sample. */
export function histogramProbe(name: string, perSample: number): HistogramProbe {
  const histogram = emptyHistogram();
  return {
    attach({ graph, shapes }) {
      const value = graph.mustGet(name);
      const size = (shapes.get(name)?.dims ?? []).reduce((a, b) => a * b, 1);
      const step = oddStep(Math.floor(size / perSample));
      if (step === 1) return [value];
      const flat = reshape(graph, value, [-1]);
      return [slice(graph, flat, [0], [0], [2 ** 31 - 1], [step])];
    },
    update([sample]: HostTensor[]) {
      const values = sample!.data as Float32Array;
      let min = Infinity;
      let max = -Infinity;
      for (let i = 0; i < values.length; i++) {
        const v = values[i]!;
        if (v < min) min = v;
        if (v > max) max = v;
      }
      if (min <= max && Number.isFinite(min) && Number.isFinite(max)) addToHistogram(histogram, values, min, max);
    },
    result: () => histogram,
  };
}

/** An odd stride shares no factor with power-of-two rows, so that all columns are visited. */
function oddStep(step: number): number {
  return step <= 1 ? 1 : step % 2 === 0 ? step + 1 : step;
}
