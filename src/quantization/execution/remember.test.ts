import { describe, expect, it } from 'vitest';
import type { MachineCache } from '../../runtime/machine-cache.js';
import { recallExecution, rememberExecution } from './remember.js';

function memory(): MachineCache & { entries: Map<string, string> } {
  const entries = new Map<string, string>();
  return {
    entries,
    read: (key) => Promise.resolve(entries.get(key)),
    write: (key, text) => {
      entries.set(key, text);
      return Promise.resolve();
    },
  };
}

const CANDIDATES = new Set(['a', 'b', 'c']);

describe('a remembered execution', () => {
  it('comes back under its key alone', async () => {
    const cache = memory();
    const choice = { name: 'planned', int8: new Set(['b', 'a']), refused: 2 };
    await rememberExecution(cache, 'key', choice);
    expect(await recallExecution(cache, 'key', CANDIDATES)).toEqual(choice);
    expect(await recallExecution(cache, 'other', CANDIDATES)).toBeUndefined();
  });

  it.each(['', '{', '{"name":"x"}', '{"name":"x","int8":["z"],"refused":0}'])(
    'counts as unknown when the entry is %j',
    async (text) => {
      const cache = memory();
      cache.entries.set('key', text);
      expect(await recallExecution(cache, 'key', CANDIDATES)).toBeUndefined();
    },
  );
});
