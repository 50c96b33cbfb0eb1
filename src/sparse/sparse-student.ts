/**
 * A pruned model as one that trains: the weights that are left, and the biases. Removed weights are 0 whatever their
 * parameter is, get no gradient, and stay where they are.
 *
 * The masks are parameters too, which nothing learns: they lie in the same vector as the weights, so that a checkpoint holds
 * them, and a sparsity that rises in the course of a training changes that vector, not the compiled step.
 */
import type { ModelProto } from 'onnx-buf';
import { Graph } from '../onnx/graph.js';
import { findLayers, toMatrix } from '../onnx/layers.js';
import { formula } from '../onnx/ops.js';
import { DataType } from '../onnx/dtypes.js';
import { makeTensor, readFloats } from '../onnx/tensor.js';
import type { QuantizedWeights } from '../quantization/placement.js';
import { channelUnits, learnerOn, valuesOf, type LearnedTensor } from '../recovery/learned.js';
import { roundLayerNearest } from '../quantization/round-layer.js';
import { weightUnits, type WeightUnit } from '../quantization/units.js';
import type { Parameter } from '../training/parameters.js';
import type { Masks, WeightsByTensor } from './magnitude.js';

/** Chooses masks of a sparsity by weights in which those that are gone already are 0. */
export type ChooseMasks = (weights: WeightsByTensor, sparsity: number) => Masks;

export interface SparseStudent {
  readonly model: ModelProto;
  readonly parameters: readonly Parameter[];
  /** The vector with the masks of another sparsity, chosen by its own weights. @param flat all parameters, end to end */
  pruned(flat: Float32Array, sparsity: number): Float32Array;
  /**
   * What the file of these parameters at the final sparsity stores, by layer: weights rounded to 8 bits with a scale per
   * output channel, and biases. @param flat all parameters, end to end
   */
  of(flat: Float32Array): Map<string, QuantizedWeights>;
}

interface LearnedUnit {
  readonly unit: WeightUnit;
  readonly weight: LearnedTensor;
  /** Of a unit whose weights may be removed. */
  readonly mask: string | undefined;
}

/**
 * @param model the prepared float model; weights that are 0 in it begin as removed
 * @param names of the weight tensors whose weights may be removed
 * @param sparsity the final one
 */
export function sparseStudent(
  model: ModelProto,
  names: ReadonlySet<string>,
  sparsity: number,
  choose: ChooseMasks,
): SparseStudent {
  const graph = new Graph(model);
  const calc = formula(graph);
  const learner = learnerOn(graph);
  const learned: LearnedUnit[] = [];
  const biases = new Map<string, LearnedTensor>();
  const zero = graph.addInitializer(makeTensor(graph.uniqueName('zero'), DataType.FLOAT, [], Float32Array.of(0)));
  for (const unit of weightUnits(findLayers(graph))) {
    const { layer, readers } = unit;
    const { name } = layer.weight;
    const values = readFloats(graph.constant(layer.weight)!);
    const [weight, v] = learner.learn(`${name} weight`, layer.dims, values, channelUnits(layer, values));
    let value = learner.inUnits(v, weight, layer.dims);
    let mask: string | undefined;
    if (names.has(name)) {
      const present = values.map((w) => (w === 0 ? 0 : 1));
      const [tensor, m] = learner.learn(`${name} mask`, layer.dims, present, new Float32Array(values.length).fill(1));
      mask = tensor.name;
      value = graph.insertOp('Where', [calc('Greater', m, 0.5), value, zero]);
    }
    learned.push({ unit, weight, mask });
    for (const { node, weightIndex, biasSlot, name: layerName } of readers) {
      graph.setInput(node, weightIndex, value);
      const bias = biasSlot?.node.inputs[biasSlot.index];
      const tensor = graph.constant(bias);
      if (!bias || !tensor) continue;
      const [own, b] = learner.learnBias(`${bias.name} bias`, readFloats(tensor), values);
      biases.set(layerName, own);
      graph.setInput(biasSlot.node, biasSlot.index, b);
    }
  }
  graph.removeDead();
  const { parameters } = learner;
  const weightsOf = (values: ReadonlyMap<string, Float32Array>): Map<string, Float32Array> =>
    new Map(
      learned.flatMap(({ unit, weight, mask }) => {
        if (mask === undefined) return [];
        const present = values.get(mask)!;
        const own = values.get(weight.name)!.map((v, i) => (present[i]! > 0.5 ? v * weight.units[i]! : 0));
        return [[unit.layer.weight.name, own]];
      }),
    );
  const pruned: SparseStudent['pruned'] = (flat, wanted) => {
    const next = flat.slice();
    const values = valuesOf(parameters, next);
    const masks = choose(weightsOf(values), wanted);
    for (const { unit, mask } of learned)
      if (mask !== undefined) values.get(mask)!.set(masks.get(unit.layer.weight.name)!);
    return next;
  };
  return {
    model: graph.toModel(),
    parameters,
    pruned,
    of(flat) {
      const values = valuesOf(parameters, pruned(flat, sparsity));
      const left = weightsOf(values);
      const read = ({ name, units }: LearnedTensor): Float32Array => values.get(name)!.map((v, i) => v * units[i]!);
      const found = new Map<string, QuantizedWeights>();
      for (const { unit, weight } of learned) {
        const { layer, readers } = unit;
        const matrix = toMatrix(layer, left.get(layer.weight.name) ?? read(weight));
        const { grid, codes, scales } = roundLayerNearest(layer, matrix, 8, true);
        for (const { name } of readers) {
          const bias = biases.get(name);
          found.set(name, { grid, codes, scales, ...(bias && { bias: read(bias) }) });
        }
      }
      return found;
    },
  };
}
