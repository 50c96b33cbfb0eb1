/** Options of `distill`. */
import { z } from 'zod';
import { generationFields } from '../evaluate-options.js';
import { path, positiveInteger, RESUME_NEEDS_DIR } from '../options.js';
import { trainingFields } from '../train/options.js';
import { WEIGHTINGS } from '../../distillation/lesson.js';
import { DISTILLATION_METHODS } from '../../distillation/methods.js';
import type { RunControl } from '../../progress.js';

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

export type DistillOptions = z.output<typeof distillOptionsSchema> & RunControl;
