/** What `bench` and `sweep` report: methods side by side under the same data, goals and learning. */
import { z } from 'zod';
import { count, fraction, runFields, seconds } from './fields.js';

/** Of a figure over the seeds. */
export const statisticSchema = z.object({ mean: z.number(), least: z.number(), most: z.number() });
export type Statistic = z.infer<typeof statisticSchema>;

/** Of the files, and of the originals where there were any. */
const comparedSchema = z.object({ before: statisticSchema.optional(), after: statisticSchema });
export type Compared = z.infer<typeof comparedSchema>;

/** A method on a model with some options, over all seeds. */
export const benchRowSchema = z.object({
  model: z.string(),
  method: z.string(),
  /** What was swept over, by name of the option. */
  options: z.record(z.string(), z.string()),
  seeds: count.min(1),
  /** On TEST; before is absent where there was no model before. */
  metric: comparedSchema.extend({ name: z.string() }).optional(),
  /** The same figure on VAL. */
  val: comparedSchema.optional(),
  /** Share of TEST that gets the class of the original, or of the teacher. */
  agreement: statisticSchema.optional(),
  bytes: comparedSchema,
  params: comparedSchema.optional(),
  /** Share of the multiply-accumulates of the original that are left. */
  macs: statisticSchema.optional(),
  /** Time of the largest batch that was timed, relative to the original. */
  latency: statisticSchema.optional(),
  /** Median milliseconds by the size of the batch, smallest batch first. */
  latencies: z.array(comparedSchema.extend({ batch: count.min(1) })).optional(),
  /** Updates by gradient. */
  updates: statisticSchema.optional(),
  /** Of a run. */
  seconds: statisticSchema,
  /** Seconds of its stages, means over the runs, in the order of the first one. */
  stages: z.array(z.object({ name: z.string(), seconds })).optional(),
});
export type BenchRow = z.infer<typeof benchRowSchema>;

/** How one trial went on VAL. */
export const benchCurveSchema = z.object({
  model: z.string(),
  method: z.string(),
  options: z.record(z.string(), z.string()),
  seed: count.optional(),
  /** `pruning`: the score against the share of the cost that is left; `training`: against epochs. */
  kind: z.enum(['pruning', 'training']),
  /** Name of the score. */
  metric: z.string(),
  points: z.array(z.object({ at: z.number().nonnegative(), score: z.number() })).min(2),
});
export type BenchCurve = z.infer<typeof benchCurveSchema>;

/** A trial that came to no result. */
export const failedTrialSchema = z.object({
  trial: z.string(),
  /** As an error has it; `lost` where its workers were. */
  code: z.string(),
  message: z.string(),
});

export const benchReportSchema = z.object({
  command: z.literal('bench'),
  ...runFields,
  /** The commands that ran. */
  of: z.array(z.enum(['quantize', 'prune', 'distill', 'compress', 'train', 'evaluate'])).min(1),
  /** Where the reports of all runs are. */
  folder: z.string(),
  rows: z.array(benchRowSchema),
  curves: z.array(benchCurveSchema).optional(),
  trials: z.object({ planned: count, done: count }).optional(),
  failed: z.array(failedTrialSchema).optional(),
  /** Share of the workers' time between trials; absent where this call ran none. */
  overhead: fraction.optional(),
  /** Wall time of the runs of this call; what was there already is not run again. */
  spent: seconds,
});
export type BenchReport = z.infer<typeof benchReportSchema>;
