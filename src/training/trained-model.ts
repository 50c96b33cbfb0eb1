/** The form of a model that is trained, and the way back to one that is written. */
import type { ModelProto } from 'onnx-buf';
import { inlineConstants } from '../onnx/passes/inline-constants.js';
import { inlineFunctions } from '../onnx/passes/inline-functions.js';
import { upgradeOpset } from '../onnx/passes/upgrade-opset.js';
import { FlowCompressError } from '../errors.js';
import { axisFromStart } from '../onnx/axis.js';
import { Graph, rewrite, type Node, type Value } from '../onnx/graph.js';
import { DataType } from '../onnx/dtypes.js';
import { withFields } from '../onnx/message.js';
import { tensorInfo } from '../onnx/value-info.js';
import { beforeActivation, SOFTMAXES, type Activation } from './logits.js';
import { meanLoss, type LossName } from './losses.js';
import { withParameters, type Slot } from './parameters.js';
import type { TrainingVectors } from './stepper.js';

export interface TrainableModel {
  /** Opset 13 or newer, constants as initializers, Dropout in its place. */
  readonly model: ModelProto;
  /** The value that the loss reads: the output, or what an activation at its end reads. */
  readonly output: string;
  /** That activation, which is part of the loss. */
  readonly activation?: Activation;
  /** The model with trained values, for inference; the moving average of the parameters where there is one. */
  finish(parameters: readonly Slot[], buffers: readonly Slot[], vectors: TrainingVectors): ModelProto;
  /** The same with the mean loss of a batch as its only output, for batches of any size. */
  finishWithLoss(
    parameters: readonly Slot[],
    buffers: readonly Slot[],
    vectors: TrainingVectors,
    options: MeasuredLoss,
  ): MeasuringModel;
}

/** Activations that a loss computes itself, from what they read. */
const ABSORBED: Partial<Record<LossName, readonly Activation[]>> = {
  'cross-entropy': SOFTMAXES,
  kl: SOFTMAXES,
  bce: ['Sigmoid', ...SOFTMAXES],
};

export interface MeasuredLoss {
  readonly loss: LossName;
  readonly temperature: number;
  /** Shape of the output; the first axis is free. */
  readonly dims: readonly number[];
  readonly weighted: boolean;
}

export interface MeasuringModel {
  readonly model: ModelProto;
  /** Names of what is fed beside the inputs, and of the output. */
  readonly names: { readonly target: string; readonly weights?: string; readonly loss: string };
}

/**
 * @param output name of the output of the model that is trained, of that rank
 * @throws FlowCompressError `unsupported` for a loss over classes and a softmax over another axis
 */
export function trainedModel(original: ModelProto, output: string, loss: LossName, rank = 2): TrainableModel {
  const passes = [upgradeOpset, inlineFunctions, inlineKeepingDropout, untieStatistics];
  const model = passes.reduce<ModelProto>((current, pass) => rewrite(current, (graph) => void pass(graph)), original);
  const { value, kind, node } = beforeActivation(new Graph(model).mustGet(output), ABSORBED[loss] ?? []);
  if (node && loss !== 'bce') requireClassAxis(node, rank, loss);
  const read = value.name;
  const trained: (...args: Parameters<TrainableModel['finish']>) => ModelProto = (parameters, buffers, vectors) =>
    withParameters(withParameters(model, parameters, vectors.average ?? vectors.parameters), buffers, vectors.buffers);
  return {
    model,
    output: read,
    ...(kind && { activation: kind }),
    finish: (...args) => rewrite(trained(...args), inlineConstants),
    finishWithLoss: (parameters, buffers, vectors, options) =>
      withLoss(trained(parameters, buffers, vectors), read, options),
  };
}

function requireClassAxis(softmax: Node, rank: number, loss: LossName): void {
  const axis = softmax.int('axis', -1);
  if (axisFromStart(axis, rank) === 1) return;
  throw new FlowCompressError(
    'unsupported',
    `The loss ${loss} takes classes along axis 1; this ${softmax.opType} has them along axis ${String(axis)}.`,
    { node: softmax.label, hint: 'Export the model with the classes as the second axis, or use another loss.' },
  );
}

function withLoss(
  model: ModelProto,
  output: string,
  { loss, temperature, dims, weighted }: MeasuredLoss,
): MeasuringModel {
  const graph = new Graph(model);
  const input = (name: string, shape: readonly (number | string)[]): Value =>
    graph.addInput(tensorInfo(name, DataType.FLOAT, shape));
  const target = input('target', ['N', ...dims.slice(1)]);
  const weights = weighted ? input('sample weights', ['N']) : undefined;
  const value = meanLoss(loss, {
    ...{ graph, output: graph.mustGet(output), target, rank: dims.length, temperature },
    ...(weights && { weights }),
  });
  value.info = tensorInfo(value.name, DataType.FLOAT, []);
  graph.outputs.splice(0, graph.outputs.length, value);
  graph.removeDead();
  return {
    model: graph.toModel(),
    names: { target: target.name, loss: value.name, ...(weights && { weights: weights.name }) },
  };
}

/** The pass is made for inference and would remove Dropout. */
function inlineKeepingDropout(graph: Graph): void {
  const dropouts = graph.nodes.filter((node) => node.is('Dropout'));
  for (const node of dropouts) node.opType = 'Dropout while training';
  inlineConstants(graph);
  for (const node of dropouts) node.opType = 'Dropout';
}

/** Exporters merge equal tensors, such as the zeros and ones of fresh running statistics, which will not stay equal. */
function untieStatistics(graph: Graph): void {
  const taken = new Set<Value>();
  for (const node of graph.nodes) {
    if (!node.is('BatchNormalization')) continue;
    for (const index of [3, 4]) {
      const value = node.inputs[index];
      if (!value?.initializer) continue;
      if (taken.has(value)) {
        const copy = withFields(value.initializer, { name: graph.uniqueName(value.name) });
        graph.setInput(node, index, graph.addInitializer(copy));
      }
      taken.add(value);
    }
  }
}
