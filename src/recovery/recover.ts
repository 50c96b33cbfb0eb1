/**
 * Recovery: a compressed model learns to answer like the original, from samples without labels. VAL, on the very files that
 * would be written, decides which state of it is kept: the start, if no other is better.
 */
import type { ModelProto } from 'onnx-buf';
import type { Dataset } from '../data/dataset.js';
import type { RunControl } from '../progress.js';
import type { Engine, Feeds } from '../runtime/engine.js';
import type { DivergenceKind } from '../runtime/output-divergence.js';
import type { AugmentOptions } from '../training/augment.js';
import { OPTIMIZER_DEFAULTS } from '../training/optimizers.js';
import { withParameters, type Parameter, type Slot } from '../training/parameters.js';
import {
  openStepper,
  startVectors,
  type StepInput,
  type StepResult,
  type TrainingVectors,
} from '../training/stepper.js';
import { buildTrainingGraph, type TrainingGraphOptions } from '../training/training-graph.js';
import type { BatchNormMode } from '../training/training-mode.js';
import { train, type FedBatch, type TrainingEvent, type TrainingProgress } from '../training/trainer.js';
import type { TaughtValue } from './hints.js';
import { tuitionByAnswers, type Tuition } from './tuition.js';
import type { Quality } from './validate.js';

export interface RecoveryOptions {
  /** Updates at most; `seconds` alone ends the training when absent. */
  readonly steps?: number;
  /** Wall time at most. */
  readonly seconds?: number;
  /** Times that VAL decides in the course of `steps`; once an epoch without them. */
  readonly evaluations: number;
  readonly batchSize: number;
  /** As a share of the size of what learns. */
  readonly learningRate: number;
  /** Of the softmax of both models in the loss. */
  readonly temperature: number;
  /** Factor on the relative squared errors of values inside the model, beside the loss of its answers (`RecoveryRequest.taught`). */
  readonly hintWeight: number;
  readonly augment: AugmentOptions;
  readonly seed: number;
}

/** A compressed model in the form that learns. `T`: what is made of the values that it has learned. */
export interface Student<T> {
  /** Float graph with the outputs of the original. */
  readonly model: ModelProto;
  /** Each in units of its own size: Adam moves all of them by about the learning rate. */
  readonly parameters: readonly Parameter[];
  /** Tells checkpoints of other students apart. */
  readonly layout: string;
  /** Whether normalizations take the statistics of each batch and learn running ones; those stay as they are when absent. */
  readonly batchNorm?: BatchNormMode;
  /** @param flat all parameters, end to end @param running what the running statistics have become */
  of(flat: Float32Array, running: RunningStatistics): T;
  /** Other parameters to go on with after so much of the learning, where the student changes on the way. */
  adjusted?(flat: Float32Array, step: number, share: number): Float32Array | undefined;
}

/** Running statistics, end to end, and where they lie. */
export interface RunningStatistics {
  readonly slots: readonly Slot[];
  readonly values: Float32Array;
}

/** What a recovery that goes on needs from the one before. */
export interface RecoveryStore {
  read(layout: string): Promise<KeptRecovery | undefined>;
  write(layout: string, kept: KeptRecovery): Promise<void>;
}

export interface KeptRecovery {
  readonly progress: TrainingProgress;
  readonly vectors: TrainingVectors;
  readonly best?: TrainingVectors;
}

export interface RecoveryRequest<T> {
  readonly engine: Engine;
  /** The original, prepared. */
  readonly teacher: ModelProto;
  readonly student: Student<T>;
  /** What the student stands for before it learns. */
  readonly start: T;
  /** Values inside the student that can be held against those of the teacher: some of them are. */
  readonly taught?: readonly TaughtValue[];
  /** Another tuition than by the answers and the taught values. */
  readonly teach?: ((student: ModelProto) => Promise<Tuition>) | undefined;
  /** Name of the output with one score per class, if the model has one. */
  readonly scores: string | undefined;
  readonly train: Dataset;
  /** Feeds of a few real samples. */
  readonly feedsFor: (rows: number) => Feeds;
  /** On VAL, of the file that would be written. */
  readonly measure: (state: T) => Promise<Quality>;
  readonly options: RecoveryOptions;
  /** As `TrainingGraphOptions.chooseForms`. */
  readonly chooseForms?: TrainingGraphOptions['chooseForms'];
  readonly store?: RecoveryStore | undefined;
  readonly onEvent?: (event: TrainingEvent) => void;
}

export interface Recovery<T> {
  /** The best state on VAL; the start where none was better. */
  readonly state: T;
  readonly measure: DivergenceKind;
  readonly before: Quality;
  readonly after: Quality;
  /** Updates after which `state` was there; 0 for the start. */
  readonly bestStep: number;
  readonly steps: number;
  readonly seconds: number;
  /** Elements of all tensors that learned. */
  readonly parameters: number;
}

/** Share of the steps over which the rate climbs. */
const WARMUP = 0.05;
/** Largest norm of the gradient, by parameters in units of their size. */
const CLIP_NORM = 1;

