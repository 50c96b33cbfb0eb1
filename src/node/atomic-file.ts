/** Files that appear whole or not at all: written under a temporary name in the same folder, then renamed. */
import { randomBytes } from 'node:crypto';
import { constants, type BigIntStats } from 'node:fs';
import { access, chmod, link, lstat, open, realpath, rename, stat, unlink, type FileHandle } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { FlowCompressError, messageOf, throwIfAborted } from '../errors.js';
import { errorCode } from './error-code.js';

export type FileContent = string | Uint8Array | Iterable<Uint8Array> | AsyncIterable<Uint8Array>;

export interface OutputRules {
  /** Replace an existing file. */
  force?: boolean;
  /** Files that must not be written to, whatever name leads to them. */
  inputs?: readonly string[];
}

export interface AtomicWriteOptions extends OutputRules {
  signal?: AbortSignal;
}

/** Bytes per write call, between which an abort is noticed. */
const WRITE_BYTES = 1 << 24;
/** Smaller chunks are gathered into one write call. */
const MAX_BATCH = 512;

const reasons: Record<string, readonly [reason: string, hint: string]> = {
  ENOENT: ['its folder does not exist', 'Create the folder first.'],
  ENOTDIR: ['a part of its path is not a folder', 'Correct the path.'],
  EACCES: ['the folder is not writable', 'Choose another folder or change its permissions.'],
  EPERM: ['the system does not permit it', 'Choose another folder or change its permissions.'],
  EROFS: ['the file system is read-only', 'Choose another folder.'],
  ENOSPC: ['the disk is full', 'Free some space or choose another disk; nothing was changed.'],
  EDQUOT: ['the disk quota is used up', 'Free some space or choose another disk; nothing was changed.'],
  EFBIG: ['the file is too large for this file system', 'Choose another disk; nothing was changed.'],
  ENAMETOOLONG: ['the name is too long', 'Choose a shorter name.'],
  EEXIST: ['the file exists', 'Choose another name or pass --force to replace it.'],
  EISDIR: ['it is a folder', 'Give the name of a file.'],
  ELOOP: ['its symbolic links form a circle', 'Correct the links.'],
};

/** The error of a failed write as users see it. */
export function writeError(path: string, error: unknown): FlowCompressError {
  if (error instanceof FlowCompressError) return error;
  const code = errorCode(error) ?? '';
  const [reason, hint] = reasons[code] ?? [messageOf(error), 'Check the path and the disk.'];
  return new FlowCompressError(code === 'EEXIST' ? 'bad-input' : 'io', `${path} cannot be written: ${reason}.`, {
    node: path,
    hint,
    cause: error,
  });
}

async function statOrUndefined(path: string): Promise<BigIntStats | undefined> {
  try {
    return await stat(path, { bigint: true });
  } catch (error) {
    if (errorCode(error) === 'ENOENT' || errorCode(error) === 'ENOTDIR') return undefined;
    throw error;
  }
}

/** The file to replace: an existing output that is a symbolic link stays a link. */
async function targetOf(path: string): Promise<{ target: string; existing: BigIntStats | undefined; link: boolean }> {
  const existing = await statOrUndefined(path);
  if (existing) return { target: await realpath(path), existing, link: false };
  const dangling = await lstat(path).catch(() => undefined);
  return { target: path, existing, link: dangling !== undefined };
}

