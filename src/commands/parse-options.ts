/** Options checked against their schema, with messages that name the option. */
import type { z } from 'zod';
import { FlowCompressError } from '../errors.js';

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
