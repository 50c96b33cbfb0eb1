/** Folders that are gone when the work in them is done, also when the process exits in the middle of it. */
import { rmSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { FlowCompressError, messageOf } from '../errors.js';

export interface TemporaryFolder {
  readonly path: string;
  /** Removes it with all that is in it. */
  remove(): Promise<void>;
}

const open = new Set<string>();

function removeOpen(): void {
  for (const path of open) rmSync(path, { recursive: true, force: true });
}

/** Makes a folder whose name begins with `prefix`, a path. @throws what the file system says */
export async function makeTemporaryFolder(prefix: string): Promise<TemporaryFolder> {
  const path = await mkdtemp(prefix);
  if (open.size === 0) process.on('exit', removeOpen);
  open.add(path);
  return {
    path,
    async remove() {
      await rm(path, { recursive: true, force: true });
      open.delete(path);
      if (open.size === 0) process.off('exit', removeOpen);
    },
  };
}

/**
 * Does some work with a folder of its own in the system's temporary folder.
 * @throws FlowCompressError `io` when the folder cannot be made, and what `work` throws
 */
export async function withTemporaryFolder<T>(work: (path: string) => Promise<T>): Promise<T> {
  const folder = await makeTemporaryFolder(join(tmpdir(), 'flow-compress-')).catch((error: unknown) => {
    throw new FlowCompressError('io', `No temporary folder could be made: ${messageOf(error)}`, {
      node: tmpdir(),
      hint: 'Set TMPDIR to a folder that can be written to.',
      cause: error,
    });
  });
  try {
    return await work(folder.path);
  } finally {
    await folder.remove();
  }
}
