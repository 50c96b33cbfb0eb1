/** Measurements of this machine, kept in the user's cache folder: one JSON file per key. */
import { createHash } from 'node:crypto';
import { mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';
import type { MachineCache } from '../runtime/machine-cache.js';

/** `%LOCALAPPDATA%`, `~/Library/Caches` or `$XDG_CACHE_HOME` (`~/.cache`), by platform. */
export function cacheFolder(platform = process.platform, environment = process.env): string {
  if (platform === 'win32')
    return join(environment['LOCALAPPDATA'] ?? join(homedir(), 'AppData', 'Local'), 'flow-compress');
  if (platform === 'darwin') return join(homedir(), 'Library', 'Caches', 'flow-compress');
  const xdg = environment['XDG_CACHE_HOME'];
  return join(xdg?.startsWith('/') ? xdg : join(homedir(), '.cache'), 'flow-compress');
}

/**
 * A cache never fails a run: what cannot be read is measured again, what cannot be written is lost. Files appear whole
 * or not at all, so processes may share the folder.
 */
export function nodeMachineCache(folder = cacheFolder()): MachineCache {
  const pathOf = (key: string): string =>
    join(folder, `${createHash('sha256').update(key).digest('hex').slice(0, 24)}.json`);
  return {
    async read(key) {
      try {
        return await readFile(pathOf(key), 'utf8');
      } catch {
        return undefined;
      }
    },
    async write(key, text) {
      const path = pathOf(key);
      const temporary = `${path}.${String(process.pid)}.tmp`;
      try {
        await mkdir(folder, { recursive: true });
        await writeFile(temporary, text);
        await rename(temporary, path);
      } catch {
        await rm(temporary, { force: true }).catch(() => undefined);
      }
    },
  };
}
