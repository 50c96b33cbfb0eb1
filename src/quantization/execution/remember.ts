/**
 * The execution that was chosen for a file on this machine. Times vary from run to run; with the choice remembered, equal
 * input gives equal bytes.
 */
import { z } from 'zod';
import type { MachineCache } from '../../runtime/machine-cache.js';

const remembered = z.object({
  name: z.string(),
  int8: z.array(z.string()),
  /** Alternatives whose outputs were too far off. */
  refused: z.number().int().nonnegative(),
});

export interface RememberedExecution {
  readonly name: string;
  readonly int8: ReadonlySet<string>;
  readonly refused: number;
}

/**
 * @param key names the machine, the file and everything else that the choice depends on
 * @param candidates a remembered node that is not among them spoils the entry
 */
export async function recallExecution(
  cache: MachineCache,
  key: string,
  candidates: ReadonlySet<string>,
): Promise<RememberedExecution | undefined> {
  const text = await cache.read(key);
  if (text === undefined) return undefined;
  try {
    const { name, int8, refused } = remembered.parse(JSON.parse(text));
    return int8.every((node) => candidates.has(node)) ? { name, int8: new Set(int8), refused } : undefined;
  } catch {
    return undefined;
  }
}

export function rememberExecution(cache: MachineCache, key: string, choice: RememberedExecution): Promise<void> {
  const { name, int8, refused } = choice;
  return cache.write(key, JSON.stringify({ name, int8: [...int8].sort(), refused }));
}
