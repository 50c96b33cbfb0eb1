/** The options of the commands' library functions, as zod schemas: one source for types, defaults and checks. */
import { z } from 'zod';
import { preprocessOptionsSchema } from '../data/preprocess.js';
import { FlowCompressError } from '../errors.js';
import { nearest } from '../nearest.js';
import type { ModelInput } from '../node/model-input.js';
import type { RunControl } from '../progress.js';
import { targetSchema } from '../report/report.js';
import { WEIGHTINGS } from '../distillation/lesson.js';
import { DISTILLATION_METHODS } from '../distillation/methods.js';
import { findPruningMethod, PRUNING_METHODS, type PruningMethod } from '../pruning/methods.js';
import { TEACHING_NAMES, type TeachingName } from '../recovery/teachings.js';
import { ORDERS } from '../pruning/removal-order.js';
import { SCORE_NAMES } from '../pruning/scores.js';
import { LABEL_METRICS } from '../runtime/metric.js';
import { LOSSES, type LossName } from '../training/losses.js';
import { OPTIMIZERS, type OptimizerName } from '../training/optimizers.js';
import { SCHEDULES } from '../training/schedule.js';
import { BATCH_NORM_MODES } from '../training/training-mode.js';

/** What an option is when it is not given. */
export const DEFAULTS = {
  seed: 0,
  target: 'cpu',
  calibSamples: 512,
  batchSize: 32,
  method: 'faaq',
  bits: 4,
  minBits: 2,
  maxBits: 8,
  edgeBits: 8,
  attentionBits: 4,
  probeSamples: 16,
  execution: 'auto',
  sensitivity: 'auto',
  sensitivityMode: 'corrected',
  gradientTerm: 'g',
  gradientBits: 4,
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

const OPTIMIZER_NAMES = Object.keys(OPTIMIZERS) as [OptimizerName, ...OptimizerName[]];
const LOSS_NAMES = Object.keys(LOSSES) as [LossName, ...LossName[]];

/** What can decide on VAL. */
export const TRAINING_METRICS = [...LABEL_METRICS, 'loss'] as const;
export type TrainingMetric = (typeof TRAINING_METRICS)[number];

/** What a name that is none of them is answered with. */
export function unknownName(
  what: string,
  known: () => readonly string[],
): { error: (issue: { input?: unknown }) => string } {
  return {
    error({ input }) {
      const names = known();
      const near = typeof input === 'string' ? nearest(input, names) : undefined;
      const guess = near === undefined ? '' : ` (did you mean ${near}?)`;
      return `unknown ${what} ${JSON.stringify(input)}${guess}; there are ${names.join(', ')}`;
    },
  };
}

function isOneOf(names: readonly string[], name: string): boolean {
  return names.includes(name);
}

export const width = z.number().int().min(1).max(8);
export const positiveInteger = z.number().int().min(1);
export const path = z.string().min(1, 'must not be empty');
/** Random changes of the images that a model learns from. */
export const augment = z.array(z.enum(['crop', 'flip', 'cutout', 'mixup'])).default([]);

/** Where the samples come from and how they are read. */
export const dataOptionsSchema = z.object({
  /** NPZ file, image folder or IDX file. Alone it is split 80/10/10 into TRAIN, VAL and TEST. */
  data: path,
  /** Separate TEST data; `data` then gives TRAIN and VAL only. */
  test: path.optional(),
  seed: z.number().int().min(0).max(0xffffffff).default(DEFAULTS.seed),
  /** Intra-op threads of the engine; its own default when absent. */
  threads: z.number().int().min(1).max(1024).optional(),
  target: targetSchema.default(DEFAULTS.target),
  /** Samples of TRAIN that calibrate ranges and measure flow. */
  calibSamples: positiveInteger.default(DEFAULTS.calibSamples),
  /** Samples per engine call at most, where the model leaves it open; large inputs are fed in smaller batches. */
  batchSize: positiveInteger.default(DEFAULTS.batchSize),
  /** Preprocessing of uint8 images; wins over what the model folder or `preprocessFile` says. */
  preprocess: preprocessOptionsSchema.default({}),
  /** Hugging Face `preprocessor_config.json`, or YAML or JSON with the keys of `preprocess`. */
  preprocessFile: path.optional(),
});

/** A run that leaves its progress in a folder and can go on from there. */
export const resumable = {
  runDir: path.optional(),
  resume: z.boolean().default(false),
};

/** What a compressed model is taught. */
export const taught = {
  /** When absent hints after a cut, answers after a rounding. */
  teaching: z
    .string()
    .refine(
      (name) => isOneOf(TEACHING_NAMES, name),
      unknownName('teaching', () => TEACHING_NAMES),
    )
    .transform((name) => name as TeachingName)
    .optional(),
  /** What the scores of both models are divided by before they are compared; what suits the teaching when absent. */
  temperature: z.number().positive().optional(),
  /** Of hints: factor on the relative squared errors of values inside the model, beside the loss of its answers; 0 leaves the answers. */
  hintWeight: z.number().min(0).optional(),
};
export const hintsAreWeighed = ({ teaching, hintWeight }: { teaching?: string; hintWeight?: number }): boolean =>
  hintWeight === undefined || teaching === undefined || teaching === 'hints';
export const WEIGHT_BELONGS_TO_HINTS = { message: 'belongs to --teaching hints', path: ['hintWeight'] };

/** The form of the flow sensitivity. */
const sensitivityForm = {
  /** `corrected`, or `reference`: the published formulas, floors and loss. */
  sensitivityMode: z.enum(['corrected', 'reference']).default(DEFAULTS.sensitivityMode),
  /** What the gradient term counts: `g`, the norm of a layer's gradient, or `gxw`, times the norm of its weights. */
  gradientTerm: z.enum(['g', 'gxw']).default(DEFAULTS.gradientTerm),
};
const isOneForm = (options: { sensitivityMode: string; gradientTerm: string }): boolean =>
  options.sensitivityMode !== 'reference' || options.gradientTerm === 'g';
const REFERENCE_HAS_G = { message: 'must be g with the reference sensitivity', path: ['gradientTerm'] };
export const RESUME_NEEDS_DIR = { message: 'needs --run-dir, the folder of the run to continue', path: ['resume'] };

export const inspectOptionsSchema = z.object({
  /** List the channels that can only be removed together. */
  groups: z.boolean().default(false),
});

/** How the models make samples, and how these are judged. */
const generationFields = {
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

export const profileOptionsSchema = dataOptionsSchema
  .extend({
    ...resumable,
    ...sensitivityForm,
    /** Stored widths, in bits, at which the KL divergence of every layer is measured. */
    widths: z.array(width).min(1).optional(),
  })
  .refine(isOneForm, REFERENCE_HAS_G)
  .refine((options) => !options.resume || options.runDir !== undefined, RESUME_NEEDS_DIR);

export const quantizeOptionsSchema = dataOptionsSchema
  .extend({
    ...resumable,
    output: path,
    /** Replace an existing output. */
    force: z.boolean().default(false),
    method: z
      .string()
      .default(DEFAULTS.method)
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
    execution: z.enum(['auto', 'int8', 'float']).default(DEFAULTS.execution),
    /** Times operators and candidate files anew, whatever this machine remembers of earlier runs. */
    remeasure: z.boolean().default(false),
    /** Write the best model that was found when the budget cannot be met. */
    bestEffort: z.boolean().default(false),
    /** Narrowest width of a layer. When absent 2, or 1 where the budget asks for about 2 bits or fewer. */
    minBits: width.optional(),
    maxBits: width.default(DEFAULTS.maxBits),
    /** Width of the first and last layers and of embeddings, where they are small. */
    edgeBits: width.default(DEFAULTS.edgeBits),
    /** Lowest width of attention projections when widths follow the flow sensitivity. */
    attentionBits: width.default(DEFAULTS.attentionBits),
    /** CALIB samples on which the divergence of single layers is measured. */
    probeSamples: positiveInteger.default(DEFAULTS.probeSamples),
    /** `compensated` lets rounding errors cancel (GPTQ); `nearest` rounds every weight by itself. */
    rounding: z.enum(['compensated', 'nearest']).default('compensated'),
    /** `flow` from one profile, `measured` by the KL divergence of every layer and width, `auto` as the method sees fit. */
    sensitivity: z.enum(['auto', 'flow', 'measured']).default(DEFAULTS.sensitivity),
    ...sensitivityForm,
    /** Lowest width of layers with a gradient of more than three times the median, with the flow sensitivity. */
    gradientBits: width.default(DEFAULTS.gradientBits),
    /** Updates in which the rounded model learns from the original; 0 for none. */
    recover: z.number().int().min(0).optional(),
    /** Of recovery: share of its own size by which a weight moves per update. */
    recoverLr: z.number().positive().max(1).default(DEFAULTS.recoverLr),
    recoverBatchSize: positiveInteger.default(DEFAULTS.recoverBatchSize),
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

/** What a pruned model may lose: filters (units of dependency groups), layers (residual branches), in which order. */
export const PRUNING_STAGES = ['joint', 'filters', 'layers', 'filters-layers', 'layers-filters'] as const;

export const pruneOptionsSchema = dataOptionsSchema
  .extend({
    ...resumable,
    output: path,
    force: z.boolean().default(false),
    calibSamples: positiveInteger.default(1024),
    /** Samples per update. */
    batchSize: positiveInteger.default(128),
    method: z
      .string()
      .default('idap')
      .refine(
        (name) => PRUNING_METHODS.some((method) => method.name === name),
        unknownName('method', () => PRUNING_METHODS.map(({ name }) => name)),
      ),
    /** Share of the original's cost that is to go; half when `maxDrop` is absent too. */
    reduce: z.number().gt(0).lt(1).optional(),
    of: z.enum(['macs', 'params', 'latency']).default('macs'),
    /** Share of single weights that go, with a method that removes these; 0.9 when absent. */
    sparsity: z.number().gt(0).lt(1).optional(),
    /** Largest fall of the metric on VAL, in its units. */
    maxDrop: z.number().gt(0).optional(),
    /** What filters are ranked by; as the method does when absent. */
    score: z.enum(SCORE_NAMES).optional(),
    /** Whether filters that score lowest go first or, as a check of the score, highest. */
    order: z.enum(ORDERS).default('lowest'),
    stages: z.enum(PRUNING_STAGES).default('joint'),
    /** Cuts on the way to the goal; as many as it asks for when absent. */
    cuts: positiveInteger.max(50).optional(),
    /** Widths are left a multiple of this; when absent of the channels that the machine's convolution kernels compute at a time. */
    align: positiveInteger.max(256).optional(),
    /** CALIB samples on which single cuts are measured. */
    probeSamples: positiveInteger.default(256),
    epochs: positiveInteger.optional(),
    /** Updates in which the pruned model learns from the original; 0 for none. */
    steps: z.number().int().min(0).optional(),
    /** Seconds of learning. */
    maxTime: z.number().positive().optional(),
    /** Share of its own size by which a weight moves per update; when absent 0.03 for networks of convolutions, 0.001 for others. */
    lr: z.number().positive().max(1).optional(),
    ...taught,
    augment,
    bestEffort: z.boolean().default(false),
    remeasure: z.boolean().default(false),
    latencyRuns: positiveInteger.optional(),
  })
  .refine((options) => !options.resume || options.runDir !== undefined, RESUME_NEEDS_DIR)
  .refine(hintsAreWeighed, WEIGHT_BELONGS_TO_HINTS)
  .refine(
    ({ teaching, method }) => isOneOf(['hints', 'answers'], teaching ?? 'hints') || kindOf(method) === 'structured',
    {
      message:
        'is taught after a cut: methods that remove single weights or learn before they cut take hints or answers',
      path: ['teaching'],
    },
  )
  .refine((options) => options.sparsity === undefined || removesWeights(options.method), {
    message: `belongs to methods that remove single weights: ${PRUNING_METHODS.filter(({ kind }) => kind === 'weights')
      .map(({ name }) => name)
      .join(', ')}`,
    path: ['sparsity'],
  })
  .refine((options) => options.reduce === undefined || !removesWeights(options.method), {
    message: 'belongs to methods that remove filters and layers; single weights go by --sparsity',
    path: ['reduce'],
  })
  .refine((options) => options.order === 'lowest' || !removesWeights(options.method), {
    message: 'belongs to methods that remove filters',
    path: ['order'],
  })
  .superRefine((options, { addIssue }) => {
    if (kindOf(options.method) !== 'shrinking') return;
    for (const [option, message] of unfitForShrinking(options)) addIssue({ code: 'custom', path: [option], message });
  });

const kindOf = (method: string): PruningMethod['kind'] | undefined => findPruningMethod(method)?.kind;

function removesWeights(method: string): boolean {
  return kindOf(method) === 'weights';
}

/** Options that say how cuts are chosen and judged, which methods that learn before they cut have settled by then. */
function* unfitForShrinking(
  options: Partial<z.input<typeof pruneOptionsSchema>>,
): Generator<readonly [option: string, reason: string]> {
  const { maxDrop, of, score, order, cuts, stages, steps } = options;
  const shrinking = 'methods that learn before they cut (sfp, swd)';
  if (maxDrop !== undefined) yield ['maxDrop', `${shrinking} take a share of the cost only: give --reduce`];
  if (of === 'latency')
    yield ['of', `${shrinking} choose filters before there is anything to time: take macs or params`];
  if (score !== undefined) yield ['score', `${shrinking} go by the norms of the filters`];
  if (order === 'highest') yield ['order', `${shrinking} go by the norms of the filters, the least first`];
  if (cuts !== undefined && cuts > 1) yield ['cuts', `${shrinking} cut once`];
  if (stages !== 'joint' && stages !== 'filters') yield ['stages', `${shrinking} remove filters only`];
  if (steps === 0) yield ['steps', `${shrinking} need time to learn`];
}

/** What trains, how long and how. */
const trainingFields = dataOptionsSchema.extend({
  ...resumable,
  output: path,
  force: z.boolean().default(false),
  batchSize: positiveInteger.default(128),
  epochs: positiveInteger.optional(),
  steps: positiveInteger.optional(),
  /** Seconds. */
  maxTime: z.number().positive().optional(),
  optimizer: z.enum(OPTIMIZER_NAMES).default('adamw'),
  /** Learning rate; what suits the optimiser when absent. */
  lr: z.number().positive().optional(),
  schedule: z.enum(SCHEDULES).default('cosine'),
  /** Share of the training over which the rate climbs. */
  warmup: z.number().min(0).max(0.9).default(0.05),
  /** Pull of the weights towards zero; what suits the optimiser when absent. */
  weightDecay: z.number().min(0).optional(),
  momentum: z.number().min(0).max(0.9999).default(0.9),
  /** Largest norm of the gradient. */
  clipNorm: z.number().positive().optional(),
  accumulate: positiveInteger.default(1),
  /** Decay of a moving average of the weights, which is then what is evaluated and written. */
  ema: z.number().gt(0).lt(1).optional(),
  /** When absent `cross-entropy` for labels, `mse` for arrays of targets. */
  loss: z.enum(LOSS_NAMES).optional(),
  /** Of `kl`: divides the logits of teacher and student. */
  temperature: z.number().positive().default(1),
  labelSmoothing: z.number().min(0).max(0.9).default(0),
  /** Weigh the loss so that all classes count alike. */
  balance: z.boolean().default(false),
  augment,
  /** What decides on VAL which weights are best. When absent `top1` with labels, else `loss`. */
  metric: z.enum(TRAINING_METRICS).optional(),
  /** Epochs without progress on VAL after which training stops. */
  patience: positiveInteger.optional(),
  /** Normalize by the running statistics as they are stored, or by each batch, while they follow. When absent `frozen` for a file with statistics, else `updated`. */
  batchNorm: z.enum(BATCH_NORM_MODES).optional(),
  /** Compute activations anew in the backward pass instead of keeping them: less memory, more time. */
  checkpointActivations: z.boolean().default(false),
  /** Times the gradients of convolutions anew, whatever this machine remembers of earlier runs. */
  remeasure: z.boolean().default(false),
  /** Project of Weights & Biases that gets the curves. */
  wandb: z.string().min(1, 'must not be empty').optional(),
  /** Of an architecture of the zoo: classes (those of the data when absent), size, width and channels. */
  classes: positiveInteger.optional(),
  inputSize: positiveInteger.optional(),
  width: z.number().positive().optional(),
  channels: positiveInteger.optional(),
  depth: positiveInteger.optional(),
  patchSize: positiveInteger.optional(),
  dropout: z.number().min(0).lt(1).optional(),
  shortcut: z.enum(['pad', 'conv']).optional(),
  latencyRuns: positiveInteger.optional(),
});

export const trainOptionsSchema = trainingFields
  .refine((options) => !options.resume || options.runDir !== undefined, RESUME_NEEDS_DIR)
  .refine((options) => options.temperature === 1 || options.loss === 'kl', {
    message: 'belongs to --loss kl',
    path: ['temperature'],
  });

/** A training with a teacher beside it. */
export const distillOptionsSchema = trainingFields
  .omit({ loss: true })
  .extend({
    ...generationFields,
    /** With `diffusion`: how often a clean sample comes, each time with other noise, in an epoch. */
    draws: positiveInteger.default(1),
    /** The model that is learned from. */
    teacher: path,
    method: z
      .enum(DISTILLATION_METHODS.map(({ name }) => name) as [string, ...string[]])
      .default(DISTILLATION_METHODS[0]!.name),
    /** Of the answers: divides the logits of teacher and student. */
    temperature: z.number().positive().default(4),
    /** Which layers count in flow alignment. */
    select: z.enum(['all', 'selective', 'curriculum']).default('all'),
    /** Flow alignment layer by layer, or along the depth. */
    flow: z.enum(['layers', 'integrated']).default('layers'),
    /** Flows of every sample instead of their means over the batch. */
    perSample: z.boolean().default(false),
    /** How flow alignment weighs labels, answers, flow and layers. */
    weighting: z.enum(WEIGHTINGS).default('adaptive'),
    /** Layers of the student to those of the teacher: by depth, by likeness, or a file {"student": "teacher"}. */
    mapping: z.string().min(1, 'must not be empty').default('cka'),
    /** Epochs after which augmentation repeats itself, so that the answers of the teacher can be kept; never when absent. */
    rounds: positiveInteger.optional(),
    /** Folder that keeps the answers of the teacher. */
    cacheTeacher: path.optional(),
    /** Of a student that is chosen: bytes of the file, multiply-accumulates, milliseconds for one sample. */
    maxSize: positiveInteger.optional(),
    maxMacs: z.number().positive().optional(),
    maxLatency: z.number().positive().optional(),
    /** Inputs of the teacher by those of the student, `TEACHER=STUDENT`, where their names differ and shapes do not tell. */
    inputs: z.array(z.string().regex(/^[^=]+=[^=]+$/, 'must be of the form TEACHER=STUDENT')).optional(),
  })
  .refine((options) => !options.resume || options.runDir !== undefined, RESUME_NEEDS_DIR)
  .refine(({ flow, select }) => flow === 'layers' || select === 'all', {
    path: ['select'],
    error: ({ input }) =>
      `${(input as { select: string }).select} chooses layers, which the flow along the depth (--flow integrated) does not tell apart`,
  });

export type DataOptions = z.output<typeof dataOptionsSchema>;
export type InspectOptions = z.output<typeof inspectOptionsSchema> & RunControl;
export type EvaluateOptions = z.output<typeof evaluateOptionsSchema> & RunControl;
export type ProfileOptions = z.output<typeof profileOptionsSchema> & RunControl;
export type TrainOptions = z.output<typeof trainOptionsSchema> & RunControl;
export type DistillOptions = z.output<typeof distillOptionsSchema> & RunControl;
export type PruneOptions = z.output<typeof pruneOptionsSchema> & RunControl;
export type QuantizeOptions = z.output<typeof quantizeOptionsSchema> & RunControl;

/**
 * Checks options and fills in the defaults.
 * @param nameOf how messages call an option, for example `--max-size` for `maxSize`
 * @throws FlowCompressError `bad-input` naming the first option that cannot be used
 */
export function parseOptions<T>(
  schema: z.ZodType<T>,
  value: unknown,
  nameOf: (key: string) => string = (key) => key,
): T {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const [issue] = result.error.issues;
  // Options of the preprocessing are flags of their own.
  const at = issue.path.map(String).filter((part) => part !== 'preprocess');
  const name = at.length === 0 ? 'options' : nameOf(at[0]);
  const given = issue.path.reduce<unknown>((inside, key) => memberOf(inside, key), value);
  if (at.length > 0 && given === undefined && issue.code === 'invalid_type') {
    throw new FlowCompressError('bad-input', `${name} is required.`, { hint: `Add ${name}.` });
  }
  const reason = reasonOf(issue);
  const known = !['string', 'number'].includes(typeof given) || reason.includes(String(given));
  throw new FlowCompressError('bad-input', `${name}: ${reason}${known ? '' : ` (given: ${String(given)})`}.`);
}

/** The message without zod's category in front; of a union, the reason of the branch that looked into the value. */
function reasonOf(issue: z.core.$ZodIssue): string {
  if (issue.code === 'invalid_union') {
    const inner = issue.errors.flat();
    const telling = inner.find((one) => one.code === 'custom') ?? inner.at(-1);
    if (telling !== undefined) return reasonOf(telling);
  }
  return issue.message.replace(/^(Too big|Too small|Invalid input|Invalid option): /, '');
}

function memberOf(value: unknown, key: PropertyKey): unknown {
  return typeof value === 'object' && value !== null ? Reflect.get(value, key) : undefined;
}
