/** Options of `profile`. */
import { z } from 'zod';
import {
  dataOptionsSchema,
  isOneForm,
  REFERENCE_HAS_G,
  resumable,
  RESUME_NEEDS_DIR,
  sensitivityForm,
  width,
} from './options.js';
import type { RunControl } from '../progress.js';

export const profileOptionsSchema = dataOptionsSchema
  .extend({
    ...resumable,
    ...sensitivityForm,
    /** Stored widths, in bits, at which the KL divergence of every layer is measured. */
    widths: z.array(width).min(1).optional(),
  })
  .refine(isOneForm, REFERENCE_HAS_G)
  .refine((options) => !options.resume || options.runDir !== undefined, RESUME_NEEDS_DIR);

export type ProfileOptions = z.output<typeof profileOptionsSchema> & RunControl;
