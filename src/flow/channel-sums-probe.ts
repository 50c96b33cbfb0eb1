/** Gathers what a channel map is fitted on: second moments of the two tensors of a flow step, over all positions. */
import { create } from '@bufbuild/protobuf';
import { TensorProto_DataType as DataType, TypeProtoSchema, ValueInfoProtoSchema } from 'onnx-buf';
import type { Batch } from '../data/dataset.js';
import { Value, type Graph } from '../onnx/graph.js';
import { reduce, reshape, transpose, unsqueeze } from '../onnx/ops.js';
import type { HostTensor } from '../runtime/engine.js';
import type { Probe } from '../runtime/probe.js';
import type { FlowStep } from './change-plan.js';
import { emptyChannelSums, type ChannelSums } from './channel-map.js';
import { aligned } from './path-tensor.js';
import { batchRows } from './sample-axis.js';

export interface ChannelSumsProbe extends Probe {
  result(): ChannelSums;
}

/**
 * @param maskName input that says which rows of a batch count (see {@link withSampleMask}): sums run across samples, so
 *   padding must be taken out before them.
 */
export function channelSumsProbe(step: FlowStep, maskName: string): ChannelSumsProbe {
  const sums = emptyChannelSums(step.from.channels, step.to.channels);
  let positions = 0;
  return {
    attach({ graph }) {
      const tensors = aligned(graph, step);
      ({ positions } = tensors);
      const mask = unsqueeze(graph, sampleMask(graph, maskName), [1, 2]);
      // [N, C, positions] -> [C, N * positions]
      const [x, y] = [tensors.from, tensors.to].map((value, i) =>
        reshape(graph, transpose(graph, graph.insertOp('Mul', [value, mask]), [1, 0, 2]), [
          (i === 0 ? step.from : step.to).channels,
          -1,
        ]),
      ) as [Value, Value];
      const transposed = transpose(graph, x, [1, 0]);
      return [
        graph.insertOp('MatMul', [x, transposed]),
        graph.insertOp('MatMul', [y, transposed]),
        reduce(graph, 'ReduceSum', x, [1]),
        reduce(graph, 'ReduceSum', y, [1]),
      ];
    },
    update([gram, cross, sumX, sumY]: HostTensor[], batch) {
      accumulate(sums.gram, gram!);
      accumulate(sums.cross, cross!);
      accumulate(sums.sumX, sumX!);
      accumulate(sums.sumY, sumY!);
      sums.count += batch.size * positions;
    },
    result: () => sums,
  };
}

function accumulate(sum: Float64Array, { data }: HostTensor): void {
  if (!(data instanceof Float32Array)) return;
  for (let i = 0; i < sum.length; i++) sum[i]! += data[i]!;
}

/** The mask input of a graph: float32 [N], 1 for a sample and 0 for padding. */
function sampleMask(graph: Graph, name: string): Value {
  const existing = graph.inputs.find((value) => value.name === name);
  if (existing) return existing;
  const value = new Value(name);
  const dim = [{ value: { case: 'dimParam' as const, value: name } }];
  const type = create(TypeProtoSchema, {
    value: { case: 'tensorType', value: { elemType: DataType.FLOAT, shape: { dim } } },
  });
  value.info = create(ValueInfoProtoSchema, { name, type });
  graph.inputs.push(value);
  return value;
}

/** The same batches, each with the mask of its real samples among its feeds. */
export async function* withSampleMask(batches: AsyncIterable<Batch>, name: string): AsyncGenerator<Batch> {
  for await (const batch of batches) {
    const rows = batchRows(batch);
    const data = new Float32Array(rows).fill(1, 0, batch.size);
    yield { ...batch, feeds: { ...batch.feeds, [name]: { type: 'float32', dims: [rows], data } } };
  }
}
