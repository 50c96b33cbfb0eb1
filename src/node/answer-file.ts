/**
 * Answers of a teacher on disk, a file per round: rows of a fixed width by the number of the sample, a mark behind each. A
 * file belongs to one teacher, data and way of changing samples, which a key beside it tells.
 */
import { mkdir, open, readFile, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import type { AnswerStore } from '../distillation/answers.js';
import { FlowCompressError, messageOf } from '../errors.js';
import { writeFileAtomically } from './atomic-file.js';
import { errorCode } from './error-code.js';

const KEY_FILE = 'answers.json';
/** Behind a row that is complete: it is written last. */
const MARK = 1;

/**
 * @param folder made where it is not there
 * @param key tells teacher, data and changes apart
 * @throws FlowCompressError `bad-input` for a folder with the answers of another teacher or other data; `io`
 */
export async function openAnswerFiles(
  folder: string,
  key: string,
  samples: number,
  width: number,
): Promise<AnswerStore & { close(): Promise<void> }> {
  const full = JSON.stringify({ version: 2, key, samples, width });
  await inFolder(folder, async () => {
    await mkdir(folder, { recursive: true });
    const path = join(folder, KEY_FILE);
    const before = await readFile(path, 'utf8').catch((error: unknown) => {
      if (errorCode(error) === 'ENOENT') return undefined;
      throw error;
    });
    if (before !== undefined && before !== full)
      throw new FlowCompressError(
        'bad-input',
        `${folder} has the answers of another teacher, other data or other options.`,
        {
          node: folder,
          hint: 'Give another --cache-teacher, or remove the folder.',
        },
      );
    if (before === undefined) await writeFileAtomically(path, new TextEncoder().encode(full), { force: true });
  });
  const files = new Map<number, FileHandle>();
  const fileOf = async (round: number): Promise<FileHandle> => {
    const known = files.get(round);
    if (known) return known;
    const path = join(folder, `round-${String(round)}.f32`);
    const file = await open(path, 'r+').catch((error: unknown) => {
      if (errorCode(error) !== 'ENOENT') throw error;
      return open(path, 'w+');
    });
    files.set(round, file);
    return file;
  };
  const bytes = 4 * (width + 1);
  return {
    read: (round, indices, rows) =>
      inFolder(folder, async () => {
        const file = await fileOf(round);
        const record = new Float32Array(width + 1);
        for (let n = 0; n < indices.length; n++) {
          const { bytesRead } = await file.read(new Uint8Array(record.buffer), 0, bytes, indices[n]! * bytes);
          if (bytesRead < bytes || record[width] !== MARK) return false;
          rows.set(record.subarray(0, width), n * width);
        }
        return true;
      }),
    write: (round, indices, rows) =>
      inFolder(folder, async () => {
        const file = await fileOf(round);
        for (let n = 0; n < indices.length; n++) {
          const record = new Float32Array(width + 1);
          record.set(rows.subarray(n * width, (n + 1) * width));
          record[width] = MARK;
          const { bytesWritten } = await file.write(new Uint8Array(record.buffer), 0, bytes, indices[n]! * bytes);
          if (bytesWritten < bytes) throw new Error('The disk took a part of a row only.');
        }
      }),
    close: async () => {
      for (const file of files.values()) await file.close();
    },
  };
}

async function inFolder<T>(folder: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof FlowCompressError) throw error;
    throw new FlowCompressError('io', `The answers of the teacher cannot be kept in ${folder}: ${messageOf(error)}`, {
      node: folder,
      hint: 'Free some space, give another folder with --cache-teacher, or leave it out.',
      cause: error,
    });
  }
}
