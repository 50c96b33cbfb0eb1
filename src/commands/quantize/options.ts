/** Options of `quantize`. */
import { z } from 'zod';
import {
  augment,
  dataOptionsSchema,
  isOneForm,
  path,
  positiveInteger,
  REFERENCE_HAS_G,
  resumable,
  RESUME_NEEDS_DIR,
  sensitivityForm,
  unknownName,
  width,
} from '../options.js';
import { hintsAreWeighed, taught, WEIGHT_BELONGS_TO_HINTS } from '../recover/options.js';
import type { RunControl } from '../../progress.js';

/** What an option is when it is not given, beside those of every command. */
export const QUANTIZE_DEFAULTS = {
  method: 'faaq',
  bits: 4,
  minBits: 2,
  maxBits: 8,
  edgeBits: 8,
  attentionBits: 4,
  probeSamples: 16,
  execution: 'auto',
  sensitivity: 'auto',
  gradientBits: 4,
  formats: ['uniform'],
  recoverLr: 1e-3,
  recoverBatchSize: 128,
} as const;

/** The quantization methods by name, FAAQ first. */
export const QUANTIZATION_METHODS: readonly { readonly name: string; readonly summary: string }[] = [
  { name: 'faaq', summary: 'per-layer bits by information flow, packed weights' },
  { name: 'hawq', summary: 'per-layer bits by the mean trace of the Hessian of the loss, packed weights' },
  { name: 'haq-lite', summary: 'per-layer bits by a seeded search of 160 tries, packed weights' },
  { name: 'uniform', summary: 'the same width in every layer, packed weights' },
  { name: 'static-int8', summary: '8-bit weights, calibrated 8-bit activations' },
  { name: 'int8-qat', summary: 'static-int8 that trains as it is rounded, from labels where there are some' },
  { name: 'dynamic-int8', summary: '8-bit weights, activations quantized at run time' },
];

/** How single layers may be stored, where the method chooses: FAAQ does. */
export const formatList = z
  .array(z.enum(['uniform', 'codebook']))
  .default([...QUANTIZE_DEFAULTS.formats])
  .refine((formats) => formats.includes('uniform'), {
    message: 'must have uniform among them: widths above those of codebooks are uniform codes',
  });

export const quantizeOptionsSchema = dataOptionsSchema
  .extend({
    ...resumable,
    output: path,
    /** Replace an existing output. */
    force: z.boolean().default(false),
    method: z
      .string()
      .default(QUANTIZE_DEFAULTS.method)
      .refine(
        (name) => QUANTIZATION_METHODS.some((method) => method.name === name),
        unknownName('method', () => QUANTIZATION_METHODS.map(({ name }) => name)),
      ),
    /** Parameter-weighted average width of the stored weights; 4 when `maxSize` is absent too. */
    bits: z.number().min(1).max(8).optional(),
    /** Largest size of the output in bytes. */
    maxSize: positiveInteger.optional(),
    /** Average widths whose files are measured as well. */
    sweep: z.array(z.number().min(1).max(8)).min(1).optional(),
    execution: z.enum(['auto', 'int8', 'float']).default(QUANTIZE_DEFAULTS.execution),
    /** Times operators and candidate files anew, whatever this machine remembers of earlier runs. */
    remeasure: z.boolean().default(false),
    /** Write the best model that was found when the budget cannot be met. */
    bestEffort: z.boolean().default(false),
    /** Narrowest width of a layer. When absent 2, or 1 where the budget asks for about 2 bits or fewer. */
    minBits: width.optional(),
    maxBits: width.default(QUANTIZE_DEFAULTS.maxBits),
    /** Width of the first and last layers and of embeddings, where they are small. */
    edgeBits: width.default(QUANTIZE_DEFAULTS.edgeBits),
    /** Lowest width of attention projections when widths follow the flow sensitivity. */
    attentionBits: width.default(QUANTIZE_DEFAULTS.attentionBits),
    /** CALIB samples on which the divergence of single layers is measured. */
    probeSamples: positiveInteger.default(QUANTIZE_DEFAULTS.probeSamples),
    /** `compensated` lets rounding errors cancel (GPTQ); `nearest` rounds every weight by itself. */
    rounding: z.enum(['compensated', 'nearest']).default('compensated'),
    formats: formatList,
    /** `flow` from one profile, `measured` by the KL divergence of every layer and width, `auto` as the method sees fit. */
    sensitivity: z.enum(['auto', 'flow', 'measured']).default(QUANTIZE_DEFAULTS.sensitivity),
    ...sensitivityForm,
    /** Lowest width of layers with a gradient of more than three times the median, with the flow sensitivity. */
    gradientBits: width.default(QUANTIZE_DEFAULTS.gradientBits),
    /** Updates in which the rounded model learns from the original; 0 for none. */
    recover: z.number().int().min(0).optional(),
    /** Of recovery: share of its own size by which a weight moves per update. */
    recoverLr: z.number().positive().max(1).default(QUANTIZE_DEFAULTS.recoverLr),
    recoverBatchSize: positiveInteger.default(QUANTIZE_DEFAULTS.recoverBatchSize),
    ...taught,
    /** Of recovery. */
    augment,
    /** Timed runs per file and batch size. */
    latencyRuns: positiveInteger.optional(),
  })
  .refine((options) => !options.resume || options.runDir !== undefined, RESUME_NEEDS_DIR)
  .refine(isOneForm, REFERENCE_HAS_G)
  .refine((options) => options.sensitivityMode !== 'reference' || options.sensitivity !== 'measured', {
    message: 'the reference has no measured sensitivity: combine it with flow',
    path: ['sensitivityMode'],
  })
  .refine((options) => (options.recover ?? 0) === 0 || options.sweep === undefined, {
    message: 'cannot be combined with a sweep: every width would have to be recovered by itself',
    path: ['recover'],
  })
  .refine((options) => (options.recover ?? 0) === 0 || options.method !== 'dynamic-int8', {
    message: 'dynamic-int8 cannot be recovered: its activations have no quantizers before it runs',
    path: ['recover'],
  })
  .refine(hintsAreWeighed, WEIGHT_BELONGS_TO_HINTS)
  .refine((options) => options.bits === undefined || options.maxSize === undefined, {
    message: 'cannot be combined with a largest size: give one budget',
    path: ['bits'],
  })
  .refine((options) => (options.minBits ?? 1) <= options.maxBits, {
    message: 'must not be above the largest width',
    path: ['minBits'],
  });

export type QuantizeOptions = z.output<typeof quantizeOptionsSchema> & RunControl;
