/**
 * The training loop: epochs over TRAIN in a seeded order, evaluation on VAL after each, the best model kept. It stops when the
 * epochs, the steps or the time are used up, whichever comes first, or when VAL no longer improves.
 */
import { randomStream, seedOf, shuffled } from '../data/random.js';
import type { Batch, Dataset } from '../data/dataset.js';
import { batches } from '../data/loader.js';
import { FlowCompressError, throwIfAborted } from '../errors.js';
import type { RunControl } from '../progress.js';
import type { Feeds, HostTensor } from '../runtime/engine.js';
import { augmented, mixed, mixShare, type AugmentOptions } from './augment.js';
import type { LossTargets } from './measure-loss.js';
import { learningRateAt, observePlateau, PLATEAU_START, type PlateauState, type ScheduleOptions } from './schedule.js';
import type { Stepper, StepInput, StepResult, TrainingVectors } from './stepper.js';

export interface TrainerOptions extends ScheduleOptions {
  readonly epochs?: number;
  readonly steps?: number;
  readonly maxSeconds?: number;
  readonly batchSize: number;
  readonly accumulate: number;
  readonly augment: AugmentOptions;
  /** Epochs after which samples are changed as they were before: what is known of them then can be kept. Never when absent. */
  readonly rounds?: number;
  /** Updates between evaluations on VAL; an epoch when absent. */
  readonly evaluateEvery?: number;
  /** What VAL is judged by. */
  readonly metric: { readonly name: string; readonly lowerIsBetter: boolean };
  /** Evaluations on VAL without progress after which training stops; never when absent. */
  readonly patience?: number;
  /** Name of the stage in progress events; `train` when absent. */
  readonly stage?: string;
  readonly seed: number;
}

/** How far a training has come; with the vectors it is all that a resumed one needs. */
export interface TrainingProgress {
  /** Epochs that are complete. */
  readonly epoch: number;
  /** Updates made in the epoch that is not. */
  readonly stepInEpoch: number;
  /** Updates since the last evaluation. */
  readonly unevaluated: number;
  /** Sum of their losses. */
  readonly lossSum: number;
  readonly steps: number;
  readonly seconds: number;
  readonly plateau: PlateauState;
  /** Rate of the last update. */
  readonly learningRate: number;
  readonly best: { readonly score: number; readonly epoch: number; readonly step: number } | undefined;
  /** What the hooks remember beside the vectors. */
  readonly notes?: Readonly<Record<string, readonly number[] | Float32Array>>;
}

export const NOT_BEGUN: TrainingProgress = {
  epoch: 0,
  stepInEpoch: 0,
  unevaluated: 0,
  lossSum: 0,
  steps: 0,
  seconds: 0,
  plateau: PLATEAU_START,
  learningRate: 0,
  best: undefined,
};

/** One line of the log. */
export type TrainingEvent =
  | {
      readonly kind: 'step';
      readonly step: number;
      readonly epoch: number;
      readonly loss: number;
      readonly learningRate: number;
      readonly gradientNorm: number;
      readonly samplesPerSecond: number;
    }
  | {
      readonly kind: 'evaluation';
      readonly step: number;
      /** Epochs that are complete. */
      readonly epoch: number;
      /** Mean since the evaluation before. */
      readonly loss: number;
      /** The metric on VAL, and its name. */
      readonly score: number;
      readonly metric: string;
      /** Share of right answers, where it is known beside the score. */
      readonly accuracy?: number;
      /** Means of the parts of the loss since the evaluation before, where there are several. */
      readonly terms?: Readonly<Record<string, number>>;
      readonly best: boolean;
      /** Of the last update. */
      readonly learningRate: number;
      readonly seconds: number;
    };

/** The samples of a step as they are fed: changed, and mixed. */
export interface FedBatch {
  readonly feeds: Feeds;
  /** The samples' numbers in the dataset. */
  readonly indices: ArrayLike<number>;
  /** What changed them beside the seed: equal numbers, equal changes. */
  readonly round: number;
  readonly epoch: number;
  /** Of the training, that lies behind. */
  readonly share: number;
}

