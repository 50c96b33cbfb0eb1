/**
 * One step of training as a model of standard operators: forward pass, loss, gradients, update. Parameters, running
 * statistics and optimiser state are vectors that go in and come out.
 */
import { TensorProto_DataType as DataType, type ModelProto } from 'onnx-buf';
import { differentiate } from '../autodiff/differentiate.js';
import type { Shape } from '../autodiff/rule.js';
import { FlowCompressError } from '../errors.js';
import { Graph, rewrite, type Value } from '../onnx/graph.js';
import { concat, formula, reduce, reshape } from '../onnx/ops.js';
import { shareNodes } from '../onnx/passes/share-nodes.js';
import { simplify } from '../onnx/passes/simplify.js';
import { makeTensor } from '../onnx/tensor.js';
import { tensorInfo } from '../onnx/value-info.js';
import type { Engine, Feeds } from '../runtime/engine.js';
import { exposeValue, traceShapes } from '../runtime/trace.js';
import { feedDropoutMasks, type DropoutMask } from './dropout.js';
import { meanLoss, type LossName } from './losses.js';
import { OPTIMIZERS, split, type OptimizerName, type OptimizerSettings } from './optimizers.js';
import type { Parameter } from './parameters.js';
import { enterTrainingMode, type BatchNormMode, type Buffer } from './training-mode.js';

export interface TrainingGraphOptions {
  readonly loss: LossName;
  /** Name of the value that the loss reads: an output, or one on the way to it. */
  readonly output: string;
  /** Samples per step; the graph takes batches of this size only. */
  readonly batchSize: number;
  readonly parameters: readonly Parameter[];
  readonly optimizer: OptimizerName;
  readonly optimizerSettings: OptimizerSettings;
  readonly weightDecay: number;
  /** Largest norm of the gradient over all parameters; longer ones are scaled down. */
  readonly clipNorm?: number;
  /** Decay of the moving average of the parameters, which is kept beside them. */
  readonly emaDecay?: number;
  /** Steps whose gradients are averaged before an update. */
  readonly accumulate: number;
  /** Whether a factor on the loss of every sample is fed. */
  readonly weighted?: boolean;
  readonly temperature: number;
  readonly batchNorm: BatchNormMode;
  /** Compute activations anew in the backward pass instead of keeping them. */
  readonly checkpointActivations?: boolean;
  readonly seed: number;
}

/** Names of what goes into a step and comes out of it. */
export interface StepNames {
  /** Fed beside the model's own inputs: numbers of the shape of the loss's output. */
  readonly target: string;
  /** [N]: factors on the losses of the samples. */
  readonly weights?: string;
  /** [P], [B] running statistics, then one [P] per state of the optimiser. */
  readonly vectors: readonly VectorNames[];
  /** [P]: mean gradient of the steps before, when gradients are accumulated. */
  readonly accumulated?: VectorNames;
  /** To be drawn and fed for every batch. */
  readonly masks: readonly DropoutMask[];
  /** Scalars: learning rate, then those of the optimiser. */
  readonly scalars: readonly string[];
  readonly loss: string;
  readonly output: string;
  /** Norm of the gradient before clipping. */
  readonly norm: string;
}

export interface VectorNames {
  readonly kind: 'parameters' | 'buffers' | 'state' | 'average' | 'gradient';
  readonly input: string;
  readonly output: string;
  readonly size: number;
}

export interface TrainingGraph {
  /** A whole step. */
  readonly update: ModelProto;
  /** Forward and backward only, adding to the accumulated gradient; absent unless gradients are accumulated. */
  readonly gather?: ModelProto;
  readonly names: StepNames;
  readonly buffers: readonly Pick<Buffer, 'name' | 'size'>[];
}

/**
 * @param model float32, opset 13 or newer
 * @param feedsFor feeds of a few real samples, to see the shapes
 * @throws FlowCompressError `unsupported` naming the node without a gradient rule; `bad-input` when the model has no such value
 */
export async function buildTrainingGraph(
  engine: Engine,
  model: ModelProto,
  options: TrainingGraphOptions,
  feedsFor: (rows: number) => Feeds,
): Promise<TrainingGraph> {
  const graph = new Graph(model);
  const samples = graph.inputs.filter((input) => graph.isFed(input));
  // Batch normalization has a training mode since opset 15; nothing else differs from 13 in what it computes.
  graph.requireOpset(15);
  const output = graph.value(options.output);
  if (!output?.producer)
    throw new FlowCompressError('bad-input', `The model computes no value named '${options.output}'.`, {
      hint: `Its outputs are ${graph.outputs.map((value) => value.name).join(', ')}.`,
    });
  graph.outputs.splice(0);
  exposeValue(graph, output);
  // First, so that nothing is left of branches that lead elsewhere.
  graph.removeDead();
  const buffers = enterTrainingMode(graph, { batchNorm: options.batchNorm });
  const shapes = await shapesOf(engine, graph.toModel(), feedsFor, options.batchSize);
  const masks = feedDropoutMasks(graph, shapes, options.seed);
  const target = vectorInput(graph, 'target', [...shapes.get(output.name)!] as number[]);
  const { batchSize, temperature } = options;
  const weights = options.weighted ? vectorInput(graph, 'sample weights', [batchSize]) : undefined;
  const outputDims = shapes.get(output.name)!;
  const rank = outputDims.length;
  shapes.set(target.name, outputDims);
  if (weights) shapes.set(weights.name, [batchSize]);
  const loss = meanLoss(options.loss, { graph, output, target, rank, weights, temperature });
  // The shapes of what the loss added follow from those that are known.
  for (const [name, shape] of await lossShapes(engine, graph, loss, [output, target, weights], shapes))
    shapes.set(name, shape);
  return assemble(graph, { samples, output, target, weights, loss, shapes, buffers, masks, options });
}

