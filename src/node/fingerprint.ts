/** Tells whether files are still what they were. */
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { readdir, stat } from 'node:fs/promises';
import { join, relative } from 'node:path';
import { noiseCount } from '../data/noise.js';
import { FlowCompressError, messageOf } from '../errors.js';

/** Files of a folder that can be samples; a run may write its results beside them. */
const SAMPLES = /\.(png|jpe?g|webp)$|idx\d-ubyte(\.gz)?$/i;

/**
 * SHA-256, as hexadecimal digits, of a file's contents (or of bytes, as if a file held them), or of the names, sizes and
 * times of all samples below a folder; what is drawn from noise is as its name says.
 * @throws FlowCompressError `io` when something cannot be read, `aborted`
 */
export async function fingerprint(source: string | Uint8Array, signal?: AbortSignal): Promise<string> {
  const hash = createHash('sha256');
  if (typeof source !== 'string') return hash.update(source).digest('hex');
  if (noiseCount(source) !== undefined) return hash.update(source).digest('hex');
  const path = source;
  try {
    if ((await stat(path)).isDirectory()) {
      const entries = await readdir(path, { recursive: true, withFileTypes: true });
      const files = entries
        .filter(({ name }) => SAMPLES.test(name))
        .map(({ parentPath, name }) => join(parentPath, name));
      for (const file of files.sort()) {
        const info = await stat(file).catch(() => undefined);
        hash.update(JSON.stringify([relative(path, file), info?.size, info?.mtimeMs]));
      }
    } else {
      for await (const chunk of createReadStream(path, { highWaterMark: 1 << 20, signal })) hash.update(chunk);
    }
  } catch (error) {
    if (signal?.aborted) throw new FlowCompressError('aborted', 'Interrupted before the work was complete.');
    throw new FlowCompressError('io', `${path} cannot be read: ${messageOf(error)}`, {
      node: path,
      hint: 'Check the path and the permissions.',
      cause: error,
    });
  }
  return hash.digest('hex');
}
