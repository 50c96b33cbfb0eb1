/** The one report object: what every command measured, as a zod schema. Tables, JSON, Markdown and HTML are made from it alone. */
import { z } from 'zod';
import { FlowCompressError } from '../errors.js';
import {
  count,
  dataSummarySchema,
  formatSchema,
  latencySchema,
  measurementSchema,
  metricSchema,
  runFields,
  settingsSchema,
  targetSchema,
  verificationSchema,
} from './schema/fields.js';
import { benchReportSchema } from './schema/bench.js';
import { compressReportSchema } from './schema/compress.js';
import { distillReportSchema } from './schema/distill.js';
import { fidelitySchema } from './schema/fidelity.js';
import { pruneReportSchema, unitKindSchema } from './schema/prune.js';
import { recoverySchema } from './schema/recovery.js';
import { trainReportSchema } from './schema/train.js';

export { dataSummarySchema, latencySchema, measurementSchema, metricSchema, targetSchema, verificationSchema };
export type { DataSummary, Latency, Measurement, Metric, Target, Verification } from './schema/fields.js';
export { benchReportSchema } from './schema/bench.js';
export type { BenchCurve, BenchReport, BenchRow, Compared, Statistic } from './schema/bench.js';
export {
  candidateRoundSchema,
  distillationPointSchema,
  distillReportSchema,
  flowPointSchema,
  mappedLayerSchema,
  proposedCandidateSchema,
} from './schema/distill.js';
export type {
  CandidateRound,
  DistillationPoint,
  DistillReport,
  FlowPoint,
  MappedLayer,
  ProposedCandidate,
} from './schema/distill.js';
export {
  answersSchema,
  compressedLayerSchema,
  compressionLimitsSchema,
  compressionStageSchema,
  compressReportSchema,
  plannedModelSchema,
} from './schema/compress.js';
export type {
  ComparedAnswers,
  CompressedLayer,
  CompressionLimits,
  CompressionStage,
  CompressReport,
  PlannedModel,
} from './schema/compress.js';
export { fidelitySchema, geometrySchema, sampleQualitySchema } from './schema/fidelity.js';
export type { Fidelity, Geometry, SampleQuality } from './schema/fidelity.js';
export { qualitySchema, recoveryPointSchema, recoverySchema } from './schema/recovery.js';
export type { Quality, RecoveryPoint, RecoverySummary } from './schema/recovery.js';
export {
  prunedGroupSchema,
  prunedLayerSchema,
  pruneReportSchema,
  pruningStepSchema,
  removedBranchSchema,
} from './schema/prune.js';
export { trainingPointSchema, trainReportSchema } from './schema/train.js';
export type { TrainingPoint, TrainingSummary, TrainReport } from './schema/train.js';
export type { PrunedGroup, PrunedLayer, PruneReport, PruningStep, RemovedBranch } from './schema/prune.js';

const layerFields = {
  name: z.string(),
  op: z.string(),
  params: count.optional(),
  macs: count.optional(),
  /** Bytes of the layer's weights and bias in the original file. */
  bytesBefore: count.optional(),
  /** Relative sensitivity, largest layer = 1. */
  sensitivity: z.number().nonnegative().optional(),
  /** flowMagnitude, mean over the calibration samples. */
  flow: z.number().nonnegative().optional(),
  /** Norm of the loss gradient in the layer's weights, mean over batches of calibration samples. */
  gradient: z.number().nonnegative().optional(),
  /** flowChange: relative difference between the layer's input and output. */
  flowChange: z.number().nonnegative().optional(),
  /** KL divergence (nats, mean over samples) of the outputs with only this layer at the width given by the key, in bits. */
  kl: z.record(z.string().regex(/^\d+(\.\d+)?$/, 'must be a width in bits'), z.number()).optional(),
  /** Signal to quantization noise of the layer's weights at the chosen width, decibels. */
  sqnrDb: z.number().optional(),
  /** Position in the network: 0 first layer, 1 last. */
  depth: z.number().min(0).max(1).optional(),
  /** Why the layer got a special treatment, for example `class head: 8 bits`. */
  note: z.string().optional(),
};

