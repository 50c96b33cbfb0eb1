/** Random access to bytes on disk: files, parts of files, and compressed streams inflated once to a temporary file. */
import { randomUUID } from 'node:crypto';
import {
  close as closeFd,
  fstatSync,
  open as openFd,
  read as readFd,
  unlinkSync,
  write as writeFd,
  type OpenMode,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Writable, type Readable, type Transform } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { promisify } from 'node:util';
import { FlowCompressError, messageOf } from '../../errors.js';
import { errorCode } from '../error-code.js';

const openFile = promisify(openFd) as (path: string, flags: OpenMode, mode?: number) => Promise<number>;
const readFile = promisify(readFd);
const writeFile = promisify(writeFd);
const closeFile = promisify(closeFd);

export interface ByteSource {
  /** File (and part), as messages show it. */
  readonly name: string;
  readonly size: number;
  /** Fills `target` with the bytes from `position` on. @throws FlowCompressError `io` when they end before that */
  read(target: Uint8Array, position: number): Promise<void>;
  close(): Promise<void>;
}

function fromFd(fd: number, name: string, size: number, afterClose: () => void = () => undefined): ByteSource {
  let open = true;
  return {
    name,
    size,
    async read(target, position) {
      for (let done = 0; done < target.length;) {
        const { bytesRead } = await readFile(fd, target, done, target.length - done, position + done).catch(
          (error: unknown) => {
            throw new FlowCompressError('io', `${name} could not be read: ${messageOf(error)}`, {
              node: name,
              cause: error,
            });
          },
        );
        if (bytesRead === 0) {
          throw new FlowCompressError('io', `${name} ends at byte ${position + done}, before the data it announces.`, {
            node: name,
            hint: 'The file is truncated or was changed while it was read; copy it again.',
          });
        }
        done += bytesRead;
      }
    },
    async close() {
      if (!open) return;
      open = false;
      await closeFile(fd);
      afterClose();
    },
  };
}

/** @throws FlowCompressError `io` when the file cannot be opened */
export async function openBytes(path: string): Promise<ByteSource> {
  try {
    const fd = await openFile(path, 'r');
    return fromFd(fd, path, fstatSync(fd).size);
  } catch (error) {
    throw new FlowCompressError('io', `${path} could not be opened: ${messageOf(error)}`, { node: path, cause: error });
  }
}

/** The bytes [start, start + size) of a source. Closing it closes nothing: the source may have other parts. */
export function partOf(source: ByteSource, name: string, start: number, size: number): ByteSource {
  return {
    name,
    size,
    read: (target, position) => source.read(target, start + position),
    close: async () => undefined,
  };
}

const leftovers = new Set<string>();
let watchingExit = false;

/** Removes what could not be removed while it was open (some file systems refuse that). */
function removeLeftovers(): void {
  for (const path of leftovers) {
    try {
      unlinkSync(path);
      leftovers.delete(path);
    } catch {
      // Still open, or already gone: the handler at exit tries again.
    }
  }
}

async function writeWhole(fd: number, bytes: Uint8Array, position: number): Promise<void> {
  for (let done = 0; done < bytes.length;) {
    done += (await writeFile(fd, bytes, done, bytes.length - done, position + done)).bytesWritten;
  }
}

/**
 * Writes a stream, through any decompressor, to a temporary file and gives random access to it. The file has no name from the start where the system
 * allows that, so its space is freed when it is closed or the process ends, however it ends.
 * @throws FlowCompressError `bad-input` when the stream is corrupt, `io` when the disk is full
 */
export async function spoolToDisk(
  name: string,
  stream: Readable,
  ...transforms: readonly Transform[]
): Promise<ByteSource> {
  // A corrupt stream may fail before the pipeline listens, or once more after it was torn down: the pipeline reports it.
  for (const part of [stream, ...transforms]) part.on('error', () => undefined);
  const path = join(tmpdir(), `flow-compress-${randomUUID()}`);
  let fd: number;
  try {
    fd = await openFile(path, 'wx+', 0o600);
  } catch (error) {
    stream.destroy();
    throw new FlowCompressError('io', `No temporary file could be made: ${messageOf(error)}`, {
      node: path,
      hint: 'Set TMPDIR to a folder that can be written to.',
      cause: error,
    });
  }
  if (!watchingExit) process.once('exit', removeLeftovers);
  watchingExit = true;
  leftovers.add(path);
  removeLeftovers();

  let size = 0;
  const file = new Writable({
    write(chunk: Uint8Array, _encoding, done) {
      writeWhole(fd, chunk, size).then(() => {
        size += chunk.length;
        done();
      }, done);
    },
  });
  try {
    await pipeline([stream, ...transforms, file]);
  } catch (error) {
    await closeFile(fd);
    removeLeftovers();
    const full = errorCode(error) === 'ENOSPC' || errorCode(error) === 'EFBIG';
    throw full
      ? new FlowCompressError('io', `The disk is full: ${name} could not be inflated to ${path}.`, {
          node: name,
          hint: 'Free some space, set TMPDIR to another disk, or store the data uncompressed (numpy.savez).',
          cause: error,
        })
      : new FlowCompressError('bad-input', `${name} is corrupt: ${messageOf(error)}`, {
          node: name,
          hint: 'Copy or download the file again.',
          cause: error,
        });
  }
  return fromFd(fd, name, size, removeLeftovers);
}
