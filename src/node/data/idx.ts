/** IDX files, the format of MNIST and its relatives: images of unsigned bytes, with the labels in a file beside them. */
import { createReadStream, existsSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { createGunzip } from 'node:zlib';
import type { Dataset, OpenedData } from '../../data/dataset.js';
import type { PreprocessOptions } from '../../data/preprocess.js';
import { FlowCompressError } from '../../errors.js';
import type { ValueSignature } from '../../runtime/engine.js';
import { openArrays, type ArrayFile } from './array-dataset.js';
import { openBytes, spoolToDisk, type ByteSource } from './byte-source.js';

const IMAGES = /^(.*?)[-._]?images[-._]idx([34])[-._]ubyte(\.gz)?$/i;
const UNSIGNED_BYTE = 0x08;

/** Whether a file name is that of IDX images. */
export function isIdxImages(name: string): boolean {
  return IMAGES.test(name);
}

/** Splits by the first word of their file names, as MNIST and its relatives use them. */
const SPLITS: Readonly<Record<string, 'train' | 'val' | 'test'>> = {
  train: 'train',
  val: 'val',
  valid: 'val',
  validation: 'val',
  t10k: 'test',
  test: 'test',
};

/**
 * Opens the IDX files of a folder: one image file is the whole data, several are its splits by name.
 * @param files names of the IDX image files in it
 * @throws FlowCompressError `bad-input` when the names do not say which split a file is
 */
export async function openIdxFolder(
  folder: string,
  files: readonly string[],
  inputs: readonly ValueSignature[],
  options: PreprocessOptions,
): Promise<OpenedData> {
  // A file that is there both plain and compressed counts once; the plain one needs no temporary file.
  const plain = files.filter((name) => !name.endsWith('.gz') || !files.includes(name.slice(0, -'.gz'.length)));
  if (plain.length === 1) return openIdxFile(join(folder, plain[0]), inputs, options);
  const paths: Partial<Record<'train' | 'val' | 'test', string>> = {};
  for (const name of plain) {
    const prefix = IMAGES.exec(name)![1].toLowerCase();
    const part = SPLITS[prefix];
    if (part === undefined || paths[part] !== undefined) {
      throw new FlowCompressError(
        'bad-input',
        `${folder} holds several IDX image files (${plain.join(', ')}), and their names do not say which is for training and which for test.`,
        {
          node: folder,
          hint: 'Name them train-images-idx3-ubyte and t10k-images-idx3-ubyte, or give one file as --data and another as --test.',
        },
      );
    }
    paths[part] = join(folder, name);
  }
  const parts: Partial<Record<'train' | 'val' | 'test', Dataset>> = {};
  const notes: string[] = [];
  const close = async (): Promise<void> => {
    await Promise.all(Object.values(parts).map((part) => part.close()));
  };
  try {
    for (const part of ['train', 'val', 'test'] as const) {
      const path = paths[part];
      if (path !== undefined) parts[part] = await openIdx(path, inputs, options, notes);
    }
  } catch (error) {
    await close();
    throw error;
  }
  return { kind: 'idx', ...parts, notes, close };
}

/** Opens one IDX image file and the labels file beside it. */
export async function openIdxFile(
  path: string,
  inputs: readonly ValueSignature[],
  options: PreprocessOptions,
): Promise<OpenedData> {
  const notes: string[] = [];
  const all = await openIdx(path, inputs, options, notes);
  return { kind: 'idx', all, notes, close: () => all.close() };
}

async function openIdx(
  path: string,
  inputs: readonly ValueSignature[],
  options: PreprocessOptions,
  notes: string[],
): Promise<Dataset> {
  if (inputs.length !== 1) {
    throw new FlowCompressError(
      'bad-input',
      `${path} gives one input; the model has ${inputs.length}: ${inputs.map((input) => input.name).join(', ')}.`,
      {
        node: path,
        hint: 'Give an .npz file with one array per input.',
      },
    );
  }
  const opened: ByteSource[] = [];
  const close = async (): Promise<void> => {
    await Promise.all(opened.map((bytes) => bytes.close()));
  };
  const load = async (file: string, ranks: readonly number[]): Promise<ArrayFile> => {
    const bytes = /\.gz$/i.test(file)
      ? await spoolToDisk(file, createReadStream(file), createGunzip())
      : await openBytes(file);
    opened.push(bytes);
    return readHeader(bytes, ranks);
  };
  try {
    const images = await load(path, [3, 4]);
    const labelPath = findLabels(path);
    if (labelPath === undefined)
      notes.push(`No labels file was found beside ${path}: the images are used without labels.`);
    const labels = labelPath === undefined ? undefined : await load(labelPath, [1]);
    return await openArrays(path, [images], { labels }, inputs, options, close);
  } catch (error) {
    await close();
    throw error;
  }
}

/** The labels file beside an image file, plain or compressed whatever the images are. */
function findLabels(path: string): string | undefined {
  const name = basename(path);
  if (!isIdxImages(name)) return undefined;
  const plain = name
    .replace(/\.gz$/i, '')
    .replace(/images(?=[-._]idx[34])/i, (word) => (word === word.toUpperCase() ? 'LABELS' : 'labels'))
    .replace(/(?<=idx)[34]/i, '1');
  return [plain, `${plain}.gz`].map((file) => join(dirname(path), file)).find((file) => existsSync(file));
}

async function readHeader(bytes: ByteSource, ranks: readonly number[]): Promise<ArrayFile> {
  const refuse = (reason: string): FlowCompressError =>
    new FlowCompressError(
      'bad-input',
      `${bytes.name} is not an IDX file of ${ranks[0] === 1 ? 'labels' : 'images'}: ${reason}.`,
      {
        node: bytes.name,
        hint: 'Download the file again, or give the data as an .npz file.',
      },
    );
  if (bytes.size < 4) throw refuse(`it has only ${bytes.size} bytes`);
  const magic = new Uint8Array(4);
  await bytes.read(magic, 0);
  const [zero0, zero1, type, rank] = magic;
  if (zero0 !== 0 || zero1 !== 0) throw refuse('it does not start with two zero bytes');
  if (type !== UNSIGNED_BYTE) throw refuse(`its element type 0x${type.toString(16)} is not unsigned byte (0x8)`);
  if (!ranks.includes(rank)) throw refuse(`it has ${rank} axes, expected ${ranks.join(' or ')}`);
  const offset = 4 + 4 * rank;
  if (bytes.size < offset) throw refuse('it ends inside its header');
  const header = new Uint8Array(4 * rank);
  await bytes.read(header, 4);
  const view = new DataView(header.buffer);
  const dims = Array.from({ length: rank }, (_, axis) => view.getUint32(4 * axis));
  return { name: bytes.name, type: 'uint8', dims, bytes, offset };
}
