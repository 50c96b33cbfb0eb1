/**
 * Gradients of a loss over calibration samples, batch by batch: reverse mode inside the engine, from which only what is made of
 * the gradients is read. Memory does not grow with the samples.
 */
import { differentiate } from '../autodiff/differentiate.js';
import type { Shape } from '../autodiff/rule.js';
import type { Batch } from '../data/dataset.js';
import { FlowCompressError } from '../errors.js';
import { tracedRows } from '../flow/sample-axis.js';
import type { ModelProto } from 'onnx-buf';
import { Graph, type Value } from '../onnx/graph.js';
import { macCounter } from '../onnx/macs.js';
import { formula } from '../onnx/ops.js';
import type { RunControl } from '../progress.js';
import type { Engine, Feeds, HostTensor } from '../runtime/engine.js';
import { isProbabilities } from '../runtime/output-divergence.js';
import { runProbes } from '../runtime/probe.js';
import { takeRows } from '../runtime/rows.js';
import { runOnce } from '../runtime/run-once.js';
import { bytesPerSample, exposeOnly, traceShapes, type TracedValues } from '../runtime/trace.js';
import { logitsOf } from '../training/logits.js';
import { shapesBetween, shapesOfBatch } from '../training/step-shapes.js';
import { PROBE_MACS } from './kl-probe.js';
import { insertRiskLoss, type RiskLoss, type RiskLossKind } from './risk-loss.js';

/** Bytes of the activations of one batch, most of which are kept for the way back. */
const BATCH_BYTES = 256e6;

export interface GradientPass {
  readonly engine: Engine;
  /** Opset 13 or newer. */
  readonly model: ModelProto;
  /** Dims of every value for one sample, or for the rows that the model insists on. */
  readonly shapes: TracedValues;
  /** Name of the output with one score per class, if the model has one. */
  readonly scores: string | undefined;
  /** Rows that the model insists on. */
  readonly fixedBatch: number | undefined;
  /** The first samples of CALIB in batches of so many rows. */
  readonly batches: (samples: number, rows: number) => AsyncIterable<Batch>;
  /** Samples that there are, and those that are read at most. */
  readonly available: number;
  readonly wanted: number;
  /** Samples per gradient, fewer where activations are large. */
  readonly batchSize: number;
  /** Of the loss, by whether the model scores classes and whether the data has labels. */
  readonly kindOf: (has: { readonly scores: boolean; readonly labels: boolean }) => RiskLossKind;
  readonly seed: number;
  /** Every batch is read so many times, each time with other numbers in inputs that the reader has added; once when absent. */
  readonly repeats?: { readonly count: number; readonly feeds: (repeat: number, batch: number) => Feeds };
}

/** What is made of the gradients. */
export interface GradientReader {
  /** Names of the float initializers whose gradients are wanted. */
  readonly wanted: readonly string[];
  /** Adds the values that are read for every batch. @param gradients by name of the initializer; absent where the loss does not depend on it */
  readonly attach: (graph: Graph, gradients: ReadonlyMap<string, Value>) => readonly Value[];
  /** @param samples in the batch, over which the loss is a mean @param repeat of this batch, from 0 */
  readonly update: (values: readonly HostTensor[], samples: number, repeat: number) => void;
  /** As in `differentiate`: takes the place of the error. */
  readonly onRefusal?: ((error: FlowCompressError) => void) | undefined;
}

/**
 * Labels of the data where there are any, labels drawn from the model's own probabilities where there are none, and random signs for
 * outputs that are no scores.
 */
export const ordinaryLoss: GradientPass['kindOf'] = ({ scores, labels }) =>
  scores ? (labels ? 'labels' : 'drawn-labels') : 'random-signs';

/**
 * @returns how many batches there were
 * @throws FlowCompressError `unsupported` when no output of the model is float32 or, without `onRefusal`, naming the first node
 *   that has no gradient rule; `aborted`, `io`
 */
export async function readGradients(pass: GradientPass, reader: GradientReader, control: RunControl): Promise<number> {
  const plan = planOf(pass);
  const { graph, loss, read } = await gradientModel(pass, plan, reader);
  const repeats = pass.repeats?.count ?? 1;
  let runs = 0;
  await runProbes(
    {
      ...{ engine: pass.engine, model: graph.toModel(), shapes: pass.shapes, stage: 'measure gradients' },
      batches: withLossInputs(pass.batches(plan.samples, plan.rows), loss, pass.repeats),
      probes: [
        {
          attach: ({ graph: whole }) => read.map((name) => whole.mustGet(name)),
          update: (values, { size }) => {
            reader.update(values, size, runs++ % repeats);
          },
        },
      ],
      total: repeats * plan.samples,
    },
    control,
  );
  return plan.count;
}