/** What the loss holds the outputs for a batch against: a property of the samples, mixed like them, or of the inputs as they are fed. */
export type Targets =
  | { readonly from: 'samples'; of(batch: Batch): LossTargets }
  | { readonly from: 'inputs'; of(fed: FedBatch): Promise<LossTargets> };

/** What VAL says about some vectors. */
export interface Judgement {
  /** The metric of the options. */
  readonly score: number;
  /** Share of right answers, where it is known beside the score. */
  readonly accuracy?: number;
  /** True for vectors that must not be kept, whatever their score. */
  readonly refused?: boolean;
  /** For the event. */
  readonly terms?: Readonly<Record<string, number>>;
}

export interface TrainerHooks {
  readonly targets: Targets;
  /** Called before every update; may put other parameters into the vectors. @param steps updates done @param share of the training */
  adjust?(vectors: TrainingVectors, steps: number, share: number): void;
  /** Adds to what a step is fed. */
  complete?(input: StepInput, fed: FedBatch): Promise<StepInput>;
  /** Called after every update. */
  onStep?(result: StepResult): void;
  /** What has to be remembered of all this when the training goes on later. */
  notes?(): TrainingProgress['notes'];
  evaluate(vectors: TrainingVectors): Promise<Judgement>;
  onEvent?(event: TrainingEvent): void;
  /** Called after every evaluation, and when the training is interrupted. */
  checkpoint?(progress: TrainingProgress, vectors: TrainingVectors, best: TrainingVectors | undefined): Promise<void>;
}

export interface TrainingOutcome {
  readonly progress: TrainingProgress;
  /** The vectors with the best metric on VAL. */
  readonly best: TrainingVectors;
  readonly stopped: 'epochs' | 'steps' | 'time' | 'patience';
}

/**
 * @param start where an earlier run was interrupted
 * @throws FlowCompressError `bad-input` when there are fewer samples than a step takes, or when the loss is not finite; `aborted`
 *   after a last checkpoint
 */
