/** A float model as a student: all its parameters learn, each in units of its own size. */
import type { ModelProto } from 'onnx-buf';
import { Graph, rewrite, type Value } from '../onnx/graph.js';
import { findLayers, weightMatrix, type WeightLayer } from '../onnx/layers.js';
import { foldBatchNorm } from '../onnx/passes/fold-batch-norm.js';
import { readFloats } from '../onnx/tensor.js';
import { layoutOf, trainableParameters, withParameters } from '../training/parameters.js';
import type { BatchNormMode } from '../training/training-mode.js';
import type { Student } from './recover.js';
import { channelUnits, learnerOn, NO_SCALE, rootMeanSquare } from './learned.js';

/**
 * Weights count in the size of their channel, biases in that of their layer's weights where these are larger, everything else in
 * its own root mean square.
 * @param model float32, opset 13 or newer
 * @throws FlowCompressError `unsupported` when nothing in the model learns
 */
export function floatStudent(model: ModelProto, batchNorm: BatchNormMode = 'frozen'): Student<ModelProto> {
  const graph = new Graph(model);
  const layers = findLayers(graph);
  const weightOf = new Map(layers.map((layer) => [layer.weight.name, layer]));
  const biasOf = new Map<string, WeightLayer>();
  for (const layer of layers) {
    const bias = layer.biasSlot?.node.inputs[layer.biasSlot.index];
    if (bias) biasOf.set(bias.name, layer);
  }
  const learner = learnerOn(graph);
  const learned = trainableParameters(graph).map((parameter) => {
    const { name, dims } = parameter;
    const value = graph.mustGet(name);
    const values = readFloats(value.initializer!);
    const weight = weightOf.get(name);
    const bias = biasOf.get(name);
    const beside = bias ? weightMatrix(graph, bias) : scaleBeside(value);
    const size = Math.max(rootMeanSquare(values), beside ? rootMeanSquare(beside) : 0, NO_SCALE);
    const units = weight && weight.op !== 'Gather' ? channelUnits(weight, values) : values.map(() => size);
    const [tensor, latent] = learner.learn(`${name} in units`, dims, values, units);
    graph.replaceUses(value, learner.inUnits(latent, tensor, dims));
    return { parameter, units };
  });
  graph.removeDead();
  const { parameters } = learner;
  const units = concatenated(learned.map((each) => each.units));
  return {
    model: graph.toModel(),
    parameters,
    layout: layoutOf(parameters),
    batchNorm,
    of: (flat, { slots, values }) =>
      rewrite(
        withParameters(
          withParameters(
            model,
            learned.map(({ parameter }) => parameter),
            flat.map((v, i) => v * units[i]!),
          ),
          slots,
          values,
        ),
        foldBatchNorm,
      ),
  };
}

/** The scale of the normalization that the value is the shift of. */
function scaleBeside(value: Value): Float32Array | undefined {
  for (const { node, index } of value.uses) {
    const scale = node.inputs[1]?.initializer;
    if (index === 2 && node.opType.endsWith('Normalization') && scale) return readFloats(scale);
  }
  return undefined;
}

function concatenated(parts: readonly Float32Array[]): Float32Array {
  const all = new Float32Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}
