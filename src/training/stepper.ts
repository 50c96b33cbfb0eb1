/** A training graph at work: the compiled step and the vectors that it carries from one call to the next. */
import type { ModelProto } from 'onnx-buf';
import { FlowCompressError } from '../errors.js';
import { toBytes } from '../onnx/to-bytes.js';
import type { Engine, Feeds, HostTensor, Session } from '../runtime/engine.js';
import { drawMask } from './dropout.js';
import { OPTIMIZERS, type OptimizerName, type OptimizerSettings } from './optimizers.js';
import { readParameters, type Slot } from './parameters.js';
import type { TrainingGraph, VectorNames } from './training-graph.js';

/** Everything that a training changes, by kind; the optimiser's states in order. */
export interface TrainingVectors {
  parameters: Float32Array;
  buffers: Float32Array;
  states: Float32Array[];
  /** Moving average of the parameters, where one is kept. */
  average?: Float32Array;
}

/**
 * Parameters and statistics as the model has them, states of zeros.
 * @param average whether the graph keeps a moving average, which starts at the parameters
 */
export function startVectors(
  model: ModelProto,
  parameters: readonly Slot[],
  { names, buffers }: TrainingGraph,
  average = false,
): TrainingVectors {
  const flat = readParameters(model, parameters);
  return {
    parameters: flat,
    buffers: readParameters(model, buffers),
    states: names.vectors.filter(({ kind }) => kind === 'state').map(({ size }) => new Float32Array(size)),
    ...(average && { average: flat.slice() }),
  };
}

export interface StepInput {
  /** The model's own inputs. */
  readonly feeds: Feeds;
  readonly target: HostTensor;
  /** [N]: factors on the losses of the samples, where the graph takes them. */
  readonly weights?: HostTensor;
  /** One for every hint of the graph. */
  readonly hints?: readonly HintInput[];
  /** On the loss of the output, where the graph has hints; 1 when absent. */
  readonly factor?: number;
}

export interface HintInput {
  readonly target: HostTensor;
  /** On its loss. */
  readonly factor: number;
}

export interface StepResult {
  /** Of the output and the hints together. */
  readonly loss: number;
  /** Of each hint alone, without its factor. */
  readonly hints: readonly number[];
  /** Of the output alone, without its factor. */
  readonly main: number;
  /** Values that the graph gives out, by batch. */
  readonly observed: readonly (readonly HostTensor[])[];
  /** Norm of the gradient before clipping. */
  readonly norm: number;
  /** Values of the output that the loss reads. */
  readonly outputs: readonly HostTensor[];
}

export interface Stepper {
  readonly vectors: TrainingVectors;
  /** Updates done. */
  readonly steps: number;
  /**
   * One update from as many batches as gradients are accumulated over.
   * @throws FlowCompressError `bad-input` when the loss or a gradient is not finite: the vectors are left as they were
   */
  step(inputs: readonly StepInput[], learningRate: number): Promise<StepResult>;
  /** What a step would say, with the vectors left as they are. Errors as `step`. */
  measure(inputs: readonly StepInput[]): Promise<StepResult>;
  release(): Promise<void>;
}

/**
 * @param vectors where to start; `steps` updates have been done already
 */
