/** Scores of units from the gradients of a loss: what the weights and biases that make a unit add up to in every batch. */
import { FlowCompressError } from '../errors.js';
import type { Graph, Value } from '../onnx/graph.js';
import { reduce, reshape } from '../onnx/ops.js';
import type { RunControl } from '../progress.js';
import { readGradients, type GradientPass } from '../quantization/risk-gradients.js';
import type { LayerUnits } from './layer-units.js';
import type { GradientScore } from './scores.js';

/** Where the engine and the samples are. */
export type GradientSource = Omit<GradientPass, 'kindOf' | 'batchSize' | 'model'>;

/** A tensor of which one axis has an index per unit. */
interface MakingTensor {
  readonly layer: string;
  readonly name: string;
  /** Class by index along that axis. */
  readonly made: Int32Array;
  /** The other axes. */
  readonly others: readonly number[];
}

/**
 * By class, the mean over batches of the score of the unit. The weights are those of the layers that make the unit, and their
 * biases: with all of them at 0 the unit gives 0, so to first order the sum of their products with the gradient is what the loss
 * changes by without it. Units that the loss does not depend on have 0.
 * @param classes in the dependencies that the layers were found with
 * @throws FlowCompressError `unsupported` naming an operator without a gradient rule, or when the loss depends on no layer;
 *   `bad-input` naming a layer whose gradient is not finite; `aborted`
 */
export async function gradientScores(
  graph: Graph,
  layers: readonly LayerUnits[],
  classes: number,
  score: GradientScore,
  source: GradientSource,
  control: RunControl,
): Promise<Float64Array> {
  const tensors = makingTensors(graph, layers);
  const means = new Float64Array(classes);
  const sums = new Float64Array(classes);
  let read: MakingTensor[] = [];
  const count = await readGradients(
    { ...source, model: graph.toModel(), kindOf: score.loss, batchSize: score.batchSize },
    {
      wanted: tensors.map(({ name }) => name),
      attach(whole, gradients) {
        read = tensors.filter(({ name }) => gradients.has(name));
        if (read.length === 0)
          throw new FlowCompressError(
            'unsupported',
            'The loss depends on no layer of the model that could be scored.',
            {
              hint: 'Choose a --score without gradients.',
            },
          );
        return read.map((tensor) => partsOf(whole, tensor, gradients.get(tensor.name)!, score));
      },
      update(values, samples) {
        sums.fill(0);
        values.forEach(({ data }, i) => {
          const { made, layer } = read[i]!;
          made.forEach((unit, c) => {
            const part = Number(data[c]);
            if (!Number.isFinite(part))
              throw new FlowCompressError('bad-input', `The gradient of the loss is not finite in layer ${layer}.`, {
                node: layer,
                hint: 'Look for NaN in the data, or choose a --score without gradients.',
              });
            if (unit >= 0) sums[unit]! += part;
          });
        });
        for (let unit = 0; unit < classes; unit++) means[unit]! += score.ofUnit(sums[unit]!, samples);
      },
    },
    control,
  );
  return means.map((sum) => sum / count);
}

/** Weights and biases of the layers, each once. */
function makingTensors(graph: Graph, layers: readonly LayerUnits[]): MakingTensor[] {
  const found = new Map<string, MakingTensor>();
  for (const { layer, made } of layers) {
    const { name, dims, channelAxis, biasSlot, weight } = layer;
    const others = dims.flatMap((_, axis) => (axis === channelAxis ? [] : [axis]));
    if (!found.has(weight.name)) found.set(weight.name, { layer: name, name: weight.name, made, others });
    const bias = biasSlot?.node.inputs[biasSlot.index];
    // Transposed convolutions in groups: one class for the channels of a number, a bias for each.
    if (!bias || made.length !== layer.channels || found.has(bias.name) || !graph.constant(bias)) continue;
    found.set(bias.name, { layer: name, name: bias.name, made, others: [] });
  }
  return [...found.values()];
}

/** One number per index of the axis. */
function partsOf(graph: Graph, { name, others }: MakingTensor, gradient: Value, { ofWeight }: GradientScore): Value {
  const product = graph.insertOp('Mul', [graph.mustGet(name), gradient]);
  const part = ofWeight === 'square' ? graph.insertOp('Mul', [product, product]) : product;
  return others.length > 0 ? reduce(graph, 'ReduceSum', part, others) : reshape(graph, part, [-1]);
}
