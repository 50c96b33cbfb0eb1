/** The report of `compress`: the limits, what was planned, what every stage cost on VAL, and what the written file measures. */
import { z } from 'zod';
import {
  count,
  dataSummarySchema,
  formatSchema,
  fraction,
  measurementSchema,
  runFields,
  settingsSchema,
  verificationSchema,
} from './fields.js';
import { prunedGroupSchema, prunedLayerSchema, removedBranchSchema } from './prune.js';
import { measureSchema, qualitySchema, recoverySchema } from './recovery.js';

const asked = { requested: z.number().positive(), achieved: z.number(), met: z.boolean() };

/** What was asked for and what came out. */
export const compressionLimitsSchema = z.object({
  /** Bytes of the file. */
  size: z.object(asked).optional(),
  /** Times as fast as the original, in batches of `batch`. */
  speed: z.object({ ...asked, batch: count.min(1) }).optional(),
  /** Fall of the metric on VAL, in its units. */
  drop: z.object({ metric: z.string(), ...asked }).optional(),
});
export type CompressionLimits = z.infer<typeof compressionLimitsSchema>;

/** A model that could have been made, as it was before it learned anything. */
export const plannedModelSchema = z.object({
  /** Place on the ladder of cuts; 0 where nothing is cut. */
  rung: count,
  params: count,
  macs: count.optional(),
  /** Average stored width; 32 for weights in float. */
  bits: z.number().positive(),
  bytes: count,
  /** Times as fast as the original; absent where no speed was asked for. */
  speedup: z.number().positive().optional(),
  /** On VAL. */
  quality: qualitySchema,
  /** Whether it keeps to the limits on size and speed. */
  fits: z.boolean(),
  /** In which try it was made, from 1; absent where it was not. */
  tried: count.min(1).optional(),
  /** Whether it became the output. */
  chosen: z.boolean(),
});
export type PlannedModel = z.infer<typeof plannedModelSchema>;

/** The model as it was after a stage; the quality is on VAL. */
export const compressionStageSchema = z.object({
  name: z.enum(['original', 'cut', 'renewed', 'learned', 'quantized', 'recovered']),
  quality: qualitySchema,
  bytes: count,
  updates: count.optional(),
});
export type CompressionStage = z.infer<typeof compressionStageSchema>;

/** A layer of the original, in the order of the network. */
export const compressedLayerSchema = prunedLayerSchema.extend({
  /** Of the stored weights; absent for a layer that was removed. */
  bits: z.number().min(1).max(32).optional(),
  format: formatSchema.optional(),
  execution: z.enum(['int8', 'float']).optional(),
  /** In the file: codes, scales, bias. */
  bytes: z.object({ before: count, after: count }),
});
export type CompressedLayer = z.infer<typeof compressedLayerSchema>;

const answerSchema = z.object({ class: z.number().int(), probability: fraction });

/** Answers on TEST beside those of the original. */
export const answersSchema = z.object({
  samples: count,
  classes: z.array(
    z.object({
      class: count,
      name: z.string().optional(),
      /** That the original puts into the class, and the share of these that the compressed model puts there too. */
      samples: count,
      agreement: fraction,
      /** Of the samples with this label, the shares that are right; absent without labels. */
      labelled: z.object({ samples: count, before: fraction, after: fraction }).optional(),
    }),
  ),
  /** The samples on which the two differ most, by their place in TEST. */
  worst: z.array(
    z.object({
      index: count,
      label: count.optional(),
      /** Nats; absent where an answer is no number. */
      divergence: z.number().nonnegative().optional(),
      original: answerSchema,
      compressed: answerSchema,
    }),
  ),
});
export type ComparedAnswers = z.infer<typeof answersSchema>;

export const compressReportSchema = z.object({
  command: z.literal('compress'),
  method: z.string(),
  ...runFields,
  seed: count,
  model: z.string(),
  output: z.string(),
  data: dataSummarySchema.optional(),
  settings: settingsSchema.optional(),
  limits: compressionLimitsSchema,
  /** What every `divergence` counts. */
  measure: measureSchema,
  plan: z.array(plannedModelSchema),
  states: z.array(compressionStageSchema),
  before: measurementSchema,
  after: measurementSchema,
  groups: z.array(prunedGroupSchema),
  removed: z.array(removedBranchSchema),
  layers: z.array(compressedLayerSchema),
  /** Of the cut model, before its weights were rounded. */
  learning: recoverySchema.optional(),
  /** Of the rounded model. */
  recovery: recoverySchema.optional(),
  /** Absent for models without class scores. */
  answers: answersSchema.optional(),
  verification: verificationSchema.optional(),
});
export type CompressReport = z.infer<typeof compressReportSchema>;
