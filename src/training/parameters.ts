/** The tensors of a model that learn, laid end to end in one vector. */
import type { ModelProto } from 'onnx-buf';
import { FlowCompressError } from '../errors.js';
import { DataType } from '../onnx/dtypes.js';
import { Graph, rewrite, type Node, type Value } from '../onnx/graph.js';
import { parametersOf } from '../onnx/parameters.js';
import { makeTensor, readFloats } from '../onnx/tensor.js';

export interface Parameter {
  /** Name of the initializer. */
  readonly name: string;
  readonly dims: readonly number[];
  readonly size: number;
  /** Whether weight decay applies: matrices and kernels, not biases, scales and shifts (1-D). */
  readonly decays: boolean;
}

/** @throws FlowCompressError `unsupported` when nothing in the model learns */
export function trainableParameters(graph: Graph): Parameter[] {
  const floats = new Set<Value>();
  for (const value of graph.values())
    if (value.initializer?.dataType === Number(DataType.FLOAT) && !graph.isFed(value)) floats.add(value);
  const learned = new Set<Value>();
  for (const node of graph.nodes) {
    for (const value of parametersOf(graph, node, floats)) if (!isConstantOfFormula(node, value)) learned.add(value);
  }
  if (learned.size === 0)
    throw new FlowCompressError('unsupported', 'The model has no float32 parameter that could be trained.', {
      hint: 'Quantized models and models in float16 cannot be trained: start from the float32 export.',
    });
  return [...learned].map((value) => {
    const dims = value.initializer!.dims.map(Number);
    const size = dims.reduce((a, b) => a * b, 1);
    return { name: value.name, dims, size, decays: dims.filter((d) => d > 1).length > 1 };
  });
}

/** Tables that an exporter made of a formula, not of learning: arguments of comparisons and of masks. */
function isConstantOfFormula(node: Node, value: Value): boolean {
  return ['Equal', 'Greater', 'Less', 'Where', 'QuantizeLinear', 'DequantizeLinear'].some(
    (op) => node.is(op) && !(op === 'DequantizeLinear' && node.inputs[0] === value),
  );
}

/** A tensor's place in a vector: after all the ones before it. */
export type Slot = Pick<Parameter, 'name' | 'size'>;

/** Names and sizes in one line, which tells vectors of other tensors apart. */
export function layoutOf(slots: readonly Slot[]): string {
  return slots.map(({ name, size }) => `${name}:${String(size)}`).join(' ');
}

/** Values of the parameters, in their order. */
export function readParameters(model: ModelProto, parameters: readonly Slot[]): Float32Array {
  const graph = new Graph(model);
  const flat = new Float32Array(parameters.reduce((sum, { size }) => sum + size, 0));
  let at = 0;
  for (const { name, size } of parameters) {
    flat.set(readFloats(graph.mustGet(name).initializer!), at);
    at += size;
  }
  return flat;
}

/** The model with these values in the place of its own. */
export function withParameters(model: ModelProto, parameters: readonly Slot[], flat: Float32Array): ModelProto {
  return rewrite(model, (graph) => {
    let at = 0;
    for (const { name, size } of parameters) {
      const value = graph.mustGet(name);
      const dims = value.initializer!.dims.map(Number);
      graph.setInitializer(value, makeTensor(name, DataType.FLOAT, dims, flat.slice(at, at + size)));
      at += size;
    }
  });
}
