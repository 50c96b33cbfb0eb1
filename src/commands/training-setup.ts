/** What a training starts with, made from the options: vectors, limits, schedule, augmentation. */
import type { ModelProto } from 'onnx-buf';
import { isLowerBetter } from '../report/format.js';
import { NO_AUGMENTATION, type AugmentOptions } from '../training/augment.js';
import { OPTIMIZERS } from '../training/optimizers.js';
import { readParameters, type Parameter } from '../training/parameters.js';
import type { TrainingVectors } from '../training/stepper.js';
import type { TrainerOptions } from '../training/trainer.js';
import type { TrainingGraph } from '../training/training-graph.js';
import type { TrainingMetric, TrainOptions } from './options.js';
import type { Workspace } from './workspace.js';

/** Epochs when neither epochs nor steps nor a time are given. */
const DEFAULT_EPOCHS = 30;

/** Parameters and statistics as the model has them, states of zeros. */
export function startVectors(
  model: ModelProto,
  parameters: readonly Parameter[],
  { names, buffers }: TrainingGraph,
  { ema }: TrainOptions,
): TrainingVectors {
  const flat = readParameters(model, parameters);
  return {
    parameters: flat,
    buffers: readParameters(model, buffers),
    states: names.vectors.filter(({ kind }) => kind === 'state').map(({ size }) => new Float32Array(size)),
    ...(ema !== undefined && { average: flat.slice() }),
  };
}

/** Names and sizes of all that a checkpoint keeps. */
export function layoutOf(parameters: readonly Parameter[], { buffers }: TrainingGraph): string {
  return [...parameters, ...buffers].map(({ name, size }) => `${name}:${String(size)}`).join(' ');
}

export function trainerOptionsOf(
  settings: TrainOptions,
  { feedsFor }: Workspace,
  metric: TrainingMetric,
): TrainerOptions {
  const { epochs, steps, maxTime } = settings;
  const unlimited = epochs === undefined && steps === undefined && maxTime === undefined;
  const side = Object.values(feedsFor(1))[0]?.dims.at(-1) ?? 32;
  return {
    epochs: unlimited ? DEFAULT_EPOCHS : epochs,
    steps,
    maxSeconds: maxTime,
    batchSize: settings.batchSize,
    accumulate: settings.accumulate,
    schedule: settings.schedule,
    learningRate: settings.lr ?? OPTIMIZERS[settings.optimizer].learningRate,
    warmup: settings.warmup,
    augment: augmentationOf(settings.augment, side),
    patience: settings.patience,
    metric: { name: metric, lowerIsBetter: isLowerBetter(metric) },
    seed: settings.seed,
  };
}

/** The usual sizes: a crop from an eighth of padding, a cutout of half the side. */
function augmentationOf(kinds: TrainOptions['augment'], side: number): AugmentOptions {
  const has = (kind: (typeof kinds)[number]): boolean => kinds.includes(kind);
  return {
    ...NO_AUGMENTATION,
    crop: has('crop') ? Math.max(1, Math.round(side / 8)) : 0,
    flip: has('flip'),
    cutout: has('cutout') ? Math.round(side / 2) : 0,
    mixup: has('mixup') ? 0.2 : 0,
  };
}
