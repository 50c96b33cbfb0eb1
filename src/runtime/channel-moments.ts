/** Mean and variance of every channel of a value, over samples and positions. */
import { reduce } from '../onnx/ops.js';
import type { HostTensor } from './engine.js';
import type { Probe } from './probe.js';
import type { TracedValues } from './trace.js';

export interface ChannelMoments {
  readonly mean: Float64Array;
  readonly variance: Float64Array;
}

export interface MomentsProbe extends Probe {
  result(): ChannelMoments;
}

/** @param name of a value [N, C, ...] whose dims `shapes` holds */
export function channelMomentsProbe(name: string, shapes: TracedValues): MomentsProbe {
  const { dims } = shapes.get(name)!;
  const channels = dims[1]!;
  const axes = channelReduction(dims.length);
  const sums = new Float64Array(channels);
  const squares = new Float64Array(channels);
  let count = 0;
  const add = (total: Float64Array, { data }: HostTensor, size: number): void => {
    for (let c = 0; c < channels; c++) total[c]! += size * (data as Float32Array)[c]!;
  };
  return {
    attach({ graph }) {
      const value = graph.mustGet(name);
      return [
        reduce(graph, 'ReduceMean', value, axes),
        reduce(graph, 'ReduceMean', graph.insertOp('Mul', [value, value]), axes),
      ];
    },
    update([mean, square]: HostTensor[], { size }) {
      add(sums, mean!, size);
      add(squares, square!, size);
      count += size;
    },
    result() {
      const mean = sums.map((sum) => sum / count);
      return { mean, variance: squares.map((sum, c) => Math.max(sum / count - mean[c]! ** 2, 0)) };
    },
  };
}

/** All axes but that of the channels. */
export function channelReduction(rank: number): number[] {
  return Array.from({ length: rank }, (_, axis) => axis).filter((axis) => axis !== 1);
}
