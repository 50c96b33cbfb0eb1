/**
 * One step of training as a model of standard operators: forward pass, loss, gradients, update. Parameters, running
 * statistics and optimiser state are vectors that go in and come out.
 */
import { TensorProto_DataType as DataType, type ModelProto } from 'onnx-buf';
import { differentiate } from '../autodiff/differentiate.js';
import type { Shape } from '../autodiff/rule.js';
import type { ConvShape, FormsFor } from '../autodiff/rules/conv-shape.js';
import { FlowCompressError } from '../errors.js';
import { Graph, rewrite, type Value } from '../onnx/graph.js';
import { concat, constantOf, formula, reduce, reshape } from '../onnx/ops.js';
import { shareNodes } from '../onnx/passes/share-nodes.js';
import { blockConvolutions } from '../onnx/passes/block-convs.js';
import { fuseBlocked } from '../onnx/passes/fuse-blocked.js';
import { keepBlocked } from '../onnx/passes/keep-blocked.js';
import { simplify } from '../onnx/passes/simplify.js';
import { makeTensor } from '../onnx/tensor.js';
import { tensorInfo } from '../onnx/value-info.js';
import type { Engine, Feeds } from '../runtime/engine.js';
import { inferShapes } from '../runtime/infer-shapes.js';
import { layoutBlock } from '../runtime/layout-block.js';
import { exposeValue } from '../runtime/trace.js';
import { convShapesOf } from './conv-forms.js';
import { feedDropoutMasks, type DropoutMask } from './dropout.js';
import { meanLoss, type Loss, type LossName } from './losses.js';
import { OPTIMIZERS, split, type OptimizerName, type OptimizerSettings } from './optimizers.js';
import type { Parameter } from './parameters.js';
import { shapesBetween, shapesOfBatch } from './step-shapes.js';
import { enterTrainingMode, type BatchNormMode, type Buffer } from './training-mode.js';

export interface TrainingGraphOptions {
  readonly loss: LossName;
  /** Name of the value that the loss reads: an output, or one on the way to it. */
  readonly output: string;
  /** Samples per step; the graph takes batches of this size only. */
  /** Further values with a loss of their own, which is added to that of the output; all of them have a factor then. */
  readonly hints?: readonly Hint[];
  /** Names of values that a step gives out beside its results. */
  readonly observed?: readonly string[];
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
  /** `plain` keeps to the operators of the ONNX standard (default: ONNX Runtime's blocked layout where it has one). */
  readonly layout?: 'plain' | 'blocked';
  /** Chooses the forms of the gradients of these convolutions (default: by geometry alone). */
  readonly chooseForms?: ((shapes: readonly ConvShape[]) => Promise<FormsFor>) | undefined;
}

/** A value inside the model that is held against a fed one. */
export interface Hint {
  /** Name of the value, [N, ...]. */
  readonly value: string;
  readonly loss: LossName | Loss;
  /** Shape of what is fed, where it is not that of the value. */
  readonly targetDims?: readonly number[];
  /** Names of initializers that the loss reads and nothing else does. */
  readonly reads?: readonly string[];
}

/** Names of what goes into a step and comes out of it. */
export interface StepNames {
  /** Fed beside the model's own inputs: numbers of the shape of the loss's output. */
  readonly target: string;
  /** For every hint: numbers of the shape of its value, and a factor on its loss. */
  readonly hints: readonly { readonly target: string; readonly factor: string; readonly loss: string }[];
  /** Where there are hints: a factor on the loss of the output, and that loss without it. */
  readonly main?: { readonly factor: string; readonly loss: string };
  readonly observed: readonly string[];
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
  const hints = options.hints ?? [];
  const hinted = hints.map(({ value }) => graph.mustGet(value));
  graph.outputs.splice(0);
  const observed = (options.observed ?? []).map((name) => graph.mustGet(name));
  for (const value of new Set([output, ...hinted, ...observed])) exposeValue(graph, value);
  const read = hints.flatMap((hint) => (hint.reads ?? []).map((name) => graph.mustGet(name).initializer!));
  // First, so that nothing is left of branches that lead elsewhere.
  graph.removeDead();
  for (const tensor of read) if (!graph.value(tensor.name)) graph.addInitializer(tensor);
  const buffers = enterTrainingMode(graph, { batchNorm: options.batchNorm });
  const shapes = await shapesOfBatch(engine, graph.toModel(), feedsFor, options.batchSize);
  for (const input of graph.inputs) fixSizes(input, shapes);
  const masks = feedDropoutMasks(graph, shapes, options.seed);
  const target = vectorInput(graph, 'target', [...shapes.get(output.name)!] as number[]);
  const { batchSize, temperature } = options;
  const weights = options.weighted ? vectorInput(graph, 'sample weights', [batchSize]) : undefined;
  const outputDims = shapes.get(output.name)!;
  shapes.set(target.name, outputDims);
  if (weights) shapes.set(weights.name, [batchSize]);
  const own = meanLoss(options.loss, { graph, output, target, rank: outputDims.length, weights, temperature });
  const factorOf = (name: string): Value => {
    const factor = vectorInput(graph, name, []);
    shapes.set(factor.name, []);
    return factor;
  };
  const terms = hints.map(({ loss: kind, targetDims }, i): Term => {
    const value = hinted[i]!;
    const dims = shapes.get(value.name)!;
    const target = vectorInput(graph, `hint ${String(i)}`, targetDims ?? (dims as number[]));
    shapes.set(target.name, targetDims ?? dims);
    const loss = meanLoss(kind, { graph, output: value, target, rank: dims.length, temperature });
    return { target, factor: factorOf(`hint factor ${String(i)}`), loss };
  });
  const op = formula(graph);
  const main = terms.length > 0 ? { factor: factorOf('factor'), loss: own } : undefined;
  const loss = terms.reduce(
    (sum, term) => op('Add', sum, op('Mul', term.loss, term.factor)),
    main ? op('Mul', own, main.factor) : own,
  );
  const fed = [
    ...[output, target, ...(weights ? [weights] : []), ...hinted, ...(main ? [main.factor] : [])],
    ...terms.flatMap((term) => [term.target, term.factor]),
  ];
  // The shapes of what the loss added follow from those that are known.
  for (const [name, shape] of await shapesBetween(engine, graph, fed, loss, shapes)) shapes.set(name, shape);
  const block = options.layout === 'plain' ? undefined : await layoutBlock(engine);
  return assemble(engine, graph, {
    ...{ samples, output, target, weights, terms, main, observed, loss },
    ...{ shapes, block, buffers, masks, options },
  });
}

