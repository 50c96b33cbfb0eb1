/** Options of `evaluate`. */
import { z } from 'zod';
import { dataOptionsSchema, path, positiveInteger } from './options.js';
import type { ModelInput } from '../node/model-input.js';
import type { RunControl } from '../progress.js';

/** How the models make samples, and how these are judged. */
export const generationFields = {
  /** Outputs that are compared by value, the main one first; of a VAE reconstruction, mean and log-variance. */
  outputs: z.array(z.string().min(1)).min(1).optional(),
  /** `linear:FIRST:LAST:STEPS`: the data are clean samples, and the models tell the noise in noisy ones. */
  diffusion: z.string().optional(),
  /** Classifier in front of whose last layer samples are compared by their Frechet distance. */
  features: path.optional(),
  /** Values of a sample that stand for black and white. */
  sampleRange: z.tuple([z.number(), z.number()]).default([0, 1]),
  /** Steps in which a diffusion model makes a sample. */
  sampleSteps: positiveInteger.default(50),
  /** Samples behind the Frechet distance at most. */
  samples: z.number().int().min(2).default(1024),
};

export const evaluateOptionsSchema = dataOptionsSchema.extend({
  ...generationFields,
  /** Batch sizes to time; what the model allows when absent. */
  batchSizes: z.array(positiveInteger).min(1).optional(),
  /** Timed runs per file and batch size. */
  latencyRuns: positiveInteger.optional(),
  /** Model whose answers and features every file is held against. */
  teacher: z
    .custom<ModelInput>((value) => value !== '', 'must be a model, such as the path of an ONNX file')
    .optional(),
});

export type EvaluateOptions = z.output<typeof evaluateOptionsSchema> & RunControl;
