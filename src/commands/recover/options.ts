/** What a compressed model is taught, as options of every command that lets it learn. */
import { z } from 'zod';
import { isOneOf, unknownName } from '../options.js';
import { TEACHING_NAMES, type TeachingName } from '../../recovery/teachings.js';

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
