/** What `distill` reports. */
import { z } from 'zod';
import {
  count,
  dataSummarySchema,
  fraction,
  measurementSchema,
  milliseconds,
  runFields,
  settingsSchema,
} from './fields.js';
import { fidelitySchema } from './fidelity.js';
import { trainingPointSchema, trainingSummarySchema } from './train.js';

/** An evaluation on VAL with what every term of the loss was on TRAIN since the one before. */
export const distillationPointSchema = trainingPointSchema.extend({
  /** Means by name of the term (`task`, `answers`, `flow`, `features`, ...), without their factors. */
  terms: z.record(z.string(), z.number()),
});
export type DistillationPoint = z.infer<typeof distillationPointSchema>;

/** A layer or residual block as flow sees it. */
export const flowPointSchema = z.object({
  name: z.string(),
  /** Position in the network: 0 first, 1 last. */
  depth: fraction,
  /** Mean flowChange over samples of CALIB. */
  change: z.number().nonnegative(),
});
export type FlowPoint = z.infer<typeof flowPointSchema>;

/** A layer of the student and the teacher's that it is held against. */
export const mappedLayerSchema = z.object({
  student: z.string(),
  teacher: z.string(),
  /** Linear CKA on samples of CALIB before the training; absent where it does not decide. */
  cka: fraction.optional(),
  /** Share in the loss; 0 for a layer that is not selected. */
  weight: z.number().nonnegative(),
});
export type MappedLayer = z.infer<typeof mappedLayerSchema>;

/** A short training of a candidate, and what it showed. */
export const candidateRoundSchema = z.object({
  steps: count,
  /** Divergence of its flow along the depth from the teacher's; 0 for equal profiles. */
  alignment: z.number().nonnegative(),
  /** Mean linear CKA over the mapped layers. */
  cka: fraction,
  /** Share of right answers on VAL relative to the teacher's; without labels share of answers as the teacher's. */
  quality: fraction,
  /** 0.4 (1 - alignment) + 0.4 cka + 0.2 quality. */
  score: fraction,
});
export type CandidateRound = z.infer<typeof candidateRoundSchema>;

/** A student that was considered. */
export const proposedCandidateSchema = z.object({
  name: z.string(),
  /** Of its file. */
  bytes: count,
  macs: count.optional(),
  /** Median for one sample, timed beside the other candidates; absent where a limit was exceeded before. */
  ms: milliseconds.optional(),
  /** Why it was not tried. */
  refused: z.string().optional(),
  rounds: z.array(candidateRoundSchema),
  chosen: z.boolean(),
});
export type ProposedCandidate = z.infer<typeof proposedCandidateSchema>;

export const distillReportSchema = z.object({
  command: z.literal('distill'),
  method: z.string(),
  ...runFields,
  seed: count,
  teacher: z.string(),
  /** The file that was trained on, or the architecture that was built. */
  student: z.string(),
  output: z.string(),
  data: dataSummarySchema.optional(),
  settings: settingsSchema.optional(),
  /** The teacher. */
  before: measurementSchema,
  /** The student that was written. */
  after: measurementSchema,
  training: trainingSummarySchema,
  history: z.array(distillationPointSchema),
  /** Where the student was chosen. */
  candidates: z.array(proposedCandidateSchema).optional(),
  mapping: z.array(mappedLayerSchema).optional(),
  /** On samples of CALIB, the student's behind the training. */
  flow: z.object({ teacher: z.array(flowPointSchema), student: z.array(flowPointSchema) }).optional(),
  /** On TEST. */
  fidelity: fidelitySchema.optional(),
});
export type DistillReport = z.infer<typeof distillReportSchema>;
