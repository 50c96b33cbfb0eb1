/** Brings the two tensors of a flow step to one layout inside the engine, and their difference behind a channel map. */
import { TensorProto_DataType as DataType } from 'onnx-buf';
import { intsAttribute, stringAttribute } from '../onnx/attributes.js';
import type { Graph, Value } from '../onnx/graph.js';
import { constantOf, reshape, transpose } from '../onnx/ops.js';
import { makeTensor } from '../onnx/tensor.js';
import type { FlowStep, PathTensor } from './change-plan.js';
import type { ChannelMap } from './channel-map.js';

/** The two tensors as [N, channels, positions], the first one on the grid of the second. */
export function aligned(graph: Graph, step: FlowStep): { from: Value; to: Value; positions: number } {
  const positions = step.to.grid.reduce((a, b) => a * b, 1);
  const from = toGrid(graph, channelsFirst(graph, step.from), step.from.grid, step.to.grid);
  return {
    from: reshape(graph, from, [-1, step.from.channels, positions]),
    to: reshape(graph, channelsFirst(graph, step.to), [-1, step.to.channels, positions]),
    positions,
  };
}

/** T_l - (P T_{l-1} + b): [N, channels, positions]; `dims` without N. */
export function mapped(graph: Graph, step: FlowStep, map: ChannelMap): { difference: Value; dims: readonly number[] } {
  const { from, to, positions } = aligned(graph, step);
  const { channels } = step.to;
  const constant = (dims: readonly number[], data: Float32Array): Value =>
    graph.addInitializer(makeTensor(graph.uniqueName(`${step.to.name}_map`), DataType.FLOAT, dims, data));
  const product = graph.insertOp('MatMul', [constant([channels, step.from.channels], map.matrix), from]);
  const predicted = graph.insertOp('Add', [product, constant([channels, 1], map.bias)]);
  return { difference: graph.insertOp('Sub', [to, predicted]), dims: [channels, positions] };
}

function channelsFirst(graph: Graph, tensor: PathTensor): Value {
  const value = graph.mustGet(tensor.name);
  if (tensor.axis === 1) return value;
  const rest = tensor.grid.map((_, i) => i + 1);
  return transpose(graph, value, [0, tensor.axis, ...rest]);
}

/** Average pooling down, or repetition up, of [N, C, ...grid]. */
export function toGrid(graph: Graph, value: Value, from: readonly number[], to: readonly number[]): Value {
  if (from.every((n, i) => n === to[i])) return value;
  if (from.every((n, i) => n >= to[i]!)) {
    // These strides and kernels give exactly the wanted grid and leave no element out.
    const strides = from.map((n, i) => Math.floor(n / to[i]!));
    const kernel = from.map((n, i) => n - (to[i]! - 1) * strides[i]!);
    return graph.insertOp(
      'AveragePool',
      [value],
      [intsAttribute('kernel_shape', kernel), intsAttribute('strides', strides)],
    );
  }
  const scales = constantOf(graph, [1, 1, ...from.map((n, i) => to[i]! / n)], 'float32');
  return graph.insertOp(
    'Resize',
    [value, undefined, scales],
    [
      stringAttribute('mode', 'nearest'),
      stringAttribute('coordinate_transformation_mode', 'asymmetric'),
      stringAttribute('nearest_mode', 'floor'),
    ],
  );
}
