import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { cacheFolder, nodeMachineCache } from './machine-cache.js';

describe('nodeMachineCache', () => {
  let folder = '';
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'flow-compress-cache-'));
  });
  afterEach(() => rm(folder, { recursive: true, force: true }));

  it('keeps texts apart by key and leaves no temporary files', async () => {
    const cache = nodeMachineCache(join(folder, 'new', 'deep'));
    expect(await cache.read('a')).toBeUndefined();
    await cache.write('a', 'one');
    await cache.write('b/../c', 'two');
    await cache.write('a', 'three');
    expect(await cache.read('a')).toBe('three');
    expect(await cache.read('b/../c')).toBe('two');
    const files = await readdir(join(folder, 'new', 'deep'));
    expect(files).toHaveLength(2);
    expect(files.every((name) => name.endsWith('.json'))).toBe(true);
  });

  it('never fails when the folder cannot be used', async () => {
    await writeFile(join(folder, 'file'), '');
    const cache = nodeMachineCache(join(folder, 'file', 'below'));
    await cache.write('a', 'one');
    expect(await cache.read('a')).toBeUndefined();
  });

  it('lies where the platform keeps caches', () => {
    expect(cacheFolder('linux', { XDG_CACHE_HOME: '/var/c' })).toBe(join('/var/c', 'flow-compress'));
    expect(cacheFolder('linux', { XDG_CACHE_HOME: 'relative' })).toMatch(/\.cache/);
    expect(cacheFolder('darwin', {})).toMatch(/Library/);
    expect(cacheFolder('win32', { LOCALAPPDATA: 'L' })).toMatch(/^L/);
  });
});
