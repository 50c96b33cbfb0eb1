/**
 * NumPy .npz files: one array per model input, `labels`, and arrays under the names of outputs, their targets. Stored members are read in place by offset; compressed ones are
 * inflated once to a temporary file, so memory does not grow with the data.
 */
import { open as openZip, type Entry, type ZipFile } from 'yauzl';
import { npyHeaderLength, parseNpyHeader } from '../../data/npy.js';
import type { Dataset } from '../../data/dataset.js';
import type { PreprocessOptions } from '../../data/preprocess.js';
import { FlowCompressError, messageOf } from '../../errors.js';
import type { ValueSignature } from '../../runtime/engine.js';
import { openArrays, type ArrayFile } from './array-dataset.js';
import { openBytes, partOf, spoolToDisk, type ByteSource } from './byte-source.js';

const LABELS = 'labels';
const STORED = 0;
const DEFLATED = 8;

/**
 * @throws FlowCompressError `bad-input` when the file is no .npz, lacks an array, or its arrays do not fit the model's inputs
 */
export async function openNpz(
  path: string,
  inputs: readonly ValueSignature[],
  options: PreprocessOptions,
  outputs: readonly string[] = [],
): Promise<Dataset> {
  const file = await openBytes(path);
  const opened: ByteSource[] = [file];
  const close = async (): Promise<void> => {
    await Promise.all(opened.map((bytes) => bytes.close()));
  };
  try {
    const zip = await openArchive(path);
    try {
      const members = await listArrays(zip, path);
      const names = chooseArrays([...members.keys()], inputs, outputs, path);
      const load = async (name: string): Promise<ArrayFile> => {
        const bytes = await openMember(zip, members.get(name)!, file, `${name} in ${path}`);
        opened.push(bytes);
        return readHeader(bytes);
      };
      const arrays: ArrayFile[] = [];
      for (const name of names) arrays.push(await load(name));
      const labels = members.has(LABELS) && !names.includes(LABELS) ? await load(LABELS) : undefined;
      const targets = new Map<string, ArrayFile>();
      for (const name of outputs)
        if (members.has(name) && !names.includes(name) && name !== LABELS) targets.set(name, await load(name));
      return await openArrays(path, arrays, { labels, targets }, inputs, options, close);
    } finally {
      zip.close();
    }
  } catch (error) {
    await close();
    throw error;
  }
}

function openArchive(path: string): Promise<ZipFile> {
  return new Promise((resolve, reject) => {
    openZip(path, { lazyEntries: true, autoClose: false }, (error, zip) => {
      if (!error) resolve(zip);
      else reject(notAnArchive(path, error));
    });
  });
}

function notAnArchive(path: string, error: unknown): FlowCompressError {
  return new FlowCompressError('bad-input', `${path} is not a readable .npz file: ${messageOf(error)}`, {
    node: path,
    hint: 'Write it with numpy.savez(path, name=array, ..., labels=labels); a file cut short by a copy gives this message too.',
    cause: error,
  });
}

async function listArrays(zip: ZipFile, path: string): Promise<Map<string, Entry>> {
  const members = new Map<string, Entry>();
  try {
    for await (const entry of zip.eachEntry()) {
      if (entry.fileName.endsWith('.npy')) members.set(entry.fileName.slice(0, -'.npy'.length), entry);
    }
  } catch (error) {
    throw notAnArchive(path, error);
  }
  return members;
}

/** Name of the array for each model input. */
function chooseArrays(
  found: readonly string[],
  inputs: readonly ValueSignature[],
  outputs: readonly string[],
  path: string,
): string[] {
  const missing = inputs.filter((input) => !found.includes(input.name)).map((input) => input.name);
  if (missing.length === 0) return inputs.map((input) => input.name);
  const candidates = found.filter((name) => name !== LABELS);
  const free = candidates.filter((name) => !outputs.includes(name));
  if (inputs.length === 1) for (const names of [free, candidates]) if (names.length === 1) return names;
  const list = (names: readonly string[]): string => (names.length > 0 ? names.join(', ') : 'none');
  throw new FlowCompressError(
    'bad-input',
    `${path} has no array for the model's input ${list(missing)}; arrays found: ${list(found)}.`,
    {
      node: path,
      hint: `Name each array after the model's input: numpy.savez(path, ${inputs.map((input) => `${input.name}=...`).join(', ')}, labels=...).`,
    },
  );
}

async function openMember(zip: ZipFile, entry: Entry, file: ByteSource, name: string): Promise<ByteSource> {
  if (entry.isEncrypted()) {
    throw new FlowCompressError('bad-input', `${name} is encrypted.`, {
      node: name,
      hint: 'Write the file again with numpy.savez.',
    });
  }
  if (entry.compressionMethod !== STORED && entry.compressionMethod !== DEFLATED) {
    throw new FlowCompressError('unsupported', `${name} uses ZIP compression method ${entry.compressionMethod}.`, {
      node: name,
      hint: 'Write the file with numpy.savez or numpy.savez_compressed.',
    });
  }
  try {
    if (entry.compressionMethod === STORED) {
      const { fileDataStart } = await zip.readLocalFileHeaderPromise(entry, { minimal: true });
      return partOf(file, name, fileDataStart, entry.uncompressedSize);
    }
    return await spoolToDisk(name, await zip.openReadStreamPromise(entry));
  } catch (error) {
    throw error instanceof FlowCompressError ? error : notAnArchive(name, error);
  }
}

async function readHeader(bytes: ByteSource): Promise<ArrayFile> {
  const prefix = new Uint8Array(Math.min(12, bytes.size));
  await bytes.read(prefix, 0);
  const header = new Uint8Array(Math.min(npyHeaderLength(prefix, bytes.name), bytes.size));
  await bytes.read(header, 0);
  const { type, dims, dataOffset } = parseNpyHeader(header, bytes.name);
  return { name: bytes.name, type, dims, bytes, offset: dataOffset };
}
