/** Steps of training on tiny models, opened in one call. */
import type { ModelProto } from 'onnx-buf';
import { Graph } from '../onnx/graph.js';
import type { Feeds, HostTensor } from '../runtime/engine.js';
import { OPTIMIZER_DEFAULTS } from '../training/optimizers.js';
import { trainableParameters, type Parameter } from '../training/parameters.js';
import { openStepper, startVectors, type Stepper, type StepInput, type TrainingVectors } from '../training/stepper.js';
import { buildTrainingGraph, type TrainingGraph, type TrainingGraphOptions } from '../training/training-graph.js';
import { engine } from './graph-writing.js';
import { normals } from './tiny-models.js';

export interface TinyTraining {
  readonly graph: TrainingGraph;
  readonly parameters: readonly Parameter[];
  readonly stepper: Stepper;
  /** Another one that goes on from these vectors. */
  reopen(vectors: TrainingVectors, done: number): Promise<Stepper>;
}

/**
 * Plain SGD on the mean squared error, unless told otherwise.
 * @param dims of a sample of the input x
 * @param others what else is fed, for so many samples
 */
export async function openTraining(
  model: ModelProto,
  dims: readonly number[],
  options: Partial<TrainingGraphOptions> & Pick<TrainingGraphOptions, 'batchSize'>,
  others: (rows: number) => Feeds = () => ({}),
): Promise<TinyTraining> {
  const parameters = options.parameters ?? trainableParameters(new Graph(model));
  const full: TrainingGraphOptions = {
    ...{ loss: 'mse', output: 'y', parameters, optimizer: 'sgd', weightDecay: 0, accumulate: 1, temperature: 1 },
    ...{ optimizerSettings: { ...OPTIMIZER_DEFAULTS, momentum: 0, nesterov: false } },
    ...{ batchNorm: 'updated', seed: 1 },
    ...options,
  };
  const graph = await buildTrainingGraph(engine, model, full, (rows) => ({
    ...{ x: samples(dims, rows, 90) },
    ...others(rows),
  }));
  const vectors = startVectors(model, parameters, graph, full.emaDecay !== undefined);
  const reopen = (from: TrainingVectors, done: number): Promise<Stepper> =>
    openStepper(engine, graph, { name: full.optimizer, settings: full.optimizerSettings }, from, done);
  return { graph, parameters, stepper: await reopen(vectors, 0), reopen };
}

/** Normal numbers [rows, ...dims]. */
export function samples(dims: readonly number[], rows: number, seed: number): HostTensor {
  const all = [rows, ...dims];
  return {
    type: 'float32',
    dims: all,
    data: normals(
      all.reduce((a, b) => a * b, 1),
      seed,
    ),
  };
}

/** A batch of random inputs x and random targets. */
export function randomInput(
  dims: readonly number[],
  targetDims: readonly number[],
  rows: number,
  seed: number,
): StepInput & { feeds: Feeds } {
  return { feeds: { x: samples(dims, rows, seed) }, target: samples(targetDims, rows, seed + 1000) };
}

/** Rows `from` to `to` of a batch. */
export function rowsOf({ feeds, target }: StepInput, from: number, to: number): StepInput {
  const cut = (tensor: HostTensor): HostTensor => {
    const size = tensor.data.length / tensor.dims[0]!;
    const data = (tensor.data as Float32Array).slice(from * size, to * size);
    return { type: 'float32', dims: [to - from, ...tensor.dims.slice(1)], data };
  };
  return { feeds: Object.fromEntries(Object.entries(feeds).map(([name, t]) => [name, cut(t)])), target: cut(target) };
}

/** A copy that later steps do not change. */
export function copyVectors({ parameters, buffers, states, average }: TrainingVectors): TrainingVectors {
  return {
    parameters: parameters.slice(),
    buffers: buffers.slice(),
    states: states.map((state) => state.slice()),
    ...(average && { average: average.slice() }),
  };
}
