/**
 * The norm of the loss gradient in each layer's weights, as a mean over batches of calibration samples. Reverse mode
 * inside the engine: only the norms leave it.
 */
import { differentiate } from '../autodiff/differentiate.js';
import type { Shape } from '../autodiff/rule.js';
import type { Batch } from '../data/dataset.js';
import { FlowCompressError } from '../errors.js';
import { tracedRows } from '../flow/sample-axis.js';
import { Graph, type Value } from '../onnx/graph.js';
import { macCounter } from '../onnx/macs.js';
import type { WeightLayer } from '../onnx/layers.js';
import { formula, reduce } from '../onnx/ops.js';
import type { Feeds } from '../runtime/engine.js';
import { runProbes, type Probe } from '../runtime/probe.js';
import { takeRows } from '../runtime/rows.js';
import { runOnce } from '../runtime/run-once.js';
import { bytesPerSample, exposeOnly, traceShapes, type TracedValues } from '../runtime/trace.js';
import { logitsOf } from '../training/logits.js';
import { shapesBetween, shapesOfBatch } from '../training/step-shapes.js';
import { PROBE_MACS } from './kl-probe.js';
import type { QuantizationContext, QuantizationSettings } from './method.js';
import { isProbabilities } from '../runtime/output-divergence.js';
import { insertRiskLoss, type RiskLoss, type RiskLossKind } from './risk-loss.js';

/** Samples per gradient, as in the published method, and samples of all gradients together. */
const BATCH = 32;
const SAMPLES = 256;
/** Bytes of the activations of one batch, most of which are kept for the way back. */
const BATCH_BYTES = 256e6;

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
  const plan = planOf(context);
  try {
    const model = await gradientModel(context, plan);
    const sums = new Map<string, number>(model.norms.map(({ weight }) => [weight, 0]));
    const probe: Probe = {
      attach: ({ graph }) => model.norms.map(({ value }) => graph.mustGet(value)),
      update: (values) => {
        values.forEach(({ data }, i) => {
          const { weight } = model.norms[i]!;
          sums.set(weight, sums.get(weight)! + Number(data[0]));
        });
      },
    };
    const { engine, shapes, control } = context;
    const batches = withLossInputs(plan.batches(), model.loss);
    const pass = { engine, model: model.graph.toModel(), shapes, batches, probes: [probe], total: plan.samples };
    await runProbes({ ...pass, stage: 'measure gradients' }, control);
    const found = new Map<string, number>();
    for (const layer of context.layers) {
      const norm = (sums.get(layer.weight.name) ?? NaN) / plan.count;
      if (Number.isFinite(norm)) found.set(layer.name, norm);
    }
    warnOfAbsent(context, found, model.refusals);
    return found;
  } catch (error) {
    // A model that runs forwards is worth compressing without gradients too.
    if (!(error instanceof FlowCompressError) || error.code === 'aborted' || error.code === 'io') throw error;
    context.warn(`The sensitivity is without gradients: ${error.message}`);
    return new Map();
  }
}

interface Plan {
  /** Rows of every batch, padding included. */
  readonly rows: number;
  readonly count: number;
  readonly samples: number;
  readonly batches: () => AsyncIterable<Batch>;
}

/** Whole batches only: the norm of a mean over fewer samples is larger. */
function planOf({ model, shapes, fixedBatch, calibrationSamples, calibration }: GradientSource): Plan {
  const graph = new Graph(model);
  const traced = tracedRows(graph, shapes);
  const bytes = bytesPerSample(shapes.values(), traced);
  // Both gradients of a layer take as many operations as the layer.
  const macs = 3 * (macCounter(graph, shapes, traced).total() ?? 0);
  const affordable = Math.max(1, Math.floor(PROBE_MACS / Math.max(macs, 1)));
  const wanted = Math.min(SAMPLES, calibrationSamples, affordable);
  const rows = fixedBatch ?? Math.max(1, Math.min(BATCH, wanted, Math.floor(BATCH_BYTES / Math.max(bytes, 1))));
  const count = Math.max(1, Math.floor(wanted / rows));
  const samples = Math.min(count * rows, calibrationSamples);
  return { rows, count, samples, batches: () => calibration({ limit: samples, rows }) };
}

interface GradientModel {
  readonly graph: Graph;
  readonly loss: RiskLoss;
  /** Name of the norm of the gradient in the weight of that name. */
  readonly norms: readonly { readonly weight: string; readonly value: string }[];
  /** Why there is no gradient of what lies before some nodes. */
  readonly refusals: readonly FlowCompressError[];
}

