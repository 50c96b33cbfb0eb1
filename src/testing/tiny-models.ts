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

/**
 * A classifier without residual blocks on [N, 3, 12, 12]: stem, down (stride 2), same, then a pointwise convolution, a depthwise and a
 * pointwise one (deep, next), pooling, and Gemms fc1, head to 5 logits.
 */
export function plainNet(): ModelProto {
  const { graph, x } = startGraph(17, ['N', 3, 12, 12]);
  const conv = (
    input: Value,
    name: string,
    [inputs, outputs]: [number, number],
    k: number,
    seed: number,
    more: { stride?: number; group?: number } = {},
  ): Value => {
    const { stride = 1, group = 1 } = more;
    const pad = Math.floor(k / 2);
    const node = graph.insert({
      opType: 'Conv',
      name,
      inputs: [
        input,
        weight(graph, `${name}.w`, [outputs, inputs / group, k, k], seed),
        weight(graph, `${name}.b`, [outputs], seed + 1),
      ],
      outputs: [`${name}.y`],
      attributes: [
        intsAttribute('pads', [pad, pad, pad, pad]),
        intsAttribute('strides', [stride, stride]),
        intAttribute('group', group),
      ],
    });
    return graph.insertOp('Relu', [node.outputs[0]!], [], `${name}.relu`);
  };
  const gemm = (input: Value, name: string, [inputs, outputs]: [number, number], seed: number, output: string): Value =>
    graph.insert({
      opType: 'Gemm',
      name,
      inputs: [
        input,
        weight(graph, `${name}.w`, [outputs, inputs], seed),
        weight(graph, `${name}.b`, [outputs], seed + 1),
      ],
      outputs: [output],
      attributes: [intAttribute('transB', 1)],
    }).outputs[0]!;
  const stem = conv(x, 'stem', [3, 12], 3, 21);
  const down = conv(stem, 'down', [12, 16], 3, 23, { stride: 2 });
  const same = conv(down, 'same', [16, 16], 3, 25);
  const pointwise = conv(same, 'pointwise', [16, 16], 1, 27);
  const deep = conv(pointwise, 'deep', [16, 16], 3, 29, { group: 16 });
  const next = conv(deep, 'next', [16, 16], 1, 31);
  const pooled = graph.insertOp('Flatten', [graph.insertOp('GlobalAveragePool', [next], [], 'pool')], [], 'flat');
  const hidden = graph.insertOp('Relu', [gemm(pooled, 'fc1', [16, 16], 33, 'fc1.y')], [], 'fc1.relu');
  declareOutput(graph, gemm(hidden, 'head', [16, 5], 35, 'logits'), ['N', 5]);
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