/** Shape of every value at that batch size, from what two smaller ones show. */
async function shapesOf(
  engine: Engine,
  model: ModelProto,
  feedsFor: (rows: number) => Feeds,
  batchSize: number,
): Promise<Map<string, Shape>> {
  const [two, three] = [await traceShapes(engine, model, feedsFor(2)), await traceShapes(engine, model, feedsFor(3))];
  const shapes = new Map<string, Shape>();
  for (const [name, { dims }] of two) {
    const more = three.get(name)?.dims ?? dims;
    // Sizes grow linearly with the batch, if at all.
    shapes.set(
      name,
      dims.map((size, axis) => size + ((more[axis] ?? size) - size) * (batchSize - 2)),
    );
  }
  return shapes;
}

/** Shapes of the values between the loss and what it is computed from, by running that part alone on zeros. */
async function lossShapes(
  engine: Engine,
  graph: Graph,
  loss: Value,
  sources: readonly (Value | undefined)[],
  shapes: ReadonlyMap<string, Shape>,
): Promise<Map<string, Shape>> {
  const part = new Graph(graph.toModel());
  const feeds: Feeds = {};
  for (const source of sources) {
    if (!source) continue;
    const { name } = source;
    const dims = [...(shapes.get(name) as readonly number[])];
    part.feed(part.mustGet(name), tensorInfo(name, DataType.FLOAT, dims));
    feeds[name] = { type: 'float32', dims, data: new Float32Array(dims.reduce((a, b) => a * b, 1)) };
  }
  const end = part.mustGet(loss.name);
  end.info = tensorInfo(end.name, DataType.FLOAT, []);
  part.outputs.splice(0, part.outputs.length, end);
  part.removeDead();
  part.dropUnreadInputs();
  const traced = await traceShapes(engine, part.toModel(), feeds);
  return new Map([...traced].map(([name, { dims }]) => [name, dims]));
}

interface Parts {
  /** The model's own inputs. */
  readonly samples: readonly Value[];
  readonly output: Value;
  readonly target: Value;
  readonly weights?: Value;
  readonly loss: Value;
  readonly shapes: Map<string, Shape>;
  readonly buffers: readonly Buffer[];
  readonly masks: readonly DropoutMask[];
  readonly options: TrainingGraphOptions;
}