/** As {@link assertWritableOutput}, but what the file system says is thrown as it is. */
async function checkedTarget(path: string, { force = false, inputs = [] }: OutputRules): Promise<string> {
  if (path === '')
    throw new FlowCompressError('bad-input', 'The output path is empty.', { hint: 'Give the name of a file.' });
  const { target, existing, link: dangling } = await targetOf(path);
  const folder = dirname(target);
  if (!(await stat(folder)).isDirectory()) throw Object.assign(new Error('not a folder'), { code: 'ENOTDIR' });
  await access(folder, constants.W_OK | constants.X_OK);
  if (existing) {
    for (const input of inputs) {
      const source = await statOrUndefined(input);
      if (source && source.ino === existing.ino && source.dev === existing.dev) {
        throw new FlowCompressError('bad-input', `The output ${path} is the same file as the input ${input}.`, {
          node: path,
          hint: 'Choose another output; inputs are never written to.',
        });
      }
    }
    if (existing.isDirectory()) throw Object.assign(new Error('a folder'), { code: 'EISDIR' });
    if (!existing.isFile()) {
      throw new FlowCompressError('bad-input', `The output ${path} is not a regular file.`, {
        node: path,
        hint: 'Give the name of a file.',
      });
    }
  }
  if ((existing || dangling) && !force) {
    throw new FlowCompressError('bad-input', `The output ${path} exists.`, {
      node: path,
      hint: 'Choose another name or pass --force to replace it.',
    });
  }
  return target;
}

/**
 * Checks that `path` may and can be written, before the work that leads to it. Creates nothing.
 * @returns the file that would be written: `path`, or the existing file that it links to.
 * @throws FlowCompressError `bad-input` when it exists without `force` or is one of `inputs` (also through links);
 *   `io` when its folder is missing or not writable.
 */
export async function assertWritableOutput(path: string, rules: OutputRules = {}): Promise<string> {
  try {
    return await checkedTarget(path, rules);
  } catch (error) {
    throw writeError(path, error);
  }
}

function* pieces(chunk: Uint8Array): Generator<Uint8Array> {
  for (let at = 0; at < chunk.length; at += WRITE_BYTES) yield chunk.subarray(at, at + WRITE_BYTES);
}

async function writeAll(file: FileHandle, batch: Uint8Array[]): Promise<number> {
  let total = 0;
  let rest = batch;
  while (rest.length > 0) {
    const { bytesWritten } = await file.writev(rest);
    total += bytesWritten;
    let skip = bytesWritten;
    let first = 0;
    while (first < rest.length && skip >= rest[first].length) skip -= rest[first++].length;
    rest = rest.slice(first);
    if (skip > 0) rest[0] = rest[0].subarray(skip);
  }
  return total;
}

function chunksOf(content: FileContent): Iterable<Uint8Array> | AsyncIterable<Uint8Array> {
  if (typeof content === 'string') return [new TextEncoder().encode(content)];
  return content instanceof Uint8Array ? [content] : content;
}

async function writeContent(file: FileHandle, content: FileContent, signal: AbortSignal | undefined): Promise<number> {
  let total = 0;
  let batch: Uint8Array[] = [];
  let batched = 0;
  for await (const chunk of chunksOf(content)) {
    for (const piece of pieces(chunk)) {
      throwIfAborted(signal);
      batch.push(piece);
      batched += piece.length;
      if (batched < WRITE_BYTES && batch.length < MAX_BATCH) continue;
      total += await writeAll(file, batch);
      batch = [];
      batched = 0;
    }
  }
  throwIfAborted(signal);
  return total + (await writeAll(file, batch));
}

interface Pending {
  readonly path: string;
  readonly target: string;
  readonly temporary: string;
  /** Second name of the file that is replaced, until all is done. */
  backup?: string;
  /** The new file is in place where there was none. */
  created?: boolean;
  bytes: number;
}

function hiddenName(target: string): string {
  return join(dirname(target), `.${basename(target).slice(0, 100)}.${randomBytes(6).toString('hex')}.tmp`);
}

const noHardLinks = new Set(['EPERM', 'ENOTSUP', 'EOPNOTSUPP', 'ENOSYS', 'EMLINK', 'EINVAL', 'EXDEV']);

/** Gives `from` the second name `to`; false where the file system has no hard links. */
async function tryLink(from: string, to: string): Promise<boolean> {
  try {
    await link(from, to);
    return true;
  } catch (error) {
    if (noHardLinks.has(errorCode(error) ?? '')) return false;
    throw error;
  }
}

