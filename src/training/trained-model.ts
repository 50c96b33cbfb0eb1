/** The form of a model that is trained, and the way back to one that is written. */
import type { ModelProto } from 'onnx-buf';
import { inlineConstants } from '../onnx/passes/inline-constants.js';
import { inlineFunctions } from '../onnx/passes/inline-functions.js';
import { upgradeOpset } from '../onnx/passes/upgrade-opset.js';
import { Graph, rewrite, type Value } from '../onnx/graph.js';
import { withFields } from '../onnx/message.js';
import { logitsOf } from './logits.js';
import { withParameters, type Slot } from './parameters.js';
import type { TrainingVectors } from './stepper.js';

export interface TrainableModel {
  /** Opset 13 or newer, constants as initializers, Dropout in its place. */
  readonly model: ModelProto;
  /** The value that holds logits: the scores, or what a softmax behind them reads. */
  readonly output: string;
  /** The model with trained values, for inference; the moving average of the parameters where there is one. */
  finish(parameters: readonly Slot[], buffers: readonly Slot[], vectors: TrainingVectors): ModelProto;
}

/** @param scores name of the output with one score per class */
export function trainedModel(original: ModelProto, scores: string | undefined): TrainableModel {
  const passes = [upgradeOpset, inlineFunctions, inlineKeepingDropout, untieStatistics];
  const model = passes.reduce<ModelProto>((current, pass) => rewrite(current, (graph) => void pass(graph)), original);
  const graph = new Graph(model);
  const value = scores === undefined ? undefined : graph.value(scores);
  return {
    model,
    output: value ? logitsOf(value).name : '',
    finish(parameters, buffers, { parameters: flat, buffers: statistics, average }) {
      const trained = withParameters(withParameters(model, parameters, average ?? flat), buffers, statistics);
      return rewrite(trained, inlineConstants);
    },
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
