/** How much of what a teacher knows a student has: its answers, what it computes on the way, and the geometry of that. */
import { z } from 'zod';
import { count, fraction } from './fields.js';
import { measureSchema } from './recovery.js';

/** Of the features [n, d] in front of the last layer, less their mean but for the diversity. */
export const geometrySchema = z.object({
  features: count.min(1),
  /** exp of the entropy of the singular values as shares of their sum: 1 to min(n - 1, d); 0 where nothing varies. */
  effectiveRank: z.number().nonnegative(),
  /** Share of the variance in the ten largest directions. */
  topShare: fraction,
  /** Mean distance of two samples whose features have norm 1: 0 to 2. */
  diversity: z.number().min(0).max(2),
  /** Scatter between classes relative to that within; absent without labels. */
  separability: z.number().nonnegative().optional(),
});
export type Geometry = z.infer<typeof geometrySchema>;

/** How well models that make samples, or values, do it. */
export const sampleQualitySchema = z.object({
  /** Mean squared error: of a reconstruction to its input, of the noise that is told, of an output to its target. */
  error: z
    .object({
      of: z.enum(['reconstruction', 'noise', 'target']),
      teacher: z.number().nonnegative(),
      student: z.number().nonnegative(),
    })
    .optional(),
  /** Frechet distances of samples, by features in front of the last layer of a classifier. */
  frechet: z
    .object({
      /** The classifier. */
      features: z.string(),
      /** On each side. */
      samples: count,
      studentToTeacher: z.number().nonnegative(),
      /** To the samples of the split; absent where these are noise. */
      teacherToReal: z.number().nonnegative().optional(),
      studentToReal: z.number().nonnegative().optional(),
    })
    .optional(),
});
export type SampleQuality = z.infer<typeof sampleQualitySchema>;

export const fidelitySchema = z.object({
  ...sampleQualitySchema.shape,
  split: z.enum(['val', 'test']),
  /** Behind the answers. */
  samples: count,
  measure: measureSchema,
  /** Of the student's answers from the teacher's. */
  divergence: z.number().nonnegative(),
  /** Share of samples with the class that the teacher gives. */
  agreement: fraction.optional(),
  /** The same among those that the teacher gets right; absent without labels. */
  agreementWhenRight: fraction.optional(),
  /** 1 - |mean probability of the true class, teacher less student|; absent without labels. */
  confidence: fraction.optional(),
  /** Cosine of the student's outputs with the teacher's, mean over samples and outputs; absent for class scores. */
  cosine: z.number().min(-1).max(1).optional(),
  /** Samples behind everything about values inside. */
  probed: count.optional(),
  /** Linear CKA of the features in front of the last layers. */
  cka: fraction.optional(),
  /** R^2 of a ridge regression of the teacher's features on the student's, on samples that it was not fitted on. */
  informationKept: z.number().max(1).optional(),
  geometry: z.object({ teacher: geometrySchema, student: geometrySchema }).optional(),
});
export type Fidelity = z.infer<typeof fidelitySchema>;
