/** What training asks of a model and its data, and how its options are meant: limits, schedule, augmentation. */
import { FlowCompressError } from '../../errors.js';
import { isLowerBetter } from '../../report/format.js';
import type { Feeds } from '../../runtime/engine.js';
import { NO_AUGMENTATION, type AugmentOptions } from '../../training/augment.js';
import { OPTIMIZERS } from '../../training/optimizers.js';
import type { TrainerOptions } from '../../training/trainer.js';
import type { TrainingMetric, TrainOptions } from './options.js';
import type { Workspace } from '../workspace.js';

/** Epochs when neither epochs nor steps nor a time are given. */
const DEFAULT_EPOCHS = 30;

/** @throws FlowCompressError `unsupported` for a model that insists on a number of rows */
export function refuseFixedBatch(
  { fixedBatch, opened }: Pick<Workspace, 'fixedBatch' | 'opened'>,
  who = 'model',
): void {
  if (fixedBatch === undefined) return;
  throw new FlowCompressError('unsupported', `The ${who} takes batches of ${String(fixedBatch)} only.`, {
    node: opened.name,
    hint: 'Export it with a free batch dimension: training needs batches of its own size.',
  });
}

export function trainerOptionsOf(
  settings: TrainOptions,
  { feedsFor }: Workspace,
  metric: TrainingMetric,
): TrainerOptions {
  const { epochs, steps, maxTime } = settings;
  const unlimited = epochs === undefined && steps === undefined && maxTime === undefined;
  return {
    epochs: unlimited ? DEFAULT_EPOCHS : epochs,
    steps,
    maxSeconds: maxTime,
    batchSize: settings.batchSize,
    accumulate: settings.accumulate,
    schedule: settings.schedule,
    learningRate: settings.lr ?? OPTIMIZERS[settings.optimizer].learningRate,
    warmup: settings.warmup,
    augment: augmentationOf(settings.augment, feedsFor(1)),
    patience: settings.patience,
    metric: { name: metric, lowerIsBetter: isLowerBetter(metric) },
    seed: settings.seed,
  };
}

/** The usual sizes: a crop from an eighth of padding, a cutout of half the side. @param feeds of any number of samples */
export function augmentationOf(kinds: TrainOptions['augment'], feeds: Feeds): AugmentOptions {
  const side = Object.values(feeds)[0]?.dims.at(-1) ?? 32;
  const has = (kind: (typeof kinds)[number]): boolean => kinds.includes(kind);
  return {
    ...NO_AUGMENTATION,
    crop: has('crop') ? Math.max(1, Math.round(side / 8)) : 0,
    flip: has('flip'),
    cutout: has('cutout') ? Math.round(side / 2) : 0,
    mixup: has('mixup') ? 0.2 : 0,
  };
}
