/**
 * The norm of the loss gradient in each layer's weights, as a mean over batches of calibration samples. Reverse mode
 * inside the engine: only the norms leave it.
 */
import { FlowCompressError } from '../errors.js';
import type { WeightLayer } from '../onnx/layers.js';
import { reduce } from '../onnx/ops.js';
import type { QuantizationContext, QuantizationSettings } from './method.js';
import { ordinaryLoss, readGradients } from './risk-gradients.js';

/** Samples per gradient, as in the published method, and samples of all gradients together. */
const BATCH = 32;
const SAMPLES = 256;

/** What is read of a quantization's context. */
export type GradientSource = Pick<
  QuantizationContext,
  | 'engine'
  | 'model'
  | 'layers'
  | 'shapes'
  | 'scores'
  | 'fixedBatch'
  | 'calibration'
  | 'calibrationSamples'
  | 'control'
  | 'warn'
> & { readonly settings: Pick<QuantizationSettings, 'seed' | 'sensitivityMode'> };

/**
 * Mean over batches of ||dLoss / dW||_2 by layer name; layers that share a weight share its norm. The loss is the
 * cross-entropy where the model has class scores, with the labels of the data or, without them, labels drawn from its own
 * probabilities; elsewhere a random projection of the outputs (see risk-loss.ts). With `sensitivityMode: 'reference'` it
 * is the mean square of the outputs where there are no labels. Layers without a gradient are absent, and a warning says
 * why.
 * @throws FlowCompressError `aborted`, or `io` when the data cannot be read
 */
export async function gradientNorms(context: GradientSource): Promise<Map<string, number>> {
  const { engine, model, layers, shapes, scores, fixedBatch, calibration, settings } = context;
  const refusals: FlowCompressError[] = [];
  const sums = new Map<string, number>();
  let weights: string[] = [];
  try {
    const count = await readGradients(
      {
        ...{ engine, model, shapes, scores, fixedBatch, seed: settings.seed },
        batches: (limit, rows) => calibration({ limit, rows }),
        ...{ available: context.calibrationSamples, wanted: SAMPLES, batchSize: BATCH },
        kindOf: (has) =>
          settings.sensitivityMode === 'reference' && !(has.scores && has.labels) ? 'squares' : ordinaryLoss(has),
      },
      {
        wanted: layers.map((layer) => layer.weight.name),
        attach(graph, gradients) {
          weights = [...gradients.keys()];
          return [...gradients.values()].map((gradient) => reduce(graph, 'ReduceL2', gradient));
        },
        update(norms) {
          norms.forEach(({ data }, i) => sums.set(weights[i]!, (sums.get(weights[i]!) ?? 0) + Number(data[0])));
        },
        onRefusal: (error) => refusals.push(error),
      },
      context.control,
    );
    const found = new Map<string, number>();
    for (const layer of layers) {
      const norm = (sums.get(layer.weight.name) ?? NaN) / count;
      if (Number.isFinite(norm)) found.set(layer.name, norm);
    }
    warnOfAbsent(context, found, refusals);
    return found;
  } catch (error) {
    // A model that runs forwards is worth compressing without gradients too.
    if (!(error instanceof FlowCompressError) || error.code === 'aborted' || error.code === 'io') throw error;
    context.warn(`The sensitivity is without gradients: ${error.message}`);
    return new Map();
  }
}

function warnOfAbsent(
  { layers, warn }: GradientSource,
  found: ReadonlyMap<string, number>,
  refusals: readonly FlowCompressError[],
): void {
  const absent = layers.filter((layer) => !found.has(layer.name));
  if (absent.length === 0) return;
  const reasons = refusals.map(({ node, message }) => `${node ?? 'a node'}: ${message}`);
  const [{ name }] = absent as [WeightLayer];
  const which = absent.length === 1 ? `layer ${name}` : `${String(absent.length)} layers, ${name} among them,`;
  const why = reasons.length > 0 ? reasons.join(' ') : 'The loss does not depend on its weights, or is not finite.';
  warn(`The sensitivity of ${which} is without gradients. ${why}`);
}
