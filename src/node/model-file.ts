/** Model files on disk: opening (with external data, or a Hugging Face folder), saving, and their sizes. */
import { createReadStream, type BigIntStats } from 'node:fs';
import { open, readdir, realpath, stat, type FileHandle } from 'node:fs/promises';
import { basename, dirname, join, relative, resolve, sep } from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { createGzip } from 'node:zlib';
import type { ModelProto, TensorProto } from 'onnx-buf';
import { FlowCompressError, messageOf, throwIfAborted } from '../errors.js';
import {
  EXTERNAL_THRESHOLD,
  embedExternalData,
  readExternalReference,
  splitExternalData,
  type ExternalReference,
} from '../onnx/external-data.js';
import { decodeModel } from '../onnx/read.js';
import { isExternal } from '../onnx/tensor.js';
import { visitTensors } from '../onnx/walk.js';
import { MAX_MODEL_BYTES, assertEncodable, planEncoding } from '../onnx/write.js';
import { writeFilesAtomically, type AtomicWriteOptions } from './atomic-file.js';
import { errorCode } from './error-code.js';

export interface OpenedModel {
  /** The model with all of its contents in memory; treat it as immutable. */
  readonly model: ModelProto;
  /** The model file itself, also when a folder was given. */
  readonly path: string;
  /** Bytes on disk, external data files included. */
  readonly bytes: number;
  /** Paths of the files that hold external data, each once. */
  readonly externalFiles: readonly string[];
}

/** One read call; larger ones fail on some systems. */
const READ_BYTES = 1 << 30;

function ioError(path: string, problem: string, hint: string, cause?: unknown): FlowCompressError {
  return new FlowCompressError('io', `${path} ${problem}.`, { node: path, hint, cause });
}

async function statFile(path: string): Promise<BigIntStats> {
  try {
    return await stat(path, { bigint: true });
  } catch (error) {
    const missing = errorCode(error) === 'ENOENT' || errorCode(error) === 'ENOTDIR';
    throw missing
      ? ioError(path, 'does not exist', 'Check the path of the model.', error)
      : ioError(path, `cannot be read: ${messageOf(error)}`, 'Check the permissions of the file.', error);
  }
}

/**
 * The model file that `path` stands for: itself, or for a folder `onnx/model.onnx`, `model.onnx`, or the only .onnx
 * file in either place.
 * @throws FlowCompressError `io` when there is none, `bad-input` when the folder leaves a choice.
 */
export async function resolveModelPath(path: string): Promise<string> {
  const info = await statFile(path);
  if (info.isFile()) return path;
  if (!info.isDirectory()) {
    throw new FlowCompressError('bad-input', `${path} is neither a file nor a folder.`, {
      node: path,
      hint: 'Give the path of an .onnx file.',
    });
  }
  const found: string[] = [];
  for (const folder of [join(path, 'onnx'), path]) {
    const names = await readdir(folder).catch((): string[] => []);
    if (names.includes('model.onnx')) return join(folder, 'model.onnx');
    found.push(...names.filter((name) => name.endsWith('.onnx')).map((name) => join(folder, name)));
  }
  if (found.length === 1) return found[0];
  if (found.length === 0) {
    throw new FlowCompressError('bad-input', `The folder ${path} holds no ONNX model.`, {
      node: path,
      hint: 'Expected onnx/model.onnx or model.onnx inside it.',
    });
  }
  throw new FlowCompressError(
    'bad-input',
    `The folder ${path} holds several models: ${found
      .map((file) => relative(path, file))
      .sort()
      .join(', ')}.`,
    {
      node: path,
      hint: 'Give the path of one of them.',
    },
  );
}

/** Reads `length` bytes at `offset`; a shorter array when the file ends before. */
async function readRange(file: FileHandle, offset: number, length: number): Promise<Uint8Array<ArrayBuffer>> {
  // Not zero-filled and not from the shared pool: every byte is about to be overwritten.
  const buffer = Buffer.allocUnsafeSlow(length);
  let done = 0;
  while (done < length) {
    const { bytesRead } = await file.read(buffer, done, Math.min(READ_BYTES, length - done), offset + done);
    if (bytesRead === 0) break;
    done += bytesRead;
  }
  return new Uint8Array(buffer.buffer, buffer.byteOffset, done);
}

async function withFile<T>(path: string, work: (file: FileHandle) => Promise<T>): Promise<T> {
  let file: FileHandle;
  try {
    file = await open(path, 'r');
  } catch (error) {
    throw ioError(
      path,
      `cannot be opened: ${messageOf(error)}`,
      'Check the path and the permissions of the file.',
      error,
    );
  }
  try {
    return await work(file);
  } catch (error) {
    if (error instanceof FlowCompressError) throw error;
    throw ioError(
      path,
      `cannot be read: ${messageOf(error)}`,
      'Check the disk and the permissions of the file.',
      error,
    );
  } finally {
    await file.close();
  }
}