export async function train(
  stepper: Stepper,
  dataset: Dataset,
  options: TrainerOptions,
  hooks: TrainerHooks,
  control: RunControl = {},
  start: { readonly progress: TrainingProgress; readonly best?: TrainingVectors } = { progress: NOT_BEGUN },
): Promise<TrainingOutcome> {
  const perStep = options.batchSize * options.accumulate;
  const stepsPerEpoch = Math.floor(dataset.size / perStep);
  if (stepsPerEpoch === 0)
    throw new FlowCompressError(
      'bad-input',
      `A step takes ${String(perStep)} samples, TRAIN has ${String(dataset.size)}.`,
      {
        hint: 'Lower --batch-size or --accumulate.',
      },
    );
  const limits = limitsOf(options, stepsPerEpoch);
  const began = performance.now();
  const before = start.progress.seconds;
  let { epoch, stepInEpoch, unevaluated, lossSum, steps, plateau, learningRate, best } = start.progress;
  let bestVectors = start.best;
  const interval = options.evaluateEvery ?? stepsPerEpoch;
  let sinceBest = Math.ceil((steps - unevaluated) / interval) - Math.ceil((best?.step ?? 0) / interval);
  const seconds = (): number => before + (performance.now() - began) / 1000;
  const progress = (): TrainingProgress => ({
    ...{ epoch, stepInEpoch, unevaluated, lossSum, steps, seconds: seconds(), plateau, learningRate, best },
    ...(hooks.notes && { notes: hooks.notes() }),
  });
  const done = (): TrainingOutcome['stopped'] | undefined => {
    if (steps >= limits.steps) return limits.reason;
    if (options.maxSeconds !== undefined && seconds() >= options.maxSeconds) return 'time';
    if (options.patience !== undefined && sinceBest >= options.patience) return 'patience';
    return undefined;
  };

  let stopped = done();
  const isDue = (): boolean => unevaluated > 0 && (stopped !== undefined || steps % interval === 0);
  let lastReport = performance.now();
  /** Trains until the next evaluation, or to the end of the epoch. */
  const advance = async (): Promise<void> => {
    const order = shuffled(dataset.size, seedOf(options.seed, epoch));
    const count = Math.min(stepsPerEpoch - stepInEpoch, interval - (steps % interval));
    let position = stepInEpoch * perStep;
    const rest = order.subarray(position, position + count * perStep);
    let group: StepInput[] = [];
    for await (const batch of batches(dataset, options.batchSize, { order: rest, signal: undefined })) {
      const indices = order.subarray(position, position + options.batchSize);
      position += options.batchSize;
      const share = shareDone(options, limits.steps, steps, seconds());
      const number = steps * options.accumulate + group.length;
      group.push(await prepared(batch, indices, options, { epoch, number, share }, hooks));
      if (group.length < options.accumulate) continue;
      throwIfAborted(control.signal);
      learningRate = learningRateAt(share, options, plateau.factor);
      hooks.adjust?.(stepper.vectors, steps, share);
      const result = await stepper.step(group, learningRate);
      const { loss, norm } = result;
      hooks.onStep?.(result);
      group = [];
      steps++;
      stepInEpoch++;
      unevaluated++;
      lossSum += loss;
      const now = performance.now();
      const samplesPerSecond = (1000 * perStep) / Math.max(now - lastReport, 1e-3);
      lastReport = now;
      hooks.onEvent?.({
        ...{ kind: 'step', step: steps, epoch: epoch + 1, loss, learningRate },
        ...{ gradientNorm: norm, samplesPerSecond },
      });
      control.onProgress?.({
        stage: options.stage ?? 'train',
        ...(limits.steps === Infinity
          ? { done: Math.min(seconds(), options.maxSeconds!), total: options.maxSeconds! }
          : { done: steps, total: limits.steps }),
        detail: stepDetail(epoch, loss, samplesPerSecond, options.metric.name, best?.score),
      });
      stopped = done();
      if (stopped) break;
    }
    if (stepInEpoch === stepsPerEpoch) {
      epoch++;
      stepInEpoch = 0;
    }
  };
  while (!stopped || unevaluated > 0) {
    let judgement: Judgement;
    try {
      if (!isDue()) await advance();
      if (!isDue()) continue;
      judgement = await hooks.evaluate(stepper.vectors);
    } catch (error) {
      // What was learned so far is kept; the group that was under way is done again.
      if (error instanceof FlowCompressError && error.code === 'aborted')
        await hooks.checkpoint?.(progress(), stepper.vectors, bestVectors);
      throw error;
    }
    const { score, accuracy, terms, refused = false } = judgement;
    const loss = lossSum / unevaluated;
    unevaluated = 0;
    lossSum = 0;
    const gain = (value: number): number => (options.metric.lowerIsBetter ? -value : value);
    plateau = observePlateau(plateau, gain(score));
    // Never NaN.
    const isBest = !refused && gain(score) > (best ? gain(best.score) : -Infinity);
    if (isBest) {
      best = { score, epoch, step: steps };
      bestVectors = copyOf(stepper.vectors);
      sinceBest = 0;
    } else sinceBest++;
    hooks.onEvent?.({
      ...{ kind: 'evaluation', step: steps, epoch, loss, score, metric: options.metric.name },
      ...{
        ...(accuracy !== undefined && { accuracy }),
        ...(terms && { terms }),
        best: isBest,
        learningRate,
        seconds: seconds(),
      },
    });
    stopped ??= done();
    await hooks.checkpoint?.(progress(), stepper.vectors, bestVectors);
    lastReport = performance.now();
  }
  return { progress: progress(), best: bestVectors ?? copyOf(stepper.vectors), stopped };
}

interface Limits {
  readonly steps: number;
  readonly reason: 'epochs' | 'steps' | 'time';
}

