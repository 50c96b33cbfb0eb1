/**
 * The quantized model as one that trains: latent weights and scales behind rounding operators, biases, and the quantizers of
 * the activations where the plan has them. The way back is from the vector of all parameters to codes and scales.
 *
 * Every parameter is counted in units of its own size (learned.ts), scales too. The factor by which LSQ tames the gradients
 * of scales would cancel in Adam; SCALE_RATE stands in its place.
 */
import type { ModelProto } from 'onnx-buf';
import { DataType } from '../../onnx/dtypes.js';
import { Graph, type Value } from '../../onnx/graph.js';
import { findLayers, fromMatrix, toMatrix, weightMatrix, type WeightLayer } from '../../onnx/layers.js';
import { formula } from '../../onnx/ops.js';
import { makeTensor } from '../../onnx/tensor.js';
import type { Student } from '../../recovery/recover.js';
import { channelUnits, learnerOn, NO_SCALE, valuesOf, type LearnedTensor } from '../../recovery/learned.js';
import { layoutOf, type Parameter } from '../../training/parameters.js';
import type { QuantizationOutcome } from '../method.js';
import { biasOf, place, type Deployment, type QuantizedWeights, type Writer } from '../placement.js';
import { roundedActivation } from '../simulate.js';
import { codeOf, fakeQuantize, latentOf } from './fake-quantize.js';

/** How fast scales learn in comparison with weights. */
const SCALE_RATE = 0.1;
/** Least part of its first value that a scale may shrink to. */
const LEAST_SCALE = 1 / 32;

interface TrainedLayer {
  readonly layer: WeightLayer;
  readonly latent: LearnedTensor;
  readonly scale: LearnedTensor;
  readonly start: QuantizedWeights;
}

/**
 * @param model the prepared float model
 * @param plan its weights and quantizers, those of `outcome`
 */
export function trainableQuantized(
  model: ModelProto,
  plan: Deployment,
  outcome: QuantizationOutcome,
): Student<QuantizationOutcome> {
  const original = new Graph(model);
  const own = ownBiases(original, plan);
  let parameters: readonly Parameter[] = [];
  const weights = new Map<string, TrainedLayer & { readonly value: Value }>();
  const biases = new Map<string, LearnedTensor>();
  const writerFor = (graph: Graph): Writer => {
    const calc = formula(graph);
    const { learn, inUnits, learnBias, ...learner } = learnerOn(graph);
    parameters = learner.parameters;
    return {
      weight(layer, start) {
        const known = weights.get(layer.weight.name);
        if (known) return known.value;
        const base = layer.weight.name;
        const scales = start.scales.map((s) => Math.max(s, NO_SCALE));
        const first = startOf(original, layer, { ...start, scales });
        const [latent, v] = learn(`${base} latent`, layer.dims, first, channelUnits(layer, first));
        const scaleUnits = scales.map((s) => SCALE_RATE * s);
        const [scale, p] = learn(`${base} scale`, [layer.channels], scales, scaleUnits);
        const least = makeTensor(
          graph.uniqueName('least'),
          DataType.FLOAT,
          [layer.channels],
          scales.map((s, c) => leastScale(s, scaleUnits[c]!)),
        );
        const held = calc('Max', p, graph.addInitializer(least));
        const step = inUnits(held, scale, [layer.channels]);
        const value = fakeQuantize(graph, layer, inUnits(v, latent, layer.dims), step, start.grid);
        weights.set(base, { layer, latent, scale, start: { ...start, scales }, value });
        return value;
      },
      // Its rounding to 32 bits is finer than anything that the training tells apart.
      bias: (_, bias) => bias,
      activation: (value, quantizer) => roundedActivation(graph, value, quantizer),
      floatBias(layer, bias) {
        const name = `${own.get(layer.name) ?? layer.name} bias`;
        const [tensor, value] = learnBias(name, bias, weightMatrix(original, layer));
        biases.set(layer.name, tensor);
        return value;
      },
      finish: () => undefined,
    };
  };
  const placed = place(model, { ...plan, weights: withBiases(original, plan, own) }, writerFor);
  return {
    model: placed,
    parameters,
    layout: `${layoutOf(parameters)} int8: ${[...plan.int8].sort().join(' ')}`,
    of(flat) {
      const values = valuesOf(parameters, flat);
      const read = ({ name, units }: LearnedTensor): Float32Array => values.get(name)!.map((v, i) => v * units[i]!);
      const rounded = new Map([...weights].map(([name, trained]) => [name, roundedOf(trained, values, read)]));
      const layers = findLayers(original).flatMap((layer): [string, QuantizedWeights][] => {
        const weight = plan.weights.has(layer.name) ? rounded.get(layer.weight.name) : undefined;
        const bias = biases.get(layer.name);
        return weight ? [[layer.name, { ...weight, ...(bias && { bias: read(bias) }) }]] : [];
      });
      // The noise of the rounding was measured on codes that are no more.
      const findings = outcome.findings.map((finding) => ({ ...finding, sqnrDb: undefined }));
      return { ...outcome, findings, weights: new Map(layers) };
    },
  };
}

function roundedOf(
  { layer, latent, scale, start }: TrainedLayer,
  values: ReadonlyMap<string, Float32Array>,
  read: (tensor: LearnedTensor) => Float32Array,
): QuantizedWeights {
  const { grid } = start;
  const held = values.get(scale.name)!.map((p, c) => {
    const unit = scale.units[c]!;
    return Math.max(p, leastScale(start.scales[c]!, unit)) * unit;
  });
  const weights = toMatrix(layer, read(latent));
  const perChannel = weights.length / layer.channels;
  const codes = Int8Array.from(weights, (v, i) => codeOf(v, held[Math.floor(i / perChannel)]!, grid));
  return { grid, codes, scales: held };
}

function leastScale(scale: number, unit: number): number {
  return Math.fround((LEAST_SCALE * scale) / unit);
}

/** The latent weights of a layer at the start, in the layout of its tensor. */
function startOf(graph: Graph, layer: WeightLayer, { codes, scales, grid }: QuantizedWeights): Float32Array {
  const weights = weightMatrix(graph, layer);
  const perChannel = weights.length / layer.channels;
  const first = weights.map((w, i) => latentOf(w, codes[i]!, scales[Math.floor(i / perChannel)]!, grid));
  return fromMatrix(layer, first);
}

/** Names of the initializers that layers have for biases and that the plan leaves as they are. */
function ownBiases(graph: Graph, { weights }: Deployment): Map<string, string> {
  const own = new Map<string, string>();
  for (const { name, biasSlot } of findLayers(graph)) {
    const bias = biasSlot?.node.inputs[biasSlot.index];
    if (bias && weights.has(name) && !weights.get(name)!.bias) own.set(name, bias.name);
  }
  return own;
}

/** The plan's weights, with the layers' own biases spelt out so that these learn too. */
function withBiases(graph: Graph, { weights }: Deployment, own: ReadonlyMap<string, string>): Deployment['weights'] {
  const layers = new Map(findLayers(graph).map((layer) => [layer.name, layer]));
  return new Map(
    [...weights].map(([name, layer]) => [
      name,
      own.has(name) ? { ...layer, bias: biasOf(graph, layers.get(name)!)! } : layer,
    ]),
  );
}
