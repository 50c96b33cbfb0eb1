/** Options of `train`. */
import { z } from 'zod';
import { augment, dataOptionsSchema, path, positiveInteger, resumable, RESUME_NEEDS_DIR } from '../options.js';
import type { RunControl } from '../../progress.js';
import { LABEL_METRICS } from '../../runtime/metric.js';
import { LOSSES, type LossName } from '../../training/losses.js';
import { type OptimizerName, OPTIMIZERS } from '../../training/optimizers.js';
import { SCHEDULES } from '../../training/schedule.js';
import { BATCH_NORM_MODES } from '../../training/training-mode.js';

const OPTIMIZER_NAMES = Object.keys(OPTIMIZERS) as [OptimizerName, ...OptimizerName[]];
const LOSS_NAMES = Object.keys(LOSSES) as [LossName, ...LossName[]];

/** What can decide on VAL. */
export const TRAINING_METRICS = [...LABEL_METRICS, 'loss'] as const;
export type TrainingMetric = (typeof TRAINING_METRICS)[number];

/** What trains, how long and how. */
export const trainingFields = dataOptionsSchema.extend({
  ...resumable,
  output: path,
  force: z.boolean().default(false),
  batchSize: positiveInteger.default(128),
  epochs: positiveInteger.optional(),
  steps: positiveInteger.optional(),
  /** Seconds. */
  maxTime: z.number().positive().optional(),
  optimizer: z.enum(OPTIMIZER_NAMES).default('adamw'),
  /** Learning rate; what suits the optimiser when absent. */
  lr: z.number().positive().optional(),
  schedule: z.enum(SCHEDULES).default('cosine'),
  /** Share of the training over which the rate climbs. */
  warmup: z.number().min(0).max(0.9).default(0.05),
  /** Pull of the weights towards zero; what suits the optimiser when absent. */
  weightDecay: z.number().min(0).optional(),
  momentum: z.number().min(0).max(0.9999).default(0.9),
  /** Largest norm of the gradient. */
  clipNorm: z.number().positive().optional(),
  accumulate: positiveInteger.default(1),
  /** Decay of a moving average of the weights, which is then what is evaluated and written. */
  ema: z.number().gt(0).lt(1).optional(),
  /** When absent `cross-entropy` for labels, `mse` for arrays of targets. */
  loss: z.enum(LOSS_NAMES).optional(),
  /** Of `kl`: divides the logits of teacher and student. */
  temperature: z.number().positive().default(1),
  labelSmoothing: z.number().min(0).max(0.9).default(0),
  /** Weigh the loss so that all classes count alike. */
  balance: z.boolean().default(false),
  augment,
  /** What decides on VAL which weights are best. When absent `top1` with labels, else `loss`. */
  metric: z.enum(TRAINING_METRICS).optional(),
  /** Epochs without progress on VAL after which training stops. */
  patience: positiveInteger.optional(),
  /** Normalize by the running statistics as they are stored, or by each batch, while they follow. When absent `frozen` for a file with statistics, else `updated`. */
  batchNorm: z.enum(BATCH_NORM_MODES).optional(),
  /** Compute activations anew in the backward pass instead of keeping them: less memory, more time. */
  checkpointActivations: z.boolean().default(false),
  /** Times the gradients of convolutions anew, whatever this machine remembers of earlier runs. */
  remeasure: z.boolean().default(false),
  /** Project of Weights & Biases that gets the curves. */
  wandb: z.string().min(1, 'must not be empty').optional(),
  /** Of an architecture of the zoo: classes (those of the data when absent), size, width and channels. */
  classes: positiveInteger.optional(),
  inputSize: positiveInteger.optional(),
  width: z.number().positive().optional(),
  channels: positiveInteger.optional(),
  depth: positiveInteger.optional(),
  patchSize: positiveInteger.optional(),
  dropout: z.number().min(0).lt(1).optional(),
  shortcut: z.enum(['pad', 'conv']).optional(),
  latencyRuns: positiveInteger.optional(),
});

export const trainOptionsSchema = trainingFields
  .refine((options) => !options.resume || options.runDir !== undefined, RESUME_NEEDS_DIR)
  .refine((options) => options.temperature === 1 || options.loss === 'kl', {
    message: 'belongs to --loss kl',
    path: ['temperature'],
  });

export type TrainOptions = z.output<typeof trainOptionsSchema> & RunControl;
