/** Options of `inspect`. */
import { z } from 'zod';
import type { RunControl } from '../progress.js';

export const inspectOptionsSchema = z.object({
  /** List the channels that can only be removed together. */
  groups: z.boolean().default(false),
});

export type InspectOptions = z.output<typeof inspectOptionsSchema> & RunControl;