interface Plan {
  /** Rows of every batch, padding included. */
  readonly rows: number;
  readonly count: number;
  readonly samples: number;
}

/** Whole batches only: the norm of a mean over fewer samples is larger. */
function planOf({ model, shapes, fixedBatch, available, wanted: most, batchSize, repeats }: GradientPass): Plan {
  const graph = new Graph(model);
  const traced = tracedRows(graph, shapes);
  const bytes = bytesPerSample(shapes.values(), traced);
  // Both gradients of a layer take as many operations as the layer.
  const macs = 3 * (repeats?.count ?? 1) * (macCounter(graph, shapes, traced).total() ?? 0);
  const affordable = Math.max(1, Math.floor(PROBE_MACS / Math.max(macs, 1)));
  const wanted = Math.min(most, available, affordable);
  const rows = fixedBatch ?? Math.max(1, Math.min(batchSize, wanted, Math.floor(BATCH_BYTES / Math.max(bytes, 1))));
  const count = Math.max(1, Math.floor(wanted / rows));
  return { rows, count, samples: Math.min(count * rows, available) };
}

async function gradientModel(
  pass: GradientPass,
  { rows, samples }: Plan,
  { wanted, attach, onRefusal }: GradientReader,
): Promise<{ graph: Graph; loss: RiskLoss; read: readonly string[] }> {
  const { engine, fixedBatch, seed } = pass;
  const first = await firstOf(pass.batches(samples, rows));
  const graph = new Graph(pass.model);
  const { kind, outputs } = await lossOutputs(pass, graph, first);
  exposeOnly(graph, outputs);
  const read = new Set(graph.inputs.map((input) => input.name));
  const feeds = Object.fromEntries(Object.entries(first.feeds).filter(([name]) => read.has(name)));
  const forward = graph.toModel();
  const shapes =
    fixedBatch === undefined
      ? await shapesOfBatch(engine, forward, (count) => takeRows(feeds, count), rows)
      : dimsOf(await traceShapes(engine, forward, feeds));
  const loss = insertRiskLoss(graph, {
    ...{ kind, outputs, rows, seed },
    dimsOf: ({ name }) => shapes.get(name) as readonly number[],
  });
  for (const { value, dims } of loss.inputs) shapes.set(value.name, dims);
  const starts = [...outputs, ...loss.inputs.map(({ value }) => value)];
  for (const [name, shape] of await shapesBetween(engine, graph, starts, loss.value, shapes)) shapes.set(name, shape);
  const weights = [...new Set(wanted)].map((name) => graph.value(name)).filter((value) => value !== undefined);
  const gradients = differentiate(graph, loss.value, weights, { shapes, ...(onRefusal && { onRefusal }) });
  const values = attach(graph, new Map([...gradients].map(([weight, gradient]) => [weight.name, gradient])));
  exposeOnly(graph, values);
  return { graph, loss, read: values.map(({ name }) => name) };
}

/** What the loss is and the values of the graph that it reads. */
async function lossOutputs(
  { engine, model, scores, kindOf, shapes }: GradientPass,
  graph: Graph,
  batch: Batch,
): Promise<{ kind: RiskLossKind; outputs: readonly Value[] }> {
  const isFloat = ({ name }: Value): boolean => shapes.get(name)?.type === 'float32';
  const value = scores === undefined ? undefined : graph.value(scores);
  if (value && isFloat(value)) {
    const kind = kindOf({ scores: true, labels: batch.labels !== undefined });
    const logits = logitsOf(value);
    if (logits !== value) return { kind, outputs: [logits] };
    const outputs = await runOnce(engine, model, batch.feeds);
    return { kind, outputs: [isProbabilities(outputs[value.name]!) ? logarithm(graph, value) : value] };
  }
  const outputs = graph.outputs.filter((output) => output.producer && isFloat(output));
  if (outputs.length === 0)
    throw new FlowCompressError('unsupported', 'no output of the model is float32.', {
      hint: 'Choose a measure that needs no gradients.',
    });
  return { kind: kindOf({ scores: false, labels: batch.labels !== undefined }), outputs };
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
async function* withLossInputs(
  batches: AsyncIterable<Batch>,
  { inputs }: RiskLoss,
  repeats: GradientPass['repeats'],
): AsyncGenerator<Batch> {
  let [first, number] = [0, 0];
  for await (const batch of batches) {
    const feeds: Feeds = { ...batch.feeds };
    for (const { value, dims, fill } of inputs)
      feeds[value.name] = { type: 'float32', dims, data: fill({ first, size: batch.size, labels: batch.labels }) };
    for (let repeat = 0; repeat < (repeats?.count ?? 1); repeat++)
      yield { ...batch, feeds: { ...feeds, ...repeats?.feeds(repeat, number) } };
    first += batch.size;
    number++;
  }
}