function assemble(graph: Graph, parts: Parts): TrainingGraph {
  const { output, target, weights, loss, shapes, buffers, masks, options } = parts;
  const { parameters: layout, accumulate } = options;
  const op = formula(graph);
  const total = sizeOf(layout);
  const parameters = vectorInput(graph, 'parameters', [total]);
  const pieces = unpack(graph, parameters, layout, shapes);
  const statistics = buffers.length > 0 ? vectorInput(graph, 'buffers', [sizeOf(buffers)]) : undefined;
  if (statistics) unpack(graph, statistics, buffers, shapes);
  const gradients = differentiate(
    graph,
    loss,
    pieces.filter((piece) => piece !== undefined),
    { shapes, ...(options.checkpointActivations && { checkpointed: parts.samples }) },
  );
  // Parameters that the loss does not depend on stay as they are: no gradient, no decay.
  const reached = pieces.map((piece) => piece && gradients.get(piece));
  const vector = concat(
    graph,
    reached.map((gradient, i) => (gradient ? reshape(graph, gradient, [-1]) : zeros(graph, layout[i]!.size))),
    0,
  );
  const decaying = layout.map((parameter, i) => ({ ...parameter, decays: parameter.decays && !!reached[i] }));
  const updated =
    buffers.length > 0
      ? concat(
          graph,
          buffers.map((buffer) => buffer.updated),
          0,
        )
      : undefined;
  const vectors: VectorNames[] = [];
  const carried = (kind: VectorNames['kind'], input: Value, result: Value, size: number): VectorNames => {
    declare(graph, result, [size]);
    return { kind, input: input.name, output: result.name, size };
  };
  graph.outputs.splice(0, graph.outputs.length);
  declare(graph, output, shapes.get(output.name) as readonly number[]);
  declare(graph, loss, []);

  let gradient = vector;
  let accumulated: VectorNames | undefined;
  let gather: ModelProto | undefined;
  if (statistics && updated) vectors.push(carried('buffers', statistics, updated, sizeOf(buffers)));
  if (accumulate > 1) {
    const before = vectorInput(graph, 'accumulated', [total]);
    gradient = op('Add', before, op('Mul', vector, 1 / accumulate));
    accumulated = carried('gradient', before, gradient, total);
    gather = graph.toModel();
    graph.outputs.splice(graph.outputs.indexOf(gradient), 1);
  }
  const norm = graph.insertOp('Sqrt', [reduce(graph, 'ReduceSumSquare', gradient)], [], graph.uniqueName('norm'));
  declare(graph, norm, []);
  const optimizer = OPTIMIZERS[options.optimizer];
  const states = Array.from({ length: optimizer.states }, (_, i) => vectorInput(graph, `state ${String(i)}`, [total]));
  const learningRate = vectorInput(graph, 'learning rate', []);
  const scalars = optimizer
    .scalars(1, options.optimizerSettings)
    .map((_, i) => vectorInput(graph, `scalar ${String(i)}`, []));
  const result = optimizer.update({
    graph,
    parameters,
    gradient: options.clipNorm === undefined ? gradient : clipped(graph, gradient, norm, options.clipNorm),
    states,
    decay: options.weightDecay > 0 ? decayVector(graph, decaying, options.weightDecay) : undefined,
    ...{ learningRate, scalars, layout, settings: options.optimizerSettings },
  });
  vectors.unshift(carried('parameters', parameters, result.parameters, total));
  states.forEach((state, i) => vectors.push(carried('state', state, result.states[i]!, total)));
  if (options.emaDecay !== undefined) {
    const average = vectorInput(graph, 'average', [total]);
    const fresh = op('Mul', result.parameters, 1 - options.emaDecay);
    const next = op('Add', op('Mul', average, options.emaDecay), fresh);
    vectors.push(carried('average', average, next, total));
  }
  return {
    update: tidied(graph.toModel()),
    ...(gather && { gather: tidied(gather) }),
    names: {
      target: target.name,
      ...(weights && { weights: weights.name }),
      vectors,
      ...(accumulated && { accumulated }),
      masks,
      scalars: [learningRate.name, ...scalars.map((value) => value.name)],
      loss: loss.name,
      output: output.name,
      norm: norm.name,
    },
    buffers: buffers.map(({ name, size }) => ({ name, size })),
  };
}

/** The same computation in fewer nodes. */
function tidied(model: ModelProto): ModelProto {
  return rewrite(model, (graph) => {
    graph.removeDead();
    graph.dropUnreadInputs();
    simplify(graph);
    shareNodes(graph);
    graph.removeDead();
  });
}

function sizeOf(parts: readonly { readonly size: number }[]): number {
  return parts.reduce((sum, { size }) => sum + size, 0);
}

/** A float32 input of the graph under a free name. */
function vectorInput(graph: Graph, name: string, dims: readonly number[]): Value {
  return graph.addInput(tensorInfo(name, DataType.FLOAT, dims));
}

function declare(graph: Graph, value: Value, dims: readonly number[]): void {
  value.info = tensorInfo(value.name, DataType.FLOAT, dims);
  if (!graph.isGraphOutput(value)) graph.outputs.push(value);
}

/** Cuts a vector into tensors that take the places of the initializers of those names; undefined where there is none. */
function unpack(
  graph: Graph,
  flat: Value,
  layout: readonly { readonly name: string; readonly size: number }[],
  shapes: Map<string, Shape>,
): (Value | undefined)[] {
  return split(graph, flat, layout).map((part, i) => {
    const initializer = graph.value(layout[i]!.name);
    if (!initializer?.initializer) return undefined;
    const dims = initializer.initializer.dims.map(Number);
    const value = reshape(graph, part, dims);
    shapes.set(value.name, dims);
    graph.replaceUses(initializer, value);
    return value;
  });
}

function zeros(graph: Graph, size: number): Value {
  return graph.addInitializer(makeTensor(graph.uniqueName('zeros'), DataType.FLOAT, [size], new Float32Array(size)));
}

/** gradient min(1, limit / norm) */
function clipped(graph: Graph, gradient: Value, norm: Value, limit: number): Value {
  const op = formula(graph);
  return op('Mul', gradient, op('Min', op('Div', limit, op('Add', norm, 1e-12)), 1));
}

function decayVector(graph: Graph, layout: readonly Parameter[], decay: number): Value {
  const values = new Float32Array(sizeOf(layout));
  let at = 0;
  for (const { size, decays } of layout) {
    if (decays) values.fill(decay, at, at + size);
    at += size;
  }
  return graph.addInitializer(makeTensor(graph.uniqueName('decay'), DataType.FLOAT, [values.length], values));
}
