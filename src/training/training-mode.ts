/** Batch normalization and dropout as they are while training. */
import { TensorProto_DataType as DataType } from 'onnx-buf';
import { intAttribute } from '../onnx/attributes.js';
import type { Graph, Value } from '../onnx/graph.js';
import { constantOf } from '../onnx/ops.js';
import { makeTensor } from '../onnx/tensor.js';
import { FlowCompressError } from '../errors.js';

/** A running statistic: an initializer that every step replaces by a new value. */
export interface Buffer {
  readonly name: string;
  readonly size: number;
  /** Its value after the step. */
  readonly updated: Value;
}

export interface TrainingModeOptions {
  /** Keep the running statistics of batch normalization as they are. */
  readonly frozenBatchNorm?: boolean;
  /** Seed of dropout; the engine draws new masks at every step of a session. */
  readonly seed: number;
}

/**
 * Switches the nodes of the graph in place.
 * @returns the running statistics, two per batch normalization
 * @throws FlowCompressError `unsupported` for a batch normalization whose statistics are not initializers
 */
export function enterTrainingMode(graph: Graph, { frozenBatchNorm = false, seed }: TrainingModeOptions): Buffer[] {
  const buffers: Buffer[] = [];
  for (const node of graph.nodes) {
    if (node.is('Dropout')) {
      const training = graph.addInitializer(
        makeTensor(graph.uniqueName('training'), DataType.BOOL, [], Uint8Array.of(1)),
      );
      if (!node.inputs[1]) graph.setInput(node, 1, constantOf(graph, [0.5], 'float32', { scalar: true }));
      graph.setInput(node, 2, training);
      graph.setAttribute(node, intAttribute('seed', seed + buffers.length + 1));
    }
    if (!node.is('BatchNormalization') || frozenBatchNorm) continue;
    const [mean, variance] = [node.inputs[3], node.inputs[4]];
    const output = node.outputs[0];
    if (!mean?.initializer || !variance?.initializer || !output)
      throw new FlowCompressError('unsupported', 'The statistics of this BatchNormalization are computed.', {
        node: node.label,
        hint: 'Export the model in inference mode, with running statistics stored in it.',
      });
    // One form for all opsets from 14 on: outputs Y, running mean, running variance.
    const { inputs } = node;
    const attributes = [...node.attributes.values()].filter((a) => a.name !== 'training_mode' && a.name !== 'spatial');
    const names = ['out', 'mean', 'var'].map((part) => graph.uniqueName(`${output.name} ${part}`));
    const trained = graph.insert({
      opType: 'BatchNormalization',
      name: node.name,
      inputs: [...inputs],
      outputs: names,
      attributes: [...attributes, intAttribute('training_mode', 1)],
    });
    graph.replaceUses(output, trained.outputs[0]!);
    graph.remove(node);
    for (const [k, value] of [mean, variance].entries()) {
      const size = value.initializer!.dims.reduce((a, b) => a * Number(b), 1);
      buffers.push({ name: value.name, size, updated: trained.outputs[k + 1]! });
    }
  }
  return buffers;
}
