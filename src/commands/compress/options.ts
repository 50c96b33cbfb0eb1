/** The options of `compress`. */
import { z } from 'zod';
import { COMPRESSION_METHODS, cutOf, findRecipe, quantizerOf, renews, type Recipe } from '../../pipeline/recipes.js';
import type { RunControl } from '../../progress.js';
import {
  augment,
  dataOptionsSchema,
  path,
  positiveInteger,
  resumable,
  RESUME_NEEDS_DIR,
  unknownName,
  width,
} from '../options.js';
import { formatList, QUANTIZATION_METHODS, QUANTIZE_DEFAULTS } from '../quantize/options.js';
import { hintsAreWeighed, taught, WEIGHT_BELONGS_TO_HINTS } from '../recover/options.js';

/** Quantization methods that take a file size, or fix the width, and whose outcome can go on learning. */
export const QUANTIZERS: readonly string[] = QUANTIZATION_METHODS.map(({ name }) => name).filter(
  (name) => !['dynamic-int8', 'int8-qat'].includes(name),
);

/** A name that is none is refused by itself. */
const recipeNamed = (name: string): Recipe => findRecipe(name) ?? COMPRESSION_METHODS[0]!;

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
      .refine(
        (name) => findRecipe(name) !== undefined,
        unknownName('method', () => COMPRESSION_METHODS.map(({ name }) => name)),
      ),
    /** How weights are rounded, in the place of the method's own. */
    quantizer: z
      .string()
      .refine(
        (name) => QUANTIZERS.includes(name),
        unknownName('quantizer', () => QUANTIZERS),
      )
      .optional(),
    formats: formatList,
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
    /** Of the rounded model: more than `quantize` takes, as fewer bits have more to win back. */
    recoverLr: z.number().positive().max(1).default(6e-3),
    ...taught,
    augment,
    /** Widths are left a multiple of this; when absent of the channels that the machine's convolution kernels compute at a time. */
    align: positiveInteger.max(256).optional(),
    /** CALIB samples on which single cuts are measured. */
    probeSamples: positiveInteger.default(256),
    execution: z.enum(['auto', 'int8', 'float']).default(QUANTIZE_DEFAULTS.execution),
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
  .refine(({ method, reduce }) => reduce === undefined || cutOf(recipeNamed(method))?.how === 'rule', {
    message: `belongs to methods that cut by a rule: ${COMPRESSION_METHODS.filter((one) => cutOf(one)?.how === 'rule')
      .map(({ name }) => name)
      .join(', ')}`,
    path: ['reduce'],
  })
  .refine(({ method, quantizer }) => quantizer === undefined || quantizerOf(recipeNamed(method)) !== undefined, {
    error: ({ input }) => `${(input as { method: string }).method} leaves the weights in float`,
    path: ['quantizer'],
  })
  .refine(({ teaching, steps }) => teaching === undefined || steps !== 0, {
    message: 'has no time to teach in with --steps 0',
    path: ['teaching'],
  })
  .refine(({ method, teaching }) => teaching !== 'hints' || !renews(recipeNamed(method)), {
    message:
      'hints are values of the original, of which a network with new weights has none in the same places: give kd, fad or crd',
    path: ['teaching'],
  })
  .refine(hintsAreWeighed, WEIGHT_BELONGS_TO_HINTS)
  .refine(({ method, steps }) => steps !== 0 || !renews(recipeNamed(method)), {
    error: ({ input }) => `${(input as { method: string }).method} draws weights anew and needs time to learn`,
    path: ['steps'],
  })
  .refine(
    ({ method, sizeRatio, maxSize }) =>
      (sizeRatio ?? maxSize) !== undefined || cutOf(recipeNamed(method))?.how !== 'joint',
    {
      message: 'joint weighs bytes against bytes: say how small (sizeRatio, or maxSize in bytes)',
      path: ['method'],
    },
  )
  .refine(
    ({ method, sizeRatio, maxSize, speedup }) =>
      [sizeRatio, maxSize, speedup].some((limit) => limit !== undefined) ||
      cutOf(recipeNamed(method))?.how !== 'to-size',
    {
      error: ({ input }) =>
        `is not all that ${(input as { method: string }).method} needs: its network is as wide as a size or a speed lets it be`,
      path: ['maxDrop'],
    },
  );

export type CompressOptions = z.output<typeof compressOptionsSchema> & RunControl;
