/** What a distillation method makes of a teacher and a student: two models with the values that are compared, and the terms of the loss. */
import type { ModelProto } from 'onnx-buf';
import { FlowCompressError } from '../errors.js';
import type { ChannelMap } from '../flow/channel-map.js';
import type { HostTensor } from '../runtime/engine.js';
import type { Parameter } from '../training/parameters.js';
import type { StepResult } from '../training/stepper.js';
import type { Hint } from '../training/training-graph.js';
import type { FlowUnit, MapInputs } from './units.js';

/** One of the two models. */
export interface Side {
  readonly model: ModelProto;
  /** Names of what it answers: of the logits of the classes, [N, classes], or of outputs that are no class scores, [N, ...]. */
  readonly answers: readonly string[];
  /** Undefined where there are no class scores. */
  readonly classes: number | undefined;
  /** Name of the features in front of the last layer, [N, D], and D. */
  readonly features: { readonly value: string; readonly size: number } | undefined;
  /** In topological order. */
  readonly units: readonly FlowUnit[];
}

/** A unit of the student and that of the teacher that it is held against, by their places. */
export interface Pair {
  readonly student: number;
  readonly teacher: number;
}

export interface LessonRequest {
  readonly teacher: Side;
  readonly student: Side;
  readonly pairs: readonly Pair[];
  /** Mean flowChange of the teacher's units on CALIB, as far as it is known. */
  readonly teacherFlow: readonly (number | undefined)[];
  /** Of the units that need one, as far as there are samples enough to fit it. */
  readonly teacherMaps: ReadonlyMap<string, ChannelMap>;
  readonly studentMaps: ReadonlyMap<string, ChannelMap>;
  /** Whether there is a task beside the teacher's answers: labels, or what outputs should be. */
  readonly labelled: boolean;
  /** How the models make samples, where they do. */
  readonly generation?: Generation | undefined;
  /** Shape of the student's first answer for some number of samples. */
  readonly answerDims: readonly number[];
  readonly options: LessonOptions;
  readonly batchSize: number;
  /** Samples of TRAIN. */
  readonly samples: number;
  readonly seed: number;
}

export interface LessonOptions {
  readonly temperature: number;
  /** Which layers count in flow alignment. */
  readonly select: 'all' | 'selective' | 'curriculum';
  /** Flows layer by layer, or along the depth. */
  readonly flow: 'layers' | 'integrated';
  /** Flows of every sample, or their means over the batch. */
  readonly perSample: boolean;
  /** What task, answers and flow count in flow alignment. */
  readonly weighting: Weighting;
}

/**
 * A model that makes samples. `vae`: its answers are reconstruction, mean and log-variance, in this order. `diffusion`: the noise in
 * a noisy sample. `generator`: a sample from noise.
 */
export interface Generation {
  readonly kind: 'vae' | 'diffusion' | 'generator';
}

/** How the parts of flow alignment are weighed against each other (flow-weighting.ts). */
export const WEIGHTINGS = ['adaptive', 'joint', 'variational', 'fixed'] as const;
export type Weighting = (typeof WEIGHTINGS)[number];

/** A batch of TRAIN that the student learns from. */
export interface TaughtBatch {
  /** [N, classes]: the probabilities of the labels, or the teacher's logits where there are none. */
  readonly target: HostTensor;
  /** The samples' numbers in TRAIN. */
  readonly indices: ArrayLike<number>;
}

/** A part of the loss beside that of the task. */
export interface Term {
  /** What the report calls it, and the like. */
  readonly name: string;
  readonly hint: Hint;
  /** Name of the value in the teacher's model that it is held against; absent for a loss that reads no target. */
  readonly answer?: string;
  /** Makes what is fed of that, [hint.targetDims]; as it is when absent. */
  readonly prepare?: (said: HostTensor, batch: TaughtBatch) => HostTensor;
  /** Whether what the teacher says is little enough to be kept for every sample. */
  readonly kept?: true;
}

/** Factors of a step. */
export interface Factors {
  readonly main: number;
  /** By term. */
  readonly terms: readonly number[];
}

export interface Lesson {
  readonly teacher: ModelProto;
  readonly student: ModelProto;
  /** What learns beside the student, and is left behind. */
  readonly parameters: readonly Parameter[];
  readonly terms: readonly Term[];
  /** Units that are compared. */
  readonly pairs: readonly Pair[];
  /** Inputs of the student's that maps of its units are fed through, by unit. */
  readonly mapInputs: readonly { readonly unit: string; readonly inputs: MapInputs }[];
  /** What the teacher is asked beside the terms, for the control; with the input of the student's, [N, size], that takes it. */
  readonly heard?: readonly {
    readonly answer: string;
    readonly input?: { readonly name: string; readonly size: number };
  }[];
  /** Names of the student's values that are watched. */
  readonly observed: readonly string[];
  /** The loss of the output is that of the labels; else that of the teacher's answers. */
  readonly main: 'task' | 'answers';
  readonly control: LessonControl;
}

/** What is remembered of a training beside its vectors. */
export type Notes = Readonly<Record<string, readonly number[] | Float32Array>>;

/** How the factors follow the training. */
export interface LessonControl {
  factors(share: number): Factors;
  /** Factors by which the norms of two parts of the gradient are compared; undefined when there is nothing to balance now. */
  probes?(steps: number): { readonly task: Factors; readonly part: Factors } | undefined;
  /** Takes the norms in. */
  balance?(task: number, part: number): void;
  /**
   * Called with what a step has shown and, for every part of its batch, what the teacher said (values by term, then as `heard`) and
   * what it was asked about.
   */
  observe?(result: StepResult, answers: readonly (readonly HostTensor[])[], batches: readonly TaughtBatch[]): void;
  /** State, for a training that goes on later, and the way back. */
  notes?(): Notes;
  restore?(notes: Notes): void;
  /** Share of every pair in the loss, for the report. */
  weights?(): readonly number[];
}

/**
 * Classes of a model.
 * @throws FlowCompressError `unsupported` naming what needs them, where there are none
 */
export function classesOf({ classes }: Side, method: string): number {
  if (classes !== undefined) return classes;
  throw new FlowCompressError('unsupported', `${method} compares class scores, which these models have none of.`, {
    hint: 'Use fad, kd, features, attention, relations, plain or generative.',
  });
}

/** Factors that never change. */
export function constantControl(factors: Factors): LessonControl {
  return { factors: () => factors };
}
