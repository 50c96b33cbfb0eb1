/** Batch normalization as it is while training. */
import { intAttribute } from '../onnx/attributes.js';
import { readFloats } from '../onnx/tensor.js';
import type { Graph, Value } from '../onnx/graph.js';
import { FlowCompressError } from '../errors.js';

/** A running statistic: an initializer that every step replaces by a new value. */
export interface Buffer {
  readonly name: string;
  readonly size: number;
  /** Its value after the step. */
  readonly updated: Value;
}

/** `frozen`: normalized by the running statistics, which stay. `updated`: by those of each batch, which the running ones follow. */
export const BATCH_NORM_MODES = ['frozen', 'updated'] as const;
export type BatchNormMode = (typeof BATCH_NORM_MODES)[number];

export interface TrainingModeOptions {
  readonly batchNorm?: BatchNormMode;
}

/**
 * The mode that suits a model: `frozen` where a training has left statistics in it, whose data need not have been augmented or
 * normalized as the data at hand is; `updated` where every mean is still 0, which no training leaves. Variances tell nothing:
 * networks are also begun with those that their random weights give. Undefined for a model without batch normalization.
 */
export function suitableBatchNorm(graph: Graph): BatchNormMode | undefined {
  const isZero = (value: Value | undefined): boolean =>
    value?.initializer !== undefined && readFloats(value.initializer).every((v) => v === 0);
  const norms = graph.nodes.filter((node) => node.is('BatchNormalization'));
  if (norms.length === 0) return undefined;
  return norms.every(({ inputs }) => isZero(inputs[3])) ? 'updated' : 'frozen';
}

/**
 * Switches the nodes of the graph in place. New statistics are momentum old + (1 - momentum) batch, with the variance of
 * the whole population (BatchNormalization, opset 15).
 * @returns the running statistics, two per batch normalization
 * @throws FlowCompressError `unsupported` for a batch normalization whose statistics are not initializers
 */
export function enterTrainingMode(graph: Graph, { batchNorm = 'updated' }: TrainingModeOptions = {}): Buffer[] {
  const buffers: Buffer[] = [];
  if (batchNorm === 'frozen') {
    dropUnreadStatistics(graph);
    return buffers;
  }
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

/** Files of opsets before 14 may name running and saved statistics that nothing reads; newer opsets have no such outputs. */
function dropUnreadStatistics(graph: Graph): void {
  for (const node of graph.nodes) {
    const [output, ...statistics] = node.outputs;
    if (!node.is('BatchNormalization') || node.int('training_mode', 0) === 1 || !output) continue;
    const unread = statistics.every((value) => !value || (value.uses.size === 0 && !graph.isGraphOutput(value)));
    if (statistics.length === 0 || !unread) continue;
    const { name, inputs, attributes } = node;
    const [plain] = graph.insert({
      ...{ opType: 'BatchNormalization', name, inputs: [...inputs], attributes: [...attributes.values()] },
      outputs: [graph.uniqueName(`${output.name} out`)],
    }).outputs;
    graph.replaceUses(output, plain!);
    graph.remove(node);
  }
}