/**
 * @throws FlowCompressError `unsupported` naming a node without a gradient rule, or when no output can be learned from;
 *   `bad-input` when there are fewer samples than a step takes or the loss is not finite; `aborted`
 */
export async function recover<T>(request: RecoveryRequest<T>, control: RunControl = {}): Promise<Recovery<T>> {
  const { engine, student, scores, feedsFor, options } = request;
  const { batchSize, hintWeight } = options;
  const tuition = request.teach
    ? await request.teach(student.model)
    : await tuitionByAnswers({
        ...{ engine, teacher: request.teacher, student: student.model, taught: request.taught ?? [], hintWeight },
        ...{ scores, feedsFor, batchSize },
      });
  try {
    return await learn(request, tuition, control);
  } finally {
    await tuition.release();
  }
}

async function learn<T>(request: RecoveryRequest<T>, tuition: Tuition, control: RunControl): Promise<Recovery<T>> {
  const { engine, student, scores, feedsFor, options, store } = request;
  const { steps, seconds, batchSize, learningRate, temperature, augment, seed } = options;
  const { model, judgedBy } = tuition;
  const parameters = [...student.parameters, ...tuition.parameters];
  const layout = `${student.layout}${tuition.layout}`;
  const own = student.parameters.reduce((sum, { size }) => sum + size, 0);
  const optimizer = { name: 'adamw', settings: OPTIMIZER_DEFAULTS } as const;
  const graph = await buildTrainingGraph(
    engine,
    model,
    {
      ...{ loss: tuition.loss, output: tuition.output, batchSize, parameters, temperature, seed },
      ...{ hints: tuition.hints, observed: tuition.observed },
      ...{ optimizer: optimizer.name, optimizerSettings: optimizer.settings, weightDecay: 0, clipNorm: CLIP_NORM },
      ...{ accumulate: 1, batchNorm: student.batchNorm ?? 'frozen', chooseForms: request.chooseForms },
    },
    (rows) => ({ ...feedsFor(rows), ...tuition.trialFeeds?.(rows) }),
  );
  const measure = scores === undefined ? 'relative-error' : 'kl';
  const stateOf = ({ parameters: flat, buffers: values }: TrainingVectors): T =>
    student.of(flat.subarray(0, own), { slots: graph.buffers, values });
  const before = await request.measure(request.start);
  const kept = await store?.read(layout);
  if (kept?.progress.notes) tuition.restore?.(kept.progress.notes);
  const start = kept?.vectors ?? startVectors(model, parameters, graph);
  const stepper = await openStepper(engine, graph, optimizer, start, kept?.progress.steps ?? 0);
  const current = (): ModelProto =>
    withParameters(
      withParameters(model, parameters, stepper.vectors.parameters),
      graph.buffers,
      stepper.vectors.buffers,
    );
  try {
    const { progress, best } = await train(
      stepper,
      request.train,
      {
        ...{ stage: 'recover', steps, maxSeconds: seconds, batchSize, accumulate: 1, augment, seed },
        ...{ schedule: 'cosine', learningRate, warmup: WARMUP },
        ...(steps !== undefined && { evaluateEvery: Math.ceil(steps / options.evaluations) }),
        metric: { name: judgedBy === 'labels' ? 'wrong' : measure, lowerIsBetter: true },
      },
      {
        targets: tuition.targets,
        ...(tuition.complete && {
          complete: (input: StepInput, fed: FedBatch) => tuition.complete!(input, fed, { stepper, current }),
        }),
        ...(tuition.onStep && {
          onStep: (result: StepResult) => {
            tuition.onStep!(result);
          },
        }),
        ...(tuition.notes && { notes: () => tuition.notes!() }),
        async evaluate(vectors) {
          const quality = await request.measure(stateOf(vectors));
          const { divergence, top1 } = quality;
          if (judgedBy === 'divergence' || top1 === undefined)
            return { score: divergence, accuracy: top1, refused: isWorse(quality, before) };
          const refused = !Number.isFinite(divergence) || top1 < (before.top1 ?? 0);
          return { score: 1 - top1, accuracy: top1, refused, terms: { divergence } };
        },
        onEvent: request.onEvent,
        ...(student.adjusted && {
          adjust(vectors: TrainingVectors, done: number, share: number) {
            const next = student.adjusted!(vectors.parameters, done, share);
            if (next) vectors.parameters = next;
          },
        }),
        ...(store && {
          checkpoint: (done, vectors, bestSoFar) =>
            store.write(layout, { progress: done, vectors, ...(bestSoFar && { best: bestSoFar }) }),
        }),
      },
      control,
      kept,
    );
    const found = progress.best && { state: stateOf(best) };
    const after = found ? await request.measure(found.state) : before;
    return {
      state: found ? found.state : request.start,
      measure,
      ...{ before, after, bestStep: progress.best?.step ?? 0, steps: progress.steps, seconds: progress.seconds },
      parameters: own,
    };
  } finally {
    await stepper.release();
  }
}

function isWorse(quality: Quality, before: Quality): boolean {
  return !(quality.divergence < before.divergence) || (quality.top1 ?? 0) < (before.top1 ?? 0);
}
