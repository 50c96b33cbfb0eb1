/** The options of `compress`. */
import { z } from 'zod';
import { COMPRESSION_METHODS, findRecipe } from '../pipeline/recipes.js';
import type { RunControl } from '../progress.js';
import {
  augment,
  dataOptionsSchema,
  DEFAULTS,
  path,
  positiveInteger,
  resumable,
  RESUME_NEEDS_DIR,
  width,
} from './options.js';

export const compressOptionsSchema = dataOptionsSchema
  .extend({
    ...resumable,
    output: path,
    force: z.boolean().default(false),
    calibSamples: positiveInteger.default(1024),
    /** Samples per update. */
    batchSize: positiveInteger.default(128),
    method: z
      .string()
      .default(COMPRESSION_METHODS[0]!.name)
      .refine((name) => findRecipe(name) !== undefined, {
        error: (issue) =>
          `unknown method ${JSON.stringify(issue.input)}; there are ${COMPRESSION_METHODS.map((m) => m.name).join(', ')}`,
      }),
    /** How many times smaller than the original file the output is to be. */
    sizeRatio: z.number().gt(1).optional(),
    /** Largest size of the output in bytes. */
    maxSize: positiveInteger.optional(),
    /** How many times faster than the original the output is to be, at the largest timed batch. */
    speedup: z.number().gt(1).optional(),
    /** Largest fall of the metric on VAL, in its units. */
    maxDrop: z.number().gt(0).optional(),
    /** Of the method that cuts once, by a rule: share of the multiply-accumulates that is to go. */
    reduce: z.number().gt(0).lt(1).optional(),
    /** Passes over TRAIN in all learning together. */
    epochs: positiveInteger.optional(),
    /** Updates in all learning together; 0 for none. */
    steps: z.number().int().min(0).optional(),
    /** Seconds of all learning together. */
    maxTime: z.number().positive().optional(),
    /** As that of `prune`: of the cut model before it is rounded. */
    lr: z.number().positive().max(1).optional(),
    /** Of the rounded model. */
    recoverLr: z.number().positive().max(1).default(DEFAULTS.recoverLr),
    temperature: z.number().positive().default(DEFAULTS.temperature),
    /** Factor on the relative squared errors of values inside the cut model while it learns. */
    hintWeight: z.number().min(0).default(100),
    augment,
    /** Widths are left a multiple of this; when absent of the channels that the machine's convolution kernels compute at a time. */
    align: positiveInteger.max(256).optional(),
    /** CALIB samples on which single cuts are measured. */
    probeSamples: positiveInteger.default(256),
    execution: z.enum(['auto', 'int8', 'float']).default(DEFAULTS.execution),
    /** Narrowest width of a layer. */
    minBits: width.optional(),
    bestEffort: z.boolean().default(false),
    remeasure: z.boolean().default(false),
    latencyRuns: positiveInteger.optional(),
  })
  .refine((options) => !options.resume || options.runDir !== undefined, RESUME_NEEDS_DIR)
  .refine(
    ({ sizeRatio, maxSize, speedup, maxDrop }) =>
      [sizeRatio, maxSize, speedup, maxDrop].some((limit) => limit !== undefined),
    {
      message: 'a limit is missing: say how small (or maxSize in bytes), how fast (speedup) or how good (maxDrop)',
      path: ['sizeRatio'],
    },
  )
  .refine(({ sizeRatio, maxSize }) => sizeRatio === undefined || maxSize === undefined, {
    message: 'cannot be combined with a largest size in bytes: give one of them',
    path: ['sizeRatio'],
  })
  .refine(({ method, reduce }) => reduce === undefined || findRecipe(method)?.cuts === 'once', {
    message: 'belongs to the method sequential, which plans nothing',
    path: ['reduce'],
  });

export type CompressOptions = z.output<typeof compressOptionsSchema> & RunControl;
