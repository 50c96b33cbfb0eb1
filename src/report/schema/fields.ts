/** Fields that the reports of several commands share: sizes, times, metrics, what was measured of a file, how a run went. */
import { z } from 'zod';

/**
 * Rules of every field: sizes are bytes, times are milliseconds (`...Ms`) or seconds (`seconds`), fractions lie in 0..1.
 * A value that was not measured is absent; it is never zero, never estimated. NaN and infinities are refused.
 */
export const count = z.number().int().nonnegative();
export const seconds = z.number().nonnegative();
export const milliseconds = z.number().nonnegative();
export const fraction = z.number().min(0).max(1);

export const targetSchema = z.enum(['cpu', 'wasm', 'webgpu']);
export type Target = z.infer<typeof targetSchema>;

/** One figure on one split. Without labels the name is `agreement` (top-1 against the original) or `sqnrDb`. */
export const metricSchema = z.object({
  /** `top1`, `top5`, `f1-macro`, `f1-binary`, `agreement` (fractions, 0..1), `sqnrDb` (decibels) or another name; higher is better, but for `loss`. */
  name: z.string().min(1),
  value: z.number(),
  split: z.enum(['train', 'val', 'calib', 'test']),
  samples: count,
});
export type Metric = z.infer<typeof metricSchema>;

/** Wall time of one `run` of the file, in the session options of the deployment. */
export const latencySchema = z.object({
  medianMs: milliseconds,
  p90Ms: milliseconds,
  batch: count.min(1),
  threads: count.optional(),
  provider: z.string(),
  /** Timed runs behind the median. */
  runs: count.optional(),
});
export type Latency = z.infer<typeof latencySchema>;

/** What was measured of one model file. */
export const measurementSchema = z.object({
  /** Bytes on disk, external data included. */
  bytes: count,
  gzipBytes: count.optional(),
  params: count.optional(),
  /** Multiply-accumulates of one sample. */
  macs: count.optional(),
  metric: metricSchema.optional(),
  /** The same figure on VAL, which has decided what was written. */
  val: metricSchema.optional(),
  /** Further figures of the same file (top-5, agreement with the original, ...). */
  metrics: z.array(metricSchema).optional(),
  latency: latencySchema.optional(),
  /** One entry per batch size when several were timed, `latency` among them. */
  latencies: z.array(latencySchema).optional(),
});
export type Measurement = z.infer<typeof measurementSchema>;

/** Proof that the written file does what the report says. */
export const verificationSchema = z.object({
  /** Largest absolute difference between the written file and the simulation of it, over the checked outputs. */
  maxAbsDiff: z.number().nonnegative().optional(),
  /** Samples behind `maxAbsDiff`. */
  samples: count.optional(),
  /** Operators of the graph as ONNX Runtime optimised it: type -> count. */
  fused: z.record(z.string(), count).optional(),
  checks: z.array(z.object({ name: z.string(), passed: z.boolean(), detail: z.string().optional() })).optional(),
});
export type Verification = z.infer<typeof verificationSchema>;

export const runFields = {
  /** Version of flow-compress. */
  version: z.string().optional(),
  seed: count.optional(),
  target: targetSchema,
  seconds,
  peakRssBytes: count.optional(),
  stages: z.array(z.object({ name: z.string(), seconds })).optional(),
  warnings: z.array(z.string()).optional(),
  /** What the work ran on. */
  environment: z.object({ engine: z.string(), node: z.string().optional(), cpu: z.string().optional() }).optional(),
  /** The shell command that makes the same result again. */
  commandLine: z.string().optional(),
};

/** Where the samples came from and how many each split has. */
export const dataSummarySchema = z.object({
  source: z.string(),
  test: z.string().optional(),
  labels: z.boolean(),
  classes: count.optional(),
  samples: z.object({ train: count, val: count, calib: count, test: count }).partial(),
});
export type DataSummary = z.infer<typeof dataSummarySchema>;

export const settingsSchema = z.record(
  z.string(),
  z.union([z.string(), z.number(), z.boolean(), z.array(z.union([z.string(), z.number()]))]),
);

/** How codes are stored: those of a grid, or places in a list of levels that the layer has to itself. */
export const formatSchema = z.enum(['uniform', 'codebook']);