async function readModelFile(path: string): Promise<{ model: ModelProto; bytes: number }> {
  const size = Number((await statFile(path)).size);
  if (size > MAX_MODEL_BYTES) {
    throw new FlowCompressError('bad-input', `${path} has ${size} bytes; an ONNX file cannot exceed 2 GiB.`, {
      node: path,
      hint: 'Export the model with external data, which puts the weights in a second file.',
    });
  }
  const bytes = await withFile(path, (file) => readRange(file, 0, size));
  return { model: decodeModel(bytes, path), bytes: bytes.length };
}

interface ExternalTensor extends ExternalReference {
  readonly tensor: TensorProto;
  /** Name for messages: the tensor's, or that of the node it belongs to. */
  readonly label: string;
}

/** External tensors by location, in the order of the file. */
function externalTensors(model: ModelProto): Map<string, ExternalTensor[]> {
  const byLocation = new Map<string, ExternalTensor[]>();
  visitTensors(model, (tensor, place) => {
    if (!isExternal(tensor)) return;
    const item = { tensor, label: tensor.name || place.owner, ...readExternalReference(tensor) };
    const list = byLocation.get(item.location);
    if (list) list.push(item);
    else byLocation.set(item.location, [item]);
  });
  for (const list of byLocation.values()) list.sort((a, b) => a.offset - b.offset);
  return byLocation;
}

/**
 * Path of an external data file. It must lie below the model's folder after links are followed; where the model file is
 * itself a link (download caches), below the folder of the real file is as good.
 */
async function externalPath(modelPath: string, location: string, label: string): Promise<string> {
  const path = join(dirname(modelPath), ...location.split('/'));
  const folders = [await realpath(dirname(resolve(modelPath))), dirname(await realpath(modelPath))];
  let real: string;
  try {
    real = await realpath(path);
  } catch (error) {
    throw new FlowCompressError('io', `The weights of tensor "${label}" are in ${path}, which cannot be found.`, {
      node: path,
      hint: `Put the file "${location}" beside ${basename(modelPath)}; models with external data consist of both.`,
      cause: error,
    });
  }
  if (!folders.some((folder) => real.startsWith(folder.endsWith(sep) ? folder : folder + sep))) {
    throw new FlowCompressError(
      'bad-input',
      `The weights of tensor "${label}" are in ${path}, a link that leads out of the folder of the model.`,
      {
        node: path,
        hint: 'Copy the file itself into the folder of the model.',
      },
    );
  }
  if (!(await stat(real)).isFile()) {
    throw new FlowCompressError(
      'bad-input',
      `The weights of tensor "${label}" are in ${path}, which is not a regular file.`,
      {
        node: path,
        hint: 'Put the weights file there.',
      },
    );
  }
  return path;
}

function endsTooEarly(path: string, size: number, { label, offset, length }: ExternalTensor): FlowCompressError {
  return new FlowCompressError(
    'bad-input',
    `${path} has ${size} bytes, but tensor "${label}" lies at bytes ${offset} to ${offset + length} of it.`,
    { node: path, hint: 'The file was cut off or belongs to another model; download or export both files again.' },
  );
}

async function loadExternal(path: string, tensors: readonly ExternalTensor[], signal?: AbortSignal): Promise<number> {
  return withFile(path, async (file) => {
    const { size } = await file.stat();
    // All lengths before the first allocation: a damaged entry must not claim memory.
    for (const item of tensors) if (item.offset + item.length > size) throw endsTooEarly(path, size, item);
    for (const item of tensors) {
      throwIfAborted(signal);
      const contents = await readRange(file, item.offset, item.length);
      if (contents.length < item.length) throw endsTooEarly(path, item.offset + contents.length, item);
      embedExternalData(item.tensor, contents);
    }
    return size;
  });
}

/**
 * Opens a model file, or a folder in the Hugging Face layout, and loads external data, so that every tensor holds its
 * contents. The file is read into one buffer that the tensors share; external tensors get one buffer each.
 * @throws FlowCompressError `io` when a file is missing or unreadable; `bad-input` when the model is damaged, larger
 *   than 2 GiB in one file, or points out of its folder.
 */
export async function openModel(path: string, options: { signal?: AbortSignal } = {}): Promise<OpenedModel> {
  const file = await resolveModelPath(path);
  const { model, bytes } = await readModelFile(file);
  let total = bytes;
  const files: string[] = [];
  for (const [location, tensors] of externalTensors(model)) {
    throwIfAborted(options.signal);
    const external = await externalPath(file, location, tensors[0].label);
    const size = await loadExternal(external, tensors, options.signal);
    if (!files.includes(external)) {
      files.push(external);
      total += size;
    }
  }
  return { model, path: file, bytes: total, externalFiles: files };
}

