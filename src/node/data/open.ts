/** Opens what `--data` names, finding out from the disk what kind of data it is. */
import { open, readdir, stat } from 'node:fs/promises';
import { basename, extname } from 'node:path';
import type { OpenedData } from '../../data/dataset.js';
import type { PreprocessOptions } from '../../data/preprocess.js';
import { noiseCount, noiseDataset } from '../../data/noise.js';
import { FlowCompressError, messageOf } from '../../errors.js';
import type { ValueSignature } from '../../runtime/engine.js';
import { isIdxImages, openIdxFile, openIdxFolder } from './idx.js';
import { openImageFolder } from './image-folder.js';
import { openNpz } from './npz.js';
import { errorCode } from '../error-code.js';

const KINDS =
  'Data is an .npz file, a folder of class folders of images (PNG, JPEG, WebP), or IDX files (*-images-idx3-ubyte[.gz]).';

/**
 * Opens a dataset for a model.
 * @param source an .npz file, an IDX image file, a folder of IDX files or of class folders of images, or `noise:N`
 * @param inputs the model's inputs; shapes are checked against them now, values when they are read
 * @param outputs whose targets are read, where the file has arrays of these names
 * @throws FlowCompressError `bad-input` when it is not found, is of no known kind, is empty, or does not fit the model; `io`
 * when it cannot be read
 */
export async function openDataset(
  source: string,
  inputs: readonly ValueSignature[],
  options: PreprocessOptions = {},
  outputs: readonly string[] = [],
): Promise<OpenedData> {
  if (inputs.length === 0)
    throw new FlowCompressError('bad-input', 'The model has no inputs, so no data can be fed to it.', {
      node: source,
      hint: 'Only `flow-compress inspect` works for such a model.',
    });
  if (noiseCount(source) !== undefined) {
    const all = noiseDataset(source, inputs);
    return { kind: 'noise', all, notes: [], close: () => all.close() };
  }
  const found = await stat(source).catch((error: unknown) => {
    const missing = errorCode(error) === 'ENOENT' || errorCode(error) === 'ENOTDIR';
    const problem = missing ? 'does not exist' : `cannot be opened: ${messageOf(error)}`;
    throw new FlowCompressError('bad-input', `${source} ${problem}.`, {
      node: source,
      hint: KINDS,
      cause: error,
    });
  });
  if (found.isDirectory()) {
    const names = (
      await readdir(source).catch((error: unknown) => {
        throw new FlowCompressError('io', `${source} cannot be listed: ${messageOf(error)}`, {
          node: source,
          cause: error,
        });
      })
    ).sort();
    const idx = names.filter(isIdxImages);
    if (idx.length > 0) return openIdxFolder(source, idx, inputs, options);
    const arrays = names.filter((name) => extname(name) === '.npz');
    if (arrays.length > 0) {
      throw new FlowCompressError(
        'bad-input',
        `${source} is a folder of .npz files (${arrays.slice(0, 3).join(', ')}); give one of them.`,
        {
          node: source,
          hint: 'For example --data train.npz --test test.npz.',
        },
      );
    }
    return openImageFolder(source, inputs, options);
  }
  if (!found.isFile())
    throw new FlowCompressError('bad-input', `${source} is neither a file nor a folder.`, {
      node: source,
      hint: KINDS,
    });
  if (found.size === 0) throw new FlowCompressError('bad-input', `${source} is empty.`, { node: source, hint: KINDS });
  switch (await detectKind(source)) {
    case 'npz': {
      const all = await openNpz(source, inputs, options, outputs);
      return { kind: 'npz', all, notes: [], close: () => all.close() };
    }
    case 'idx':
      return openIdxFile(source, inputs, options);
    case 'image':
      throw new FlowCompressError('bad-input', `${source} is a single image.`, {
        node: source,
        hint: 'Give the folder of class folders it is in.',
      });
    case 'npy':
      throw new FlowCompressError('bad-input', `${source} is a single .npy array.`, {
        node: source,
        hint: `Save it with its labels: numpy.savez('data.npz', ${inputs[0].name}=array, labels=labels).`,
      });
    case 'unknown':
      throw new FlowCompressError('bad-input', `${source} is not a kind of data that can be read.`, {
        node: source,
        hint: KINDS,
      });
  }
}

type FileKind = 'npz' | 'npy' | 'idx' | 'image' | 'unknown';

async function detectKind(path: string): Promise<FileKind> {
  const name = basename(path);
  if (isIdxImages(name)) return 'idx';
  const extension = extname(name).toLowerCase();
  if (extension === '.npz') return 'npz';
  if (extension === '.npy') return 'npy';
  if (['.png', '.jpg', '.jpeg', '.webp'].includes(extension)) return 'image';
  const file = await open(path);
  try {
    const magic = Buffer.alloc(4);
    await file.read(magic, 0, 4, 0);
    if (magic.toString('latin1') === 'PK\x03\x04') return 'npz';
    return magic[0] === 0 && magic[1] === 0 && magic[2] === 8 && (magic[3] === 3 || magic[3] === 4) ? 'idx' : 'unknown';
  } finally {
    await file.close();
  }
}