/** A layer of the profiled, unchanged model. */
export const profiledLayerSchema = z.object({ ...layerFields, bytes: count.optional() });
export type ProfiledLayer = z.infer<typeof profiledLayerSchema>;

/** A layer of the written model: stored width, execution precision and bytes in the file (codes, scales, zero points). */
export const quantizedLayerSchema = z.object({
  ...layerFields,
  bits: z.number().min(1).max(32),
  /** How the codes are stored; absent where weights stayed in float. */
  format: formatSchema.optional(),
  execution: z.enum(['int8', 'float']),
  bytes: count,
});
export type QuantizedLayer = z.infer<typeof quantizedLayerSchema>;

/** One model of a sweep over average widths. */
export const sweepPointSchema = z.object({
  bits: z.number().positive(),
  bytes: count,
  metric: metricSchema,
  latency: latencySchema.optional(),
});
export type SweepPoint = z.infer<typeof sweepPointSchema>;

/** The same model, data and budget under another method. */
export const baselineSchema = z.object({
  method: z.string(),
  bits: z.number().positive().optional(),
  bytes: count,
  metric: metricSchema,
  latency: latencySchema.optional(),
});
export type Baseline = z.infer<typeof baselineSchema>;

/** Agreement of the cheap sensitivity with the measured one, as ranks. */
const sensitivityCheckSchema = z.object({
  kendallTau: z.number().min(-1).max(1),
  /** Without the gradient term; absent where there are no gradients. */
  withoutGradient: z.number().min(-1).max(1).optional(),
  /** Layers that were compared. */
  layers: count,
});
export type SensitivityCheck = z.infer<typeof sensitivityCheckSchema>;

const valueSchema = z.object({
  name: z.string(),
  type: z.string(),
  dims: z.array(z.union([z.number(), z.string()])),
});

const removableUnitsSchema = z.object({
  /** Units of one group lie in the same weights. */
  groups: z.array(
    z.object({
      /** Names of the layers that make the units; empty where no layer does. */
      layers: z.array(z.string()),
      kind: unitKindSchema,
      units: count,
      /** Of one unit: parameters, and multiply-accumulates of a sample. */
      params: count,
      macs: count.optional(),
      /** Axes of initializers that lose `slices` slices with the first unit. */
      members: z.array(
        z.object({
          initializer: z.string(),
          axis: count,
          role: z.enum(['producer', 'consumer', 'scale']),
          node: z.string(),
          slices: count,
        }),
      ),
    }),
  ),
  /** Residual branches that can go whole, and layers that a projection can stand for: what one saves. */
  layers: z
    .array(
      z.object({ name: z.string(), layers: z.array(z.string()), params: z.number().int(), macs: count.optional() }),
    )
    .optional(),
  /** Convolutions and Gemms whose place no projection can take. */
  kept: z.array(z.object({ layer: z.string(), reason: z.string() })).optional(),
  /** What layers make and nobody can remove: `count` of `of`, because of `node` or, without one, the interface of the model. */
  fixed: z.array(
    z.object({
      layer: z.string(),
      op: z.string(),
      count,
      of: count,
      reason: z.string(),
      node: z.string().optional(),
    }),
  ),
});
export type RemovableUnits = z.infer<typeof removableUnitsSchema>;