async function put(file: Pending, force: boolean): Promise<void> {
  const existing = await statOrUndefined(file.target);
  if (!force) {
    // A link, unlike a rename, fails when someone else has made the file meanwhile.
    if (await tryLink(file.temporary, file.target)) {
      file.created = true;
      await unlink(file.temporary);
      return;
    }
    if (existing) throw Object.assign(new Error('exists'), { code: 'EEXIST' });
  } else if (existing) {
    await chmod(file.temporary, Number(existing.mode & 0o777n));
    const backup = hiddenName(file.target);
    if (await tryLink(file.target, backup)) file.backup = backup;
  }
  await rename(file.temporary, file.target);
  file.created = existing === undefined;
}

async function syncFolder(folder: string): Promise<void> {
  // Not every system lets a folder be opened; the rename is done in any case.
  const handle = await open(folder, 'r').catch(() => undefined);
  if (!handle) return;
  await handle.sync().catch(() => undefined);
  await handle.close();
}

async function undo(files: readonly Pending[]): Promise<void> {
  for (const file of files) {
    if (file.backup !== undefined) await rename(file.backup, file.target).catch(() => undefined);
    else if (file.created) await unlink(file.target).catch(() => undefined);
    await unlink(file.temporary).catch(() => undefined);
  }
}

/**
 * Writes several files that belong together; after a failure or an abort none of them has changed. The last one is put
 * in place last.
 * @returns bytes per file.
 * @throws FlowCompressError as {@link writeFileAtomically}.
 */
export async function writeFilesAtomically(
  files: readonly { path: string; content: FileContent }[],
  options: AtomicWriteOptions = {},
): Promise<number[]> {
  const { signal } = options;
  const pending: Pending[] = [];
  let current = '';
  try {
    for (const { path } of files) {
      current = path;
      const target = await checkedTarget(path, options);
      pending.push({ path, target, temporary: hiddenName(target), bytes: 0 });
    }
    for (const [i, { content }] of files.entries()) {
      const file = pending[i];
      current = file.path;
      throwIfAborted(signal);
      const handle = await open(file.temporary, 'wx');
      try {
        file.bytes = await writeContent(handle, content, signal);
        await handle.sync();
      } finally {
        await handle.close();
      }
    }
  } catch (error) {
    await undo(pending);
    throw writeError(current, error);
  }
  await putAll(pending, options);
  return pending.map(({ bytes }) => bytes);
}

/** Puts all of the files in place, or none. */
async function putAll(pending: readonly Pending[], { force = false, signal }: AtomicWriteOptions): Promise<void> {
  let current = '';
  try {
    for (const file of pending) {
      current = file.path;
      throwIfAborted(signal);
      await put(file, force);
    }
  } catch (error) {
    await undo(pending);
    throw writeError(current, error);
  }
  for (const { backup } of pending) if (backup !== undefined) await unlink(backup).catch(() => undefined);
  for (const folder of new Set(pending.map(({ target }) => dirname(target)))) await syncFolder(folder);
}

/**
 * Moves finished files, `from`, to where they belong; after a failure or an abort nothing there has changed and the
 * finished files are gone. Both must be on one file system. The last one is put in place last.
 * @throws FlowCompressError as {@link writeFileAtomically}.
 */
export async function placeFiles(
  files: readonly { from: string; path: string }[],
  options: AtomicWriteOptions = {},
): Promise<void> {
  const pending: Pending[] = [];
  for (const { from, path } of files) {
    const target = await assertWritableOutput(path, options);
    pending.push({ path, target, temporary: from, bytes: 0 });
  }
  await putAll(pending, options);
}

/**
 * Writes a file that appears whole or not at all.
 * @param content text (as UTF-8), bytes, or chunks that are written as they come.
 * @returns bytes written.
 * @throws FlowCompressError `bad-input` when the file exists without `force` or is one of `inputs`; `io` when it
 *   cannot be written; `aborted` when the signal fired. Nothing has changed then.
 */
export async function writeFileAtomically(
  path: string,
  content: FileContent,
  options: AtomicWriteOptions = {},
): Promise<number> {
  const [bytes] = await writeFilesAtomically([{ path, content }], options);
  return bytes;
}