/** The key of every external data entry as it is encoded. */
const LOCATION_KEY = Buffer.from('\x0a\x08location');

/** False when the file surely has no external data; reads it in constant memory. */
async function mayHaveExternalData(path: string): Promise<boolean> {
  return withFile(path, async (file) => {
    const overlap = LOCATION_KEY.length - 1;
    const buffer = Buffer.alloc(1 << 20);
    let kept = 0;
    for (;;) {
      const { bytesRead } = await file.read(buffer, kept, buffer.length - kept);
      if (bytesRead === 0) return false;
      const filled = buffer.subarray(0, kept + bytesRead);
      if (filled.includes(LOCATION_KEY)) return true;
      kept = Math.min(overlap, filled.length);
      filled.copy(buffer, 0, filled.length - kept);
    }
  });
}

/** The model file and its external data files. */
async function filesOf(path: string): Promise<string[]> {
  const file = await resolveModelPath(path);
  if (!(await mayHaveExternalData(file))) return [file];
  const { model } = await readModelFile(file);
  const files = new Set([file]);
  for (const [location, tensors] of externalTensors(model))
    files.add(await externalPath(file, location, tensors[0].label));
  return [...files];
}

/** Bytes that a model takes on disk, external data files included. Errors as {@link openModel}. */
export async function modelBytes(path: string): Promise<number> {
  let total = 0;
  for (const file of await filesOf(path)) total += Number((await statFile(file)).size);
  return total;
}

/**
 * Bytes of the model's files after gzip (each by itself, default level), in constant memory; or of a file's bytes, given
 * as they are. Errors as {@link openModel}.
 */
export async function gzipBytes(source: string | Uint8Array, options: { signal?: AbortSignal } = {}): Promise<number> {
  let total = 0;
  for (const file of typeof source === 'string' ? await filesOf(source) : [source]) {
    try {
      await pipeline(
        typeof file === 'string' ? createReadStream(file, { highWaterMark: 1 << 20 }) : Readable.from([file]),
        createGzip(),
        async (compressed: AsyncIterable<Buffer>) => {
          for await (const chunk of compressed) total += chunk.length;
        },
        { signal: options.signal },
      );
    } catch (error) {
      throwIfAborted(options.signal);
      throw ioError(
        typeof file === 'string' ? file : 'model in memory',
        `cannot be read: ${messageOf(error)}`,
        'Check the disk and the permissions of the file.',
        error,
      );
    }
  }
  return total;
}

export interface SaveOptions extends AtomicWriteOptions {
  /** Whether large initializers go to a second file, `<name>_data`: `auto` (default) when the model passes `maxFileBytes`. */
  externalData?: 'auto' | 'always' | 'never';
  /** Size from which `auto` uses external data, 2 GB by default. */
  maxFileBytes?: number;
  /** Bytes from which an initializer is moved out, 1024 by default. */
  externalThreshold?: number;
}

export interface SavedModel {
  readonly path: string;
  /** Bytes written, external data included. */
  readonly bytes: number;
  readonly externalFiles: readonly string[];
}

/** Default of `maxFileBytes`: some margin below the 2 GiB of protobuf. */
const MAX_FILE_BYTES = 2_000_000_000;

/**
 * Writes a model, whole or not at all. Tensors are written from where they lie in memory.
 * @param options.inputs files that must not be overwritten; pass the path and the external files of opened models.
 * @throws FlowCompressError as `writeFileAtomically`; `unsupported` when the model is too large for one file.
 */
export async function saveModel(model: ModelProto, path: string, options: SaveOptions = {}): Promise<SavedModel> {
  const { externalData = 'auto', maxFileBytes = MAX_FILE_BYTES, externalThreshold = EXTERNAL_THRESHOLD } = options;
  const whole = planEncoding(model);
  const external = externalData === 'always' || (externalData === 'auto' && whole.byteLength > maxFileBytes);
  if (external) {
    const location = `${basename(path)}_data`;
    const split = splitExternalData(model, location, externalThreshold);
    if (split.moved > 0) {
      const encoded = planEncoding(split.model);
      assertEncodable(encoded.byteLength);
      const dataPath = join(dirname(path), location);
      const [dataBytes, modelFileBytes] = await writeFilesAtomically(
        [
          { path: dataPath, content: split.chunks },
          { path, content: encoded.chunks },
        ],
        options,
      );
      return { path, bytes: dataBytes + modelFileBytes, externalFiles: [dataPath] };
    }
  }
  assertEncodable(whole.byteLength);
  const [bytes] = await writeFilesAtomically([{ path, content: whole.chunks }], options);
  return { path, bytes, externalFiles: [] };
}