/** Declares an input with the sizes that it has in training, which the engine plans its memory by. */
function fixSizes(input: Value, shapes: ReadonlyMap<string, Shape>): void {
  const declared = input.info?.type?.value;
  const dims = shapes.get(input.name);
  if (declared?.case !== 'tensorType' || !dims) return;
  input.info = tensorInfo(input.name, declared.value.elemType, dims as readonly number[]);
}

interface Factored {
  readonly factor: Value;
  readonly loss: Value;
}

interface Term extends Factored {
  readonly target: Value;
}

interface Parts {
  /** The model's own inputs. */
  readonly samples: readonly Value[];
  readonly output: Value;
  readonly target: Value;
  readonly weights?: Value;
  readonly terms: readonly Term[];
  readonly main: Factored | undefined;
  readonly observed: readonly Value[];
  readonly loss: Value;
  readonly shapes: Map<string, Shape>;
  readonly block: number | undefined;
  readonly buffers: readonly Buffer[];
  readonly masks: readonly DropoutMask[];
  readonly options: TrainingGraphOptions;
}

async function assemble(engine: Engine, graph: Graph, parts: Parts): Promise<TrainingGraph> {
  const { output, target, weights, terms, main, observed, loss, shapes, block, buffers, masks, options } = parts;
  const { parameters: layout, accumulate } = options;
  const op = formula(graph);
  const total = sizeOf(layout);
  const parameters = vectorInput(graph, 'parameters', [total]);
  const pieces = unpack(graph, parameters, layout, shapes);
  const statistics = buffers.length > 0 ? vectorInput(graph, 'buffers', [sizeOf(buffers)]) : undefined;
  if (statistics) unpack(graph, statistics, buffers, shapes);
  const formsFor = await options.chooseForms?.(convShapesOf(graph, shapes, block));
  const gradients = differentiate(
    graph,
    loss,
    pieces.filter((piece) => piece !== undefined),
    { shapes, block, formsFor, ...(options.checkpointActivations && { checkpointed: parts.samples }) },
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
  for (const part of main ? [main, ...terms] : terms) declare(graph, part.loss, []);
  for (const value of observed) declare(graph, value, shapes.get(value.name) as readonly number[]);

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
  const lower = (model: ModelProto): Promise<ModelProto> => lowered(engine, model, block, shapes);
  return {
    update: await lower(graph.toModel()),
    ...(gather && { gather: await lower(gather) }),
    names: {
      target: target.name,
      hints: terms.map((term) => ({ target: term.target.name, factor: term.factor.name, loss: term.loss.name })),
      ...(main && { main: { factor: main.factor.name, loss: main.loss.name } }),
      observed: observed.map(({ name }) => name),
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

/** The same computation as the engine runs it fastest. @param known shapes of values before the lowering */
async function lowered(
  engine: Engine,
  model: ModelProto,
  block: number | undefined,
  known: ReadonlyMap<string, Shape>,
): Promise<ModelProto> {
  const tidy = tidied(model);
  if (block === undefined) return tidy;
  const shapes = await inferShapes(
    engine,
    rewrite(tidy, (graph) => void fixComputedShapes(graph, known)),
  );
  // Only what is left after the tidying in between is read as often as it seems.
  const blocked = tidied(
    rewrite(tidy, (graph) => {
      blockConvolutions(graph, block, shapes);
      keepBlocked(graph, block, shapes);
    }),
  );
  return tidied(rewrite(blocked, fuseBlocked));
}

/** Gives Reshapes to a computed shape the shape that they are known to have: nothing behind them could be inferred. */
function fixComputedShapes(graph: Graph, known: ReadonlyMap<string, Shape>): void {
  for (const node of graph.nodes) {
    const dims = known.get(node.outputs[0]!.name);
    if (!node.is('Reshape') || graph.constant(node.inputs[1]) || !dims?.every((size) => size !== undefined)) continue;
    graph.setInput(node, 1, constantOf(graph, dims, 'int64'));
  }
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
