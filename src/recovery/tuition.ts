/** What a student is taught in a recovery, in the form that a training takes: the loss, its targets, and what goes on beside it. */
import type { ModelProto } from 'onnx-buf';
import type { Engine, Feeds } from '../runtime/engine.js';
import type { LossName } from '../training/losses.js';
import type { Parameter } from '../training/parameters.js';
import type { Stepper, StepInput, StepResult } from '../training/stepper.js';
import type { FedBatch, Targets, TrainingProgress } from '../training/trainer.js';
import type { Hint } from '../training/training-graph.js';
import { hintFactors, spreadOut, type TaughtValue } from './hints.js';
import { lessonOf, openTeacher } from './teacher.js';

export interface Tuition {
  /** Tells checkpoints of other teachings apart. */
  readonly layout: string;
  /** The student, with the values that the loss reads. */
  readonly model: ModelProto;
  /** Name of the value that the loss reads, and the loss. */
  readonly output: string;
  readonly loss: LossName;
  /** What learns beside the student, and is left behind. */
  readonly parameters: readonly Parameter[];
  readonly hints: readonly Hint[];
  readonly observed: readonly string[];
  readonly targets: Targets;
  /** What VAL decides by: the divergence from the original, or right answers. */
  readonly judgedBy: 'divergence' | 'labels';
  /** Of the inputs that the model has beside the student's, for a trial with so many samples. */
  trialFeeds?(rows: number): Feeds;
  complete?(input: StepInput, fed: FedBatch, student: StudentNow): Promise<StepInput>;
  onStep?(result: StepResult): void;
  notes?(): TrainingProgress['notes'];
  restore?(notes: NonNullable<TrainingProgress['notes']>): void;
  release(): Promise<void>;
}

/** The student in the middle of its training. */
export interface StudentNow {
  readonly stepper: Stepper;
  /** `Tuition.model` with what it has learned. */
  current(): ModelProto;
}

export interface AnswersRequest {
  readonly engine: Engine;
  /** The original, prepared. */
  readonly teacher: ModelProto;
  readonly student: ModelProto;
  /** Values inside the student that can be held against those of the teacher: some of them are. */
  readonly taught: readonly TaughtValue[];
  /** Factor on their errors; 0 for answers alone. */
  readonly hintWeight: number;
  /** Name of the output with one score per class, if the model has one. */
  readonly scores: string | undefined;
  readonly feedsFor: (rows: number) => Feeds;
  readonly batchSize: number;
}

/** The answers of the teacher, and values inside it where these have a weight. Errors as `lessonOf`. */
export async function tuitionByAnswers(request: AnswersRequest): Promise<Tuition> {
  const { engine, teacher: original, student, scores, feedsFor, hintWeight, batchSize } = request;
  const taught = hintWeight > 0 ? spreadOut(request.taught) : [];
  const lesson = await lessonOf(engine, original, scores, feedsFor);
  const teacher = await openTeacher(engine, original, lesson, taught);
  const { values } = await teacher.answer(feedsFor(batchSize));
  const factors = hintFactors(values, hintWeight);
  return {
    ...{ layout: '', ...lesson.of(student), loss: lesson.loss, parameters: [], observed: [], judgedBy: 'divergence' },
    hints: taught.map(({ student: value }) => ({ value, loss: 'mse' as const })),
    targets: {
      from: 'inputs',
      async of({ feeds }) {
        const { target, values } = await teacher.answer(feeds);
        return { target, hints: values.map((value, i) => ({ target: value, factor: factors[i]! })) };
      },
    },
    release: () => teacher.release(),
  };
}
