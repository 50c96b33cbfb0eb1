/** The report of `prune`: which units and branches went, what each step cost on VAL, and what the written file measures. */
import { z } from 'zod';
import {
  count,
  dataSummarySchema,
  measurementSchema,
  runFields,
  seconds,
  settingsSchema,
  verificationSchema,
} from './fields.js';
import { measureSchema, qualitySchema, recoverySchema } from './recovery.js';

/** What the units of a dependency group are. */
export const unitKindSchema = z.enum(['filters', 'neurons', 'heads', 'embedding', 'inputs']);

/** Units of one dependency group, before and after. */
export const prunedGroupSchema = z.object({
  /** Names of the layers that make the units; empty where no layer does. */
  layers: z.array(z.string()),
  kind: unitKindSchema,
  before: count,
  after: count,
});
export type PrunedGroup = z.infer<typeof prunedGroupSchema>;

const change = z.object({ before: count, after: count });

/** A layer of the original, in the order of the network. */
export const prunedLayerSchema = z.object({
  name: z.string(),
  op: z.string(),
  /** Output channels; 0 after for a layer that was removed. */
  channels: change,
  params: change,
  macs: change.optional(),
});
export type PrunedLayer = z.infer<typeof prunedLayerSchema>;

/**
 * A residual branch (or attention or MLP sublayer) that was taken out, its sum keeping the skip; or layers that a projection stands for,
 * with what they cost more than it does.
 */
export const removedBranchSchema = z.object({
  /** Label of the sum, or of the layers. */
  name: z.string(),
  layers: z.array(z.string()),
  params: count,
  macs: count.optional(),
  /** Of the model with this alone, from the original's outputs. */
  divergence: z.number().nonnegative().optional(),
});
export type RemovedBranch = z.infer<typeof removedBranchSchema>;

/** One round of cutting and mending. Qualities are on VAL, as far as measured; absent of models without finite numbers. */
export const pruningStepSchema = z.object({
  step: count.min(1),
  /** Removed in this step. */
  units: count,
  /** Removed, or replaced by projections, in this step. */
  branches: z.array(z.string()),
  /** Of the model behind the step. */
  params: count,
  macs: count.optional(),
  /** Right after the cut. */
  cut: qualitySchema.optional(),
  /** Readers of removed channels re-fitted in closed form. */
  refitted: qualitySchema.optional(),
  /** Statistics of the normalizations that are left taken anew; absent where that brought the model no nearer. */
  normalized: qualitySchema.optional(),
  /** Layers fitted one after another to the original's outputs; absent where that brought the model no nearer. */
  aligned: qualitySchema.optional(),
  /** After updates by gradient. */
  recovered: qualitySchema.optional(),
  updates: count.optional(),
  accepted: z.boolean(),
  seconds,
});
export type PruningStep = z.infer<typeof pruningStepSchema>;

export const pruneReportSchema = z.object({
  command: z.literal('prune'),
  method: z.string(),
  ...runFields,
  seed: count,
  model: z.string(),
  output: z.string(),
  data: dataSummarySchema.optional(),
  settings: settingsSchema.optional(),
  /** Fractions of the original's cost that were to go and that went. */
  budget: z
    .object({
      of: z.enum(['macs', 'params', 'latency']),
      requested: z.number().positive(),
      achieved: z.number(),
      met: z.boolean(),
    })
    .optional(),
  /** Allowed and measured fall of the metric on VAL, in its units. */
  drop: z
    .object({ metric: z.string(), allowed: z.number().nonnegative(), measured: z.number(), met: z.boolean() })
    .optional(),
  /** What every `divergence` counts. */
  measure: measureSchema,
  /** Of the original on VAL. */
  original: qualitySchema,
  before: measurementSchema,
  after: measurementSchema,
  groups: z.array(prunedGroupSchema),
  layers: z.array(prunedLayerSchema),
  removed: z.array(removedBranchSchema),
  steps: z.array(pruningStepSchema),
  /** Learning after the last cut. */
  recovery: recoverySchema.optional(),
  verification: verificationSchema.optional(),
});
export type PruneReport = z.infer<typeof pruneReportSchema>;
