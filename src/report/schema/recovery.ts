/** How near a compressed model comes to the original, and what it learned from it. */
import { z } from 'zod';
import { count, fraction, seconds } from './fields.js';

/** What a divergence counts. `kl`: nats; `relative-error`: squared error relative to the energy of the outputs. */
export const measureSchema = z.enum(['kl', 'relative-error']);

/** How near a model comes to the original on VAL. */
export const qualitySchema = z.object({
  /** From the original's outputs, as `measure` says. */
  divergence: z.number().nonnegative(),
  /** Absent without labels. */
  top1: fraction.optional(),
  /** Share of samples with the class that the original gives. */
  agreement: fraction.optional(),
});
export type Quality = z.infer<typeof qualitySchema>;

/** One evaluation on VAL in the course of a recovery. */
export const recoveryPointSchema = qualitySchema.extend({
  /** Updates so far. */
  step: count,
  /** Mean loss on TRAIN since the evaluation before. */
  loss: z.number(),
  learningRate: z.number().nonnegative(),
  seconds,
});
export type RecoveryPoint = z.infer<typeof recoveryPointSchema>;

/** How the compressed model learned from the original. All qualities are on VAL, of files as they would be written. */
export const recoverySchema = z.object({
  steps: count,
  seconds,
  /** Elements of all tensors that learned. */
  parameters: count,
  measure: measureSchema,
  before: qualitySchema,
  after: qualitySchema,
  /** Updates after which the model that was written was there; 0 when no state was better than the one it began with. */
  bestStep: count,
  points: z.array(recoveryPointSchema),
});
export type RecoverySummary = z.infer<typeof recoverySchema>;
