import { describe, expect, it } from 'vitest';
import type { MachineCache } from '../runtime/machine-cache.js';
import { cacheFor } from './measured-machine.js';

function memory(entries: Readonly<Record<string, string>> = {}): MachineCache & { texts: Map<string, string> } {
  const texts = new Map(Object.entries(entries));
  return {
    texts,
    read: (key) => Promise.resolve(texts.get(key)),
    write: (key, text) => Promise.resolve(void texts.set(key, text)),
  };
}

describe('cacheFor', () => {
  it('gives a run what the machine knows, for good', async () => {
    const [run, machine] = [memory(), memory({ a: 'old' })];
    const cache = cacheFor({ remeasure: false }, { run, machine });
    expect(await cache.read('a')).toBe('old');
    machine.texts.set('a', 'new');
    expect(await cache.read('a')).toBe('old');
    expect(await cacheFor({ remeasure: false }, { machine }).read('a')).toBe('new');
  });

  it('with remeasure asks the run alone', async () => {
    const [run, machine] = [memory({ b: 'own' }), memory({ a: 'old', b: 'other' })];
    const cache = cacheFor({ remeasure: true }, { run, machine });
    expect(await cache.read('a')).toBeUndefined();
    expect(await cache.read('b')).toBe('own');
  });

  it('remembers in both', async () => {
    const [run, machine] = [memory(), memory()];
    await cacheFor({ remeasure: true }, { run, machine }).write('a', 'found');
    expect([run.texts.get('a'), machine.texts.get('a')]).toEqual(['found', 'found']);
  });
});