function limitsOf({ epochs, steps, maxSeconds }: TrainerOptions, stepsPerEpoch: number): Limits {
  const byEpochs = (epochs ?? Infinity) * stepsPerEpoch;
  const bySteps = steps ?? Infinity;
  if (byEpochs === Infinity && bySteps === Infinity && maxSeconds === undefined)
    throw new FlowCompressError('internal', 'A training needs a number of epochs, steps or seconds.');
  if (byEpochs === Infinity && bySteps === Infinity) return { steps: Infinity, reason: 'time' };
  return byEpochs <= bySteps ? { steps: byEpochs, reason: 'epochs' } : { steps: bySteps, reason: 'steps' };
}

/** Share of the training that lies behind, by what will end it. */
function shareDone({ maxSeconds }: TrainerOptions, total: number, steps: number, seconds: number): number {
  const byTime = maxSeconds === undefined ? 0 : seconds / maxSeconds;
  return Math.min(1, Math.max(total === Infinity ? 0 : steps / total, byTime));
}

async function prepared(
  batch: Batch,
  indices: ArrayLike<number>,
  options: TrainerOptions,
  { epoch, number, share }: { readonly epoch: number; readonly number: number; readonly share: number },
  hooks: TrainerHooks,
): Promise<StepInput> {
  const { augment, seed, rounds } = options;
  const round = rounds === undefined ? epoch : epoch % rounds;
  const changed = Object.fromEntries(
    Object.entries(batch.feeds).map(([name, tensor]) => [name, augmented(tensor, indices, augment, seed, round)]),
  );
  const mix = mixerOf(changed, options, seedOf(seed, epoch, number, 77));
  const feeds = Object.fromEntries(Object.entries(changed).map(([name, tensor]) => [name, mix(tensor)]));
  const fed: FedBatch = { feeds, indices, round, epoch, share };
  const { targets } = hooks;
  let input: StepInput;
  if (targets.from === 'inputs') {
    input = { feeds, ...(await targets.of(fed)) };
  } else {
    const { target, weights } = targets.of({ ...batch, feeds: changed });
    input = { feeds, target: mix(target), ...(weights && { weights: mix(weights) }) };
  }
  return hooks.complete ? hooks.complete(input, fed) : input;
}

/** Mixes every sample of a batch with the one that faces it, as far as mixing is asked for. */
function mixerOf(
  feeds: Feeds,
  { augment, batchSize }: TrainerOptions,
  seed: number,
): (tensor: HostTensor) => HostTensor {
  if (augment.mixup === 0) return (tensor) => tensor;
  if (Object.values(feeds).some(({ data }) => !(data instanceof Float32Array)))
    throw new FlowCompressError('unsupported', 'Samples that are not float32 cannot be mixed.', {
      hint: 'Train without mixup.',
    });
  const share = mixShare(randomStream(seed), augment.mixup);
  return (tensor) => {
    if (!(tensor.data instanceof Float32Array)) return tensor;
    const row = tensor.data.length / batchSize;
    const reversed = new Float32Array(tensor.data.length);
    for (let n = 0; n < batchSize; n++)
      reversed.set(tensor.data.subarray((batchSize - 1 - n) * row, (batchSize - n) * row), n * row);
    return { ...tensor, data: mixed(tensor.data, reversed, share) };
  };
}

function copyOf(vectors: TrainingVectors): TrainingVectors {
  return {
    parameters: vectors.parameters.slice(),
    buffers: vectors.buffers.slice(),
    states: [],
    ...(vectors.average && { average: vectors.average.slice() }),
  };
}

function stepDetail(epoch: number, loss: number, rate: number, metric: string, best: number | undefined): string {
  const score = best === undefined ? '' : `, best ${metric} ${best.toFixed(4)}`;
  return `epoch ${String(epoch + 1)}, loss ${loss.toFixed(4)}${score}, ${rate.toFixed(0)}/s`;
}
