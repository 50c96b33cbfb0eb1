/** A scalar loss on a real model, with made-up inputs: what the gradients of bench/asset-gradients.ts are those of. */
import type { ModelProto } from 'onnx-buf';
import { randomStream, seedOf } from '../../src/data/random.js';
import { openModel } from '../../src/node/model-file.js';
import { DataType } from '../../src/onnx/dtypes.js';
import { Graph, rewrite } from '../../src/onnx/graph.js';
import { reduce } from '../../src/onnx/ops.js';
import { makeTensor } from '../../src/onnx/tensor.js';
import { declaredDims } from '../../src/onnx/value-info.js';
import type { Engine, Feeds, HostTensor } from '../../src/runtime/engine.js';
import { runOnce } from '../../src/runtime/run-once.js';
import { exposeValue, traceShapes } from '../../src/runtime/trace.js';
import type { LossName } from '../../src/training/losses.js';
import { trainableParameters, type Parameter } from '../../src/training/parameters.js';
import { trainedModel } from '../../src/training/trained-model.js';
import type { GradientCase } from './gradient-cases.js';

/** A loss on a model, ready for the training graph and for the differences. */
export interface Task {
  readonly file: string;
  /** As training takes it; for a projection with that at its end. */
  readonly model: ModelProto;
  readonly parameters: readonly Parameter[];
  readonly loss: LossName;
  readonly output: string;
  readonly target: HostTensor;
  readonly feeds: Feeds;
  /** Weights of the projection, by output. */
  readonly projection: Readonly<Record<string, HostTensor>>;
  readonly batchStatistics: boolean;
}

function floats(dims: readonly number[], draw: () => number): HostTensor {
  return { type: 'float32', dims, data: Float32Array.from({ length: dims.reduce((a, b) => a * b, 1) }, draw) };
}

function feedsFor(graph: Graph, { batch, range, below }: GradientCase, seed: number): Feeds {
  const random = randomStream(seedOf(seed, 1));
  const feeds: Feeds = {};
  for (const input of graph.inputs) {
    if (!graph.isFed(input)) continue;
    const dims = (declaredDims(input.info) ?? []).map((dim, axis) =>
      axis === 0 ? batch : typeof dim === 'number' ? dim : 1,
    );
    const type = input.info?.type?.value;
    const isFloat = type?.case === 'tensorType' && type.value.elemType === Number(DataType.FLOAT);
    const draw = range ? () => range[0] + (range[1] - range[0]) * random.float() : () => random.normal();
    const drawn = floats(dims, isFloat ? draw : () => random.int(below ?? 2));
    feeds[input.name] = isFloat ? drawn : { type: 'int32', dims, data: Int32Array.from(drawn.data as Float32Array) };
  }
  return feeds;
}

export async function makeTask(
  engine: Engine,
  file: string,
  item: GradientCase,
  { seed, batchStatistics }: { readonly seed: number; readonly batchStatistics: boolean },
): Promise<Task> {
  const { model: original } = await openModel(file);
  const { scores = new Graph(original).outputs[0].name } = item;
  const { model, output } = trainedModel(original, scores, item.scores === undefined ? 'mse' : 'cross-entropy');
  const graph = new Graph(model);
  const parameters = trainableParameters(graph);
  const feeds = feedsFor(graph, item, seed);
  const random = randomStream(seedOf(seed, 2));
  const common = { file, parameters, feeds, batchStatistics };
  if (item.scores !== undefined) {
    const [rows, classes] = (await traceShapes(engine, model, feeds)).get(output)!.dims;
    const target = floats([rows, classes], () => 0);
    for (let row = 0; row < rows; row++) target.data[row * classes + random.int(classes)] = 1;
    return { ...common, model, output, target, loss: 'cross-entropy', projection: {} };
  }
  const outputs = Object.entries(await runOnce(engine, model, feeds)).filter(([, { type }]) => type === 'float32');
  const count = outputs.reduce((sum, [, { data }]) => sum + data.length, 0);
  const projection = Object.fromEntries(
    outputs.map(([name, { dims }]) => [name, floats(dims, () => random.normal() / Math.sqrt(count))]),
  );
  let end = '';
  const projected = rewrite(model, (edited) => {
    const parts = Object.entries(projection).map(([name, { dims, data }]) => {
      const weights = makeTensor(edited.uniqueName('projection weights'), DataType.FLOAT, dims, data as Float32Array);
      return reduce(
        edited,
        'ReduceSum',
        edited.insertOp('Mul', [edited.mustGet(name), edited.addInitializer(weights)]),
      );
    });
    const sum = parts.length === 1 ? parts[0] : edited.insertOp('Sum', parts);
    exposeValue(edited, sum);
    end = sum.name;
  });
  const value = (await runOnce(engine, projected, feeds))[end].data[0] as number;
  const target = floats([], () => value - 1);
  return { ...common, model: projected, output: end, target, loss: 'mse', projection };
}