export async function openStepper(
  engine: Engine,
  graph: TrainingGraph,
  optimizer: { readonly name: OptimizerName; readonly settings: OptimizerSettings },
  vectors: TrainingVectors,
  done = 0,
): Promise<Stepper> {
  const open = (model: ModelProto): Promise<Session> => engine.createSession(toBytes(model), { memoryPattern: false });
  const update = await open(graph.update);
  const gather = graph.gather && (await open(graph.gather));
  const { names } = graph;
  const state = { ...vectors, states: [...vectors.states] };
  let steps = done;
  const masks = names.masks.map((mask) => ({ mask, data: new Float32Array(mask.dims.reduce((a, b) => a * b, 1)) }));

  const vectorFeeds = (): Feeds => {
    const feeds: Feeds = {};
    let stateIndex = 0;
    for (const vector of names.vectors) {
      const data = vector.kind === 'state' ? state.states[stateIndex++]! : ownVector(state, vector);
      feeds[vector.input] = { type: 'float32', dims: [vector.size], data };
    }
    return feeds;
  };
  const adopt = (results: Record<string, HostTensor>): void => {
    let stateIndex = 0;
    for (const { kind, output } of names.vectors) {
      const data = results[output]?.data as Float32Array | undefined;
      if (kind === 'state') stateIndex++;
      if (!data) continue;
      if (kind === 'state') state.states[stateIndex - 1] = data;
      else if (kind === 'parameters') state.parameters = data;
      else if (kind === 'buffers') state.buffers = data;
      else if (kind === 'average') state.average = data;
    }
  };

  const scalarFeeds = (learningRate: number): Feeds => {
    const values = [learningRate, ...OPTIMIZERS[optimizer.name].scalars(steps + 1, optimizer.settings)];
    return Object.fromEntries(names.scalars.map((name, k) => [name, scalar(values[k]!)]));
  };
  /** What the session takes of everything that there is to feed. */
  const feedsOf = (
    session: Session,
    { feeds, target, weights, hints = [], factor = 1 }: StepInput,
    batch: number,
    learningRate: number,
  ): Feeds => {
    const all: Feeds = { ...feeds, ...vectorFeeds(), ...scalarFeeds(learningRate), [names.target]: target };
    if (names.weights !== undefined && weights) all[names.weights] = weights;
    if (names.main) all[names.main.factor] = scalar(factor);
    for (const [i, hint] of names.hints.entries()) {
      all[hint.target] = hints[i]!.target;
      all[hint.factor] = scalar(hints[i]!.factor);
    }
    for (const { mask, data } of masks) all[mask.input] = drawMask(mask, batch, data);
    const taken = new Set(session.inputs.map(({ name }) => name));
    return Object.fromEntries(Object.entries(all).filter(([name]) => taken.has(name)));
  };
  const stepped = async (inputs: readonly StepInput[], learningRate: number): Promise<StepResult> => {
    const outputs: HostTensor[] = [];
    const hints = names.hints.map(() => 0);
    const observed: HostTensor[][] = [];
    let [loss, main] = [0, 0];
    let norm = NaN;
    let accumulated = new Float32Array(names.accumulated?.size ?? 0);
    for (const [i, input] of inputs.entries()) {
      const last = i === inputs.length - 1;
      const session = last ? update : gather!;
      const feeds = feedsOf(session, input, steps * inputs.length + i, learningRate);
      if (names.accumulated)
        feeds[names.accumulated.input] = { type: 'float32', dims: [accumulated.length], data: accumulated };
      const results = await session.run(feeds);
      loss += scalarOf(results, names.loss) / inputs.length;
      main += scalarOf(results, names.main?.loss ?? names.loss) / inputs.length;
      observed.push(names.observed.map((name) => results[name]!));
      names.hints.forEach((hint, k) => (hints[k]! += scalarOf(results, hint.loss) / inputs.length));
      outputs.push(results[names.output]!);
      if (last) norm = scalarOf(results, names.norm);
      else accumulated = results[names.accumulated!.output]!.data as Float32Array<ArrayBuffer>;
      if (!Number.isFinite(loss) || (last && !Number.isFinite(norm)))
        throw notFinite(steps + 1, loss, results[names.output]!);
      adopt(results);
    }
    return { loss, hints, main, observed, norm, outputs };
  };

  return {
    vectors: state,
    get steps() {
      return steps;
    },
    async measure(inputs) {
      const before = { ...state, states: [...state.states] };
      try {
        return await stepped(inputs, 0);
      } finally {
        Object.assign(state, before);
      }
    },
    async step(inputs, learningRate) {
      const before = { ...state, states: [...state.states] };
      try {
        const result = await stepped(inputs, learningRate);
        steps++;
        return result;
      } catch (error) {
        Object.assign(state, before);
        throw error;
      }
    },
    async release() {
      await update.release();
      await gather?.release();
    },
  };
}

function scalar(value: number): HostTensor {
  return { type: 'float32', dims: [], data: Float32Array.of(value) };
}

function scalarOf(results: Record<string, HostTensor>, name: string): number {
  return (results[name]!.data as Float32Array)[0]!;
}

function ownVector(vectors: TrainingVectors, { kind }: VectorNames): Float32Array {
  if (kind === 'buffers') return vectors.buffers;
  if (kind === 'average') return vectors.average ?? vectors.parameters;
  return vectors.parameters;
}

function notFinite(step: number, loss: number, output: HostTensor): FlowCompressError {
  const first = (output.data as Float32Array).findIndex((v) => !Number.isFinite(v));
  const where = first >= 0 ? 'the outputs of the model' : Number.isFinite(loss) ? 'the gradient' : 'the loss';
  return new FlowCompressError(
    'bad-input',
    `Training diverged at step ${String(step)}: ${where} became NaN or infinite.`,
    {
      hint: 'Lower --lr, add --warmup or --clip-norm, and look for NaN in the data; the last good checkpoint is kept.',
    },
  );
}
