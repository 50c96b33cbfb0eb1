/** What the options of several commands have in common, as zod schemas: one source for types, defaults and checks. */
import { z } from 'zod';
import { preprocessOptionsSchema } from '../data/preprocess.js';
import { nearest } from '../nearest.js';
import { targetSchema } from '../report/report.js';

/** What an option of every command is when it is not given. */
export const DEFAULTS = {
  seed: 0,
  target: 'cpu',
  calibSamples: 512,
  batchSize: 32,
  sensitivityMode: 'corrected',
  gradientTerm: 'g',
} as const;

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

export function isOneOf(names: readonly string[], name: string): boolean {
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

/** The form of the flow sensitivity. */
export const sensitivityForm = {
  /** `corrected`, or `reference`: the published formulas, floors and loss. */
  sensitivityMode: z.enum(['corrected', 'reference']).default(DEFAULTS.sensitivityMode),
  /** What the gradient term counts: `g`, the norm of a layer's gradient, or `gxw`, times the norm of its weights. */
  gradientTerm: z.enum(['g', 'gxw']).default(DEFAULTS.gradientTerm),
};
export const isOneForm = (options: { sensitivityMode: string; gradientTerm: string }): boolean =>
  options.sensitivityMode !== 'reference' || options.gradientTerm === 'g';
export const REFERENCE_HAS_G = { message: 'must be g with the reference sensitivity', path: ['gradientTerm'] };
export const RESUME_NEEDS_DIR = { message: 'needs --run-dir, the folder of the run to continue', path: ['resume'] };

export type DataOptions = z.output<typeof dataOptionsSchema>;
