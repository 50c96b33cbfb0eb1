/** What `train` reports. */
import { z } from 'zod';
import { count, dataSummarySchema, measurementSchema, runFields, seconds, settingsSchema } from './fields.js';

/** One evaluation on VAL in the course of a training. */
export const trainingPointSchema = z.object({
  epoch: count,
  /** Updates so far. */
  step: count,
  /** Mean since the evaluation before. */
  loss: z.number(),
  /** The metric on VAL. */
  score: z.number(),
  /** Share of right answers, where the score is another figure. */
  accuracy: z.number().min(0).max(1).optional(),
  learningRate: z.number().nonnegative(),
  seconds,
});
export type TrainingPoint = z.infer<typeof trainingPointSchema>;

/** How a training went. */
export const trainingSummarySchema = z.object({
  /** Elements of all tensors that were trained. */
  parameters: count,
  epochs: count,
  steps: count,
  seconds,
  /** Median over the steps. */
  samplesPerSecond: z.number().nonnegative().optional(),
  /** What ended it. */
  stopped: z.enum(['epochs', 'steps', 'time', 'patience']),
  /** Name of the metric on VAL, and the epoch whose weights were written. */
  metric: z.string(),
  bestEpoch: count,
});
export type TrainingSummary = z.infer<typeof trainingSummarySchema>;

export const trainReportSchema = z.object({
  command: z.literal('train'),
  ...runFields,
  seed: count,
  /** The file that was trained on, or the architecture that was built. */
  model: z.string(),
  output: z.string(),
  data: dataSummarySchema.optional(),
  settings: settingsSchema.optional(),
  /** The model before training; absent for an architecture that was built anew. */
  before: measurementSchema.optional(),
  after: measurementSchema,
  training: trainingSummarySchema,
  history: z.array(trainingPointSchema),
});
export type TrainReport = z.infer<typeof trainReportSchema>;
