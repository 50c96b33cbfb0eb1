/** Batch normalization as it is while training. */
import { intAttribute } from '../onnx/attributes.js';
import type { Graph, Value } from '../onnx/graph.js';
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
}

/**
 * Switches the nodes of the graph in place. New statistics are momentum old + (1 - momentum) batch, with the variance of
 * the whole population (BatchNormalization, opset 15).
 * @returns the running statistics, two per batch normalization
 * @throws FlowCompressError `unsupported` for a batch normalization whose statistics are not initializers
 */
export function enterTrainingMode(graph: Graph, { frozenBatchNorm = false }: TrainingModeOptions = {}): Buffer[] {
  const buffers: Buffer[] = [];
  if (frozenBatchNorm) return buffers;
  for (const node of graph.nodes) {
    if (!node.is('BatchNormalization')) continue;
    const [mean, variance] = [node.inputs[3], node.inputs[4]];
    const output = node.outputs[0];
    if (mean && buffers.some(({ name }) => name === mean.name || name === variance?.name))
      throw new FlowCompressError('unsupported', 'This BatchNormalization shares its statistics with another one.', {
        node: node.label,
        hint: 'Export the model without merging equal tensors.',
      });
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
