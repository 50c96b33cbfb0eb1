/** How the seeds of a comparison are read. */
import { FlowCompressError } from '../errors.js';

/** @throws FlowCompressError `bad-input` for a text that is no whole number from 0 on */
export function seedOf(text: string): number {
  const seed = Number(text);
  if (Number.isInteger(seed) && seed >= 0) return seed;
  throw new FlowCompressError('bad-input', `--seeds has "${text}", which is no whole number.`, {
    hint: 'For example: 0,1,2',
  });
}
