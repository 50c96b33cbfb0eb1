/** What `bench` reports: methods side by side under the same data, goals and learning. */
import { z } from 'zod';
import { count, runFields, seconds } from './fields.js';

/** Of a figure over the seeds. */
export const statisticSchema = z.object({ mean: z.number(), least: z.number(), most: z.number() });
export type Statistic = z.infer<typeof statisticSchema>;

/** A method on a model with some options, over all seeds. */
export const benchRowSchema = z.object({
  model: z.string(),
  method: z.string(),
  /** What was swept over, by name of the option. */
  options: z.record(z.string(), z.string()),
  seeds: count.min(1),
  /** On TEST. */
  metric: z.object({ name: z.string(), before: statisticSchema, after: statisticSchema }).optional(),
  /** Share of TEST that gets the class of the original, or of the teacher. */
  agreement: statisticSchema.optional(),
  bytes: z.object({ before: statisticSchema, after: statisticSchema }),
  /** Share of the multiply-accumulates of the original that are left. */
  macs: statisticSchema.optional(),
  /** Time of the largest batch that was timed, relative to the original. */
  latency: statisticSchema.optional(),
  /** Updates by gradient. */
  updates: statisticSchema.optional(),
  /** Of a run. */
  seconds: statisticSchema,
});
export type BenchRow = z.infer<typeof benchRowSchema>;

export const benchReportSchema = z.object({
  command: z.literal('bench'),
  ...runFields,
  of: z.enum(['quantize', 'prune', 'distill', 'compress']),
  /** Where the reports of all runs are. */
  folder: z.string(),
  rows: z.array(benchRowSchema),
  /** Wall time of the runs of this call; what was there already is not run again. */
  spent: seconds,
});
export type BenchReport = z.infer<typeof benchReportSchema>;
