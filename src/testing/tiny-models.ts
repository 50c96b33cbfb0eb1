/** Small models for tests, built in code. */
import { TensorProto_DataType as DataType, type ModelProto } from 'onnx-buf';
import { intAttribute, intsAttribute } from '../onnx/attributes.js';
import { emptyModel, Graph, type Value } from '../onnx/graph.js';
import { makeTensor } from '../onnx/tensor.js';
import { tensorInfo } from '../onnx/value-info.js';
import { randomStream } from '../data/random.js';
import type { Batch } from '../data/dataset.js';

/** Normal numbers of a seeded stream, times `scale`. */
export function normals(count: number, seed: number, scale = 1): Float32Array {
  const random = randomStream(seed);
  return Float32Array.from({ length: count }, () => random.normal() * scale);
}

/** Starts a graph with one float input; `finish` declares the output. */
export function startGraph(
  opset: number,
  inputDims: readonly (number | string)[],
  inputName = 'x',
): { graph: Graph; x: Value } {
  const graph = new Graph(emptyModel(opset));
  return { graph, x: graph.addInput(tensorInfo(inputName, DataType.FLOAT, inputDims)) };
}

export function declareOutput(graph: Graph, value: Value, dims: readonly (number | string)[]): void {
  value.info = tensorInfo(value.name, DataType.FLOAT, dims);
  graph.outputs.push(value);
}

export function weight(graph: Graph, name: string, dims: readonly number[], seed: number, scale = 0.3): Value {
  const count = dims.reduce((a, b) => a * b, 1);
  return graph.addInitializer(makeTensor(name, DataType.FLOAT, [...dims], normals(count, seed, scale)));
}

/**
 * A residual classifier on [N, 3, 8, 8]: conv-relu, a residual block, global average pooling, Gemm to 5 logits.
 * Layers are named stem, block.a, block.b and head.
 */
export function tinyResNet(opset = 17, width = 8): ModelProto {
  const { graph, x } = startGraph(opset, ['N', 3, 8, 8]);
  const conv = (input: Value, name: string, inputs: number, seed: number): Value => {
    const node = graph.insert({
      opType: 'Conv',
      name,
      inputs: [
        input,
        weight(graph, `${name}.w`, [width, inputs, 3, 3], seed),
        weight(graph, `${name}.b`, [width], seed + 1),
      ],
      outputs: [`${name}.y`],
      attributes: [intsAttribute('pads', [1, 1, 1, 1])],
    });
    return node.outputs[0]!;
  };
  const stem = graph.insertOp('Relu', [conv(x, 'stem', 3, 1)], [], 'stem.relu');
  const a = graph.insertOp('Relu', [conv(stem, 'block.a', width, 3)], [], 'block.relu');
  const b = conv(a, 'block.b', width, 5);
  const sum = graph.insertOp('Relu', [graph.insertOp('Add', [b, stem], [], 'block.sum')], [], 'block.out');
  const pooled = graph.insertOp('Flatten', [graph.insertOp('GlobalAveragePool', [sum], [], 'pool')], [], 'flat');
  const head = graph.insert({
    opType: 'Gemm',
    name: 'head',
    inputs: [pooled, weight(graph, 'head.w', [5, width], 7), weight(graph, 'head.b', [5], 8)],
    outputs: ['logits'],
    attributes: [intAttribute('transB', 1)],
  });
  declareOutput(graph, head.outputs[0]!, ['N', 5]);
  return graph.toModel();
}

/** Batches of seeded normal samples for a model with one input. */
export async function* normalBatches(
  input: string,
  dims: readonly number[],
  total: number,
  batchSize: number,
  seed = 11,
): AsyncGenerator<Batch> {
  const size = dims.reduce((a, b) => a * b, 1);
  const all = normals(total * size, seed);
  for (let from = 0; from < total; from += batchSize) {
    const count = Math.min(batchSize, total - from);
    const data = all.slice(from * size, (from + count) * size);
    yield await Promise.resolve({
      size: count,
      feeds: { [input]: { type: 'float32' as const, dims: [count, ...dims], data } },
    });
  }
}
