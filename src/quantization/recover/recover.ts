/**
 * Quantization-aware recovery: the rounded model learns to answer like the original, with its widths and grids as they are.
 * VAL, on the very files that would be written, decides which state of it is kept: the start, if no other is better.
 */
import type { ModelProto } from 'onnx-buf';
import type { Dataset } from '../../data/dataset.js';
import type { RunControl } from '../../progress.js';
import type { Engine, Feeds } from '../../runtime/engine.js';
import type { AugmentOptions } from '../../training/augment.js';
import { OPTIMIZER_DEFAULTS } from '../../training/optimizers.js';
import { layoutOf, type Slot } from '../../training/parameters.js';
import { openStepper, startVectors, type TrainingVectors } from '../../training/stepper.js';
import { buildTrainingGraph, type TrainingGraphOptions } from '../../training/training-graph.js';
import { train, type TrainingEvent, type TrainingProgress } from '../../training/trainer.js';
import type { DivergenceKind } from '../output-divergence.js';
import type { QuantizationOutcome } from '../method.js';
import type { Deployment } from '../placement.js';
import { lessonOf, openTeacher } from './teacher.js';
import { trainableQuantized } from './trainable.js';
import type { Quality } from './validate.js';

export interface RecoveryOptions {
  /** Updates. */
  readonly steps: number;
  readonly batchSize: number;
  /** Of the weights, as a share of their size. */
  readonly learningRate: number;
  /** Of the softmax of both models in the loss. */
  readonly temperature: number;
  readonly augment: AugmentOptions;
  readonly seed: number;
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

export interface RecoveryRequest {
  readonly engine: Engine;
  /** The prepared float model. */
  readonly model: ModelProto;
  readonly outcome: QuantizationOutcome;
  /** Weights and quantizers of the execution that was chosen. */
  readonly plan: Deployment;
  /** Name of the output with one score per class, if the model has one. */
  readonly scores: string | undefined;
  readonly train: Dataset;
  /** Feeds of a few real samples. */
  readonly feedsFor: (rows: number) => Feeds;
  /** On VAL, of the file that the outcome would be. */
  readonly measure: (outcome: QuantizationOutcome) => Promise<Quality>;
  readonly options: RecoveryOptions;
  /** As `TrainingGraphOptions.chooseForms`. */
  readonly chooseForms?: TrainingGraphOptions['chooseForms'];
  readonly store?: RecoveryStore | undefined;
  readonly onEvent?: (event: TrainingEvent) => void;
}

export interface Recovery {
  /** The best one on VAL; the given one where none was better. */
  readonly outcome: QuantizationOutcome;
  readonly measure: DivergenceKind;
  readonly before: Quality;
  readonly after: Quality;
  /** Updates after which `outcome` was there; 0 for the given one. */
  readonly bestStep: number;
  readonly steps: number;
  readonly seconds: number;
  /** Elements of all tensors that learned. */
  readonly parameters: number;
}

/** Evaluations on VAL in the course of a recovery. */
const EVALUATIONS = 10;
/** Share of the steps over which the rate climbs. */
const WARMUP = 0.05;
/** Largest norm of the gradient, by parameters in units of their size. */
const CLIP_NORM = 1;

/**
 * @throws FlowCompressError `unsupported` naming a node without a gradient rule, or when no output can be learned from;
 *   `bad-input` when there are fewer samples than a step takes or the loss is not finite; `aborted`
 */
export async function recover(request: RecoveryRequest, control: RunControl = {}): Promise<Recovery> {
  const { engine, model, outcome, plan, scores, feedsFor, options, store } = request;
  const { steps, batchSize, learningRate, temperature, augment, seed } = options;
  const lesson = await lessonOf(engine, model, scores, feedsFor);
  const trainable = trainableQuantized(model, plan, outcome);
  const { model: student, output } = lesson.of(trainable.model);
  const { parameters } = trainable;
  const optimizer = { name: 'adamw', settings: OPTIMIZER_DEFAULTS } as const;
  const graph = await buildTrainingGraph(
    engine,
    student,
    {
      ...{ loss: lesson.loss, output, batchSize, parameters, temperature, seed },
      ...{ optimizer: optimizer.name, optimizerSettings: optimizer.settings, weightDecay: 0, clipNorm: CLIP_NORM },
      ...{ accumulate: 1, batchNorm: 'frozen', chooseForms: request.chooseForms },
    },
    feedsFor,
  );
  const measure = lesson.loss === 'kl' ? 'kl' : 'relative-error';
  const before = await request.measure(outcome);
  const layout = keyOf(parameters, plan);
  const kept = await store?.read(layout);
  const start = kept?.vectors ?? startVectors(student, parameters, graph);
  const teacher = await openTeacher(engine, model, lesson);
  const stepper = await openStepper(engine, graph, optimizer, start, kept?.progress.steps ?? 0);
  try {
    const { progress, best } = await train(
      stepper,
      request.train,
      {
        ...{ stage: 'recover', steps, batchSize, accumulate: 1, augment, seed },
        ...{ schedule: 'cosine', learningRate, warmup: WARMUP, evaluateEvery: Math.ceil(steps / EVALUATIONS) },
        metric: { name: measure, lowerIsBetter: true },
      },
      {
        targets: { from: 'inputs', of: async (feeds) => ({ target: await teacher.answer(feeds) }) },
        async evaluate({ parameters: flat }) {
          const quality = await request.measure(trainable.outcomeOf(flat));
          return { score: quality.divergence, accuracy: quality.top1, refused: isWorse(quality, before) };
        },
        onEvent: request.onEvent,
        ...(store && {
          checkpoint: (done, vectors, bestSoFar) =>
            store.write(layout, { progress: done, vectors, ...(bestSoFar && { best: bestSoFar }) }),
        }),
      },
      control,
      kept,
    );
    const found = progress.best && trainable.outcomeOf(best.parameters);
    const after = found ? await request.measure(found) : before;
    return {
      outcome: found ?? outcome,
      measure,
      ...{ before, after, bestStep: progress.best?.step ?? 0, steps: progress.steps, seconds: progress.seconds },
      parameters: parameters.reduce((sum, { size }) => sum + size, 0),
    };
  } finally {
    await stepper.release();
    await teacher.release();
  }
}

function isWorse(quality: Quality, before: Quality): boolean {
  return !(quality.divergence < before.divergence) || (quality.top1 ?? 0) < (before.top1 ?? 0);
}

/** Tells checkpoints of other parameters or another execution apart. */
function keyOf(parameters: readonly Slot[], { int8 }: Deployment): string {
  return `${layoutOf(parameters)} int8: ${[...int8].sort().join(' ')}`;
}
