/**
 * Traces of the Hessian of the loss, layer by layer (HAWQ-V2, Dong et al. 2020): Hutchinson's estimate E[v . H v] over random signs
 * v, with H v by central differences of gradients, (g(w + h v) - g(w - h v)) / 2h. All layers are shaken at once: what they do to
 * each other has mean 0. Only one number per layer leaves the engine.
 */
import { randomStream, seedOf } from '../data/random.js';
import { FlowCompressError } from '../errors.js';
import { DataType } from '../onnx/dtypes.js';
import type { Graph, Value } from '../onnx/graph.js';
import { weightMatrix, type WeightLayer } from '../onnx/layers.js';
import { formula, reduce } from '../onnx/ops.js';
import { tensorInfo } from '../onnx/value-info.js';
import type { Feeds } from '../runtime/engine.js';
import type { QuantizationContext } from './method.js';
import { ordinaryLoss, readGradients, type GradientPass } from './risk-gradients.js';
import type { WeightUnit } from './units.js';

/** h, as a share of the root mean square of a layer's weights. */
const STEP = 1e-2;
/** Samples per gradient, of all gradients, and random directions per batch. */
const BATCH = 32;
const SAMPLES = 128;
const DIRECTIONS = 4;

export interface TraceOptions {
  /** Random directions per batch. */
  readonly directions?: number;
}

/** What is read of a quantization's context. */
export type TraceSource = Pick<
  QuantizationContext,
  'engine' | 'model' | 'shapes' | 'scores' | 'fixedBatch' | 'calibration' | 'calibrationSamples' | 'control'
> & { readonly settings: Pick<QuantizationContext['settings'], 'seed'> };

/**
 * trace(H_l) / n_l of every unit, the mean over batches and directions. The loss is the cross-entropy with the labels of the data or,
 * without them, with labels drawn from the model's own probabilities, whose Hessian is the Fisher information in the mean. Estimates
 * of layers in which the loss curves little may be negative.
 * @throws FlowCompressError `unsupported` for a model without class scores, or naming a node without a gradient rule or a layer that
 *   the loss does not depend on; `bad-input` when a trace is not finite; `aborted`, `io`
 */
export async function meanTraces(
  graph: Graph,
  units: readonly WeightUnit[],
  source: TraceSource,
  { directions = DIRECTIONS }: TraceOptions = {},
): Promise<number[]> {
  const { engine, model, shapes, scores, fixedBatch, calibration, settings } = source;
  if (scores === undefined)
    throw new FlowCompressError(
      'unsupported',
      'The Hessian is that of a loss over class scores, which the model does not give.',
      {
        hint: 'Use --method faaq, which measures any outputs.',
      },
    );
  const shaken = units.map(({ layer }) => ({ layer, size: sizeOf(graph, layer) }));
  const sums = new Float64Array(units.length);
  let inputs: string[] = [];
  const repeats: GradientPass['repeats'] = {
    count: 2 * directions,
    // Both sides of a direction, one after the other.
    feeds: (repeat, batch) =>
      directionFeeds(shaken, inputs, seedOf(settings.seed, batch, repeat >> 1), repeat % 2 === 0),
  };
  let runs = 0;
  await readGradients(
    {
      ...{ engine, model, shapes, scores, fixedBatch, seed: settings.seed, repeats, kindOf: ordinaryLoss },
      batches: (limit, rows) => calibration({ limit, rows }),
      ...{ available: source.calibrationSamples, wanted: SAMPLES, batchSize: BATCH },
    },
    {
      wanted: shaken.map(({ layer }) => layer.weight.name),
      attach(whole, gradients) {
        inputs = shaken.map(({ layer }) => whole.uniqueName(`${layer.weight.name} direction`));
        return shaken.map(({ layer }, i) => shake(whole, layer, inputs[i]!, gradients.get(layer.weight.name)));
      },
      update(values) {
        values.forEach(({ data }, i) => (sums[i]! += Number(data[0])));
        runs++;
      },
    },
    source.control,
  );
  return shaken.map(({ layer, size }, i) => {
    // Two runs are one difference, whose product with u = h v is 2 h^2 v . H v.
    const trace = sums[i]! / (runs / 2) / (2 * size ** 2);
    if (Number.isFinite(trace)) return trace / layer.params;
    throw new FlowCompressError('bad-input', `The Hessian of the loss is not finite in layer ${layer.name}.`, {
      node: layer.name,
      hint: 'Look for NaN in the data, or use another --method.',
    });
  });
}

/** h times the size of its weights. */
function sizeOf(graph: Graph, layer: WeightLayer): number {
  const weights = weightMatrix(graph, layer);
  const rms = Math.sqrt(weights.reduce((sum, w) => sum + w * w, 0) / Math.max(weights.length, 1));
  return STEP * Math.max(rms, 1e-6);
}

/** Adds an input to the weight wherever it is read, on the way back too. @returns the product of the input with the gradient */
function shake(
  graph: Graph,
  { weight, dims, name: layer }: WeightLayer,
  name: string,
  gradient: Value | undefined,
): Value {
  if (!gradient)
    throw new FlowCompressError('unsupported', `The loss does not depend on the weights of layer ${layer}.`, {
      node: layer,
      hint: 'Use --method faaq, which measures such layers too.',
    });
  const own = graph.mustGet(weight.name);
  const uses = [...own.uses];
  const direction = graph.addInput(tensorInfo(name, DataType.FLOAT, dims));
  const calc = formula(graph);
  const moved = calc('Add', own, direction);
  for (const { node, index } of uses) if (index >= 0) graph.setInput(node, index, moved);
  return reduce(graph, 'ReduceSum', calc('Mul', gradient, direction));
}

/** Random signs times the size of each layer, or their opposites. */
function directionFeeds(
  layers: readonly { readonly layer: WeightLayer; readonly size: number }[],
  inputs: readonly string[],
  seed: number,
  forth: boolean,
): Feeds {
  return Object.fromEntries(
    layers.map(({ layer: { dims, params }, size }, i) => {
      const random = randomStream(seedOf(seed, i));
      const step = forth ? size : -size;
      const data = Float32Array.from({ length: params }, () => (random.int(2) === 0 ? step : -step));
      return [inputs[i]!, { type: 'float32', dims, data }];
    }),
  );
}