export const inspectReportSchema = z.object({
  command: z.literal('inspect'),
  ...runFields,
  target: targetSchema.optional(),
  model: z.object({
    path: z.string(),
    inputs: z.array(valueSchema),
    outputs: z.array(valueSchema),
    opset: count,
    irVersion: count,
    producer: z.string().optional(),
    nodes: count.optional(),
    params: count,
    macs: count.optional(),
    bytes: count,
    gzipBytes: count.optional(),
    /** One row per layer that holds weights. */
    rows: z.array(
      z.object({
        name: z.string(),
        op: z.string(),
        weightDims: z.array(count).optional(),
        outputDims: z.array(z.union([z.number(), z.string()])).optional(),
        params: count,
        macs: count.optional(),
        bytes: count,
        /** What the compressor would not touch here, and why. */
        note: z.string().optional(),
      }),
    ),
    /** What can be removed, and what not. */
    removable: removableUnitsSchema.optional(),
    unsupported: z.array(z.object({ node: z.string(), op: z.string(), reason: z.string() })).optional(),
  }),
});
export type InspectReport = z.infer<typeof inspectReportSchema>;

export const evaluateReportSchema = z.object({
  command: z.literal('evaluate'),
  ...runFields,
  data: dataSummarySchema.optional(),
  /** The model that `fidelity` is about; absent where none was given. */
  teacher: z.string().optional(),
  /** In the order of the command line; the first one is the reference of every ratio. */
  files: z.array(measurementSchema.extend({ path: z.string(), fidelity: fidelitySchema.optional() })).min(1),
});
export type EvaluateReport = z.infer<typeof evaluateReportSchema>;

export const profileReportSchema = z.object({
  command: z.literal('profile'),
  ...runFields,
  model: z.string(),
  data: dataSummarySchema.optional(),
  settings: settingsSchema.optional(),
  before: measurementSchema.optional(),
  layers: z.array(profiledLayerSchema),
  sensitivityCheck: sensitivityCheckSchema.optional(),
});
export type ProfileReport = z.infer<typeof profileReportSchema>;

/** What was asked for and what came out. `unit` bits: parameter-weighted mean stored width; bytes: size of the file. */
const budgetSchema = z.object({
  unit: z.enum(['bits', 'bytes']),
  requested: z.number().positive(),
  achieved: z.number().nonnegative(),
  met: z.boolean(),
});

export const quantizeReportSchema = z.object({
  command: z.literal('quantize'),
  method: z.string(),
  ...runFields,
  seed: count,
  model: z.string(),
  output: z.string(),
  data: dataSummarySchema.optional(),
  settings: settingsSchema.optional(),
  budget: budgetSchema.optional(),
  before: measurementSchema,
  after: measurementSchema,
  layers: z.array(quantizedLayerSchema),
  sensitivityCheck: sensitivityCheckSchema.optional(),
  recovery: recoverySchema.optional(),
  sweep: z.array(sweepPointSchema).optional(),
  baselines: z.array(baselineSchema).optional(),
  verification: verificationSchema.optional(),
});
export type QuantizeReport = z.infer<typeof quantizeReportSchema>;

/** Any report; `command` tells which. */
export const reportSchema = z.discriminatedUnion('command', [
  inspectReportSchema,
  evaluateReportSchema,
  profileReportSchema,
  quantizeReportSchema,
  pruneReportSchema,
  compressReportSchema,
  trainReportSchema,
  distillReportSchema,
  benchReportSchema,
]);
export type Report = z.infer<typeof reportSchema>;

/**
 * Checks a report, for example one read back from a `--json` file. Fields this version does not know are dropped.
 * @throws FlowCompressError `bad-input` naming the fields that do not fit.
 */
export function parseReport(value: unknown): Report {
  const result = reportSchema.safeParse(value);
  if (result.success) return result.data;
  throw new FlowCompressError('bad-input', `Not a report: ${describeIssues(result.error)}`, {
    hint: 'Give the JSON object that a command prints with --json.',
  });
}

/** The first few problems of a failed parse as `path: message; ...`. */
export function describeIssues(error: z.ZodError): string {
  const shown = error.issues.slice(0, 4).map((issue) => {
    const path = issue.path.map(String).join('.');
    return path === '' ? issue.message : `${path}: ${issue.message}`;
  });
  const more = error.issues.length - shown.length;
  return shown.join('; ') + (more > 0 ? `; and ${more} more` : '');
}