async function gradientModel(context: GradientSource, { rows, batches }: Plan): Promise<GradientModel> {
  const { engine, fixedBatch, layers, settings } = context;
  const first = await firstOf(batches());
  const graph = new Graph(context.model);
  const { kind, outputs } = await lossOutputs(context, graph, first);
  exposeOnly(graph, outputs);
  const read = new Set(graph.inputs.map((input) => input.name));
  const feeds = Object.fromEntries(Object.entries(first.feeds).filter(([name]) => read.has(name)));
  const forward = graph.toModel();
  const shapes =
    fixedBatch === undefined
      ? await shapesOfBatch(engine, forward, (count) => takeRows(feeds, count), rows)
      : dimsOf(await traceShapes(engine, forward, feeds));
  const loss = insertRiskLoss(graph, {
    ...{ kind, outputs, rows, seed: settings.seed },
    dimsOf: ({ name }) => shapes.get(name) as readonly number[],
  });
  for (const { value, dims } of loss.inputs) shapes.set(value.name, dims);
  const starts = [...outputs, ...loss.inputs.map(({ value }) => value)];
  for (const [name, shape] of await shapesBetween(engine, graph, starts, loss.value, shapes)) shapes.set(name, shape);
  const weights = [...new Set(layers.map((layer) => graph.value(layer.weight.name)))].filter((w) => w !== undefined);
  const refusals: FlowCompressError[] = [];
  const gradients = differentiate(graph, loss.value, weights, { shapes, onRefusal: (error) => refusals.push(error) });
  const norms = [...gradients].map(([weight, gradient]) => ({
    weight: weight.name,
    value: reduce(graph, 'ReduceL2', gradient),
  }));
  exposeOnly(
    graph,
    norms.map(({ value }) => value),
  );
  return { graph, loss, norms: norms.map(({ weight, value }) => ({ weight, value: value.name })), refusals };
}

/** What the loss is and the values of the graph that it reads. */
async function lossOutputs(
  { engine, model, scores, settings, shapes }: GradientSource,
  graph: Graph,
  batch: Batch,
): Promise<{ kind: RiskLossKind; outputs: readonly Value[] }> {
  const isFloat = ({ name }: Value): boolean => shapes.get(name)?.type === 'float32';
  const reference = settings.sensitivityMode === 'reference';
  const value = scores === undefined ? undefined : graph.value(scores);
  if (value && isFloat(value)) {
    const kind = batch.labels ? 'labels' : reference ? 'squares' : 'drawn-labels';
    const logits = logitsOf(value);
    if (logits !== value) return { kind, outputs: [logits] };
    const outputs = await runOnce(engine, model, batch.feeds);
    return { kind, outputs: [isProbabilities(outputs[value.name]!) ? logarithm(graph, value) : value] };
  }
  const outputs = graph.outputs.filter((output) => output.producer && isFloat(output));
  if (outputs.length === 0)
    throw new FlowCompressError('unsupported', 'no output of the model is float32.', {
      hint: 'Choose the sensitivity that is measured.',
    });
  return { kind: reference ? 'squares' : 'random-signs', outputs };
}

/** Logits of probabilities that no Softmax node makes. */
function logarithm(graph: Graph, probabilities: Value): Value {
  const op = formula(graph);
  return op('Log', op('Max', probabilities, 1e-12));
}

function dimsOf(traced: TracedValues): Map<string, Shape> {
  return new Map([...traced].map(([name, { dims }]) => [name, dims]));
}

async function firstOf(batches: AsyncIterable<Batch>): Promise<Batch> {
  for await (const batch of batches) return batch;
  throw new FlowCompressError('bad-input', 'There are no calibration samples.', { hint: 'Give more data.' });
}

/** The batches with what the loss is fed beside the inputs of the model. */
async function* withLossInputs(batches: AsyncIterable<Batch>, { inputs }: RiskLoss): AsyncGenerator<Batch> {
  let first = 0;
  for await (const batch of batches) {
    const feeds: Feeds = { ...batch.feeds };
    for (const { value, dims, fill } of inputs)
      feeds[value.name] = { type: 'float32', dims, data: fill({ first, size: batch.size, labels: batch.labels }) };
    yield { ...batch, feeds };
    first += batch.size;
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
