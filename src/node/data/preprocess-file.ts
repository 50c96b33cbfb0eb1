/** Reads the preprocessing of `--preprocess FILE`. */
import { readFile } from 'node:fs/promises';
import { parsePreprocessFile } from '../../data/preprocess-file.js';
import type { PreprocessOptions } from '../../data/preprocess.js';
import { FlowCompressError, messageOf } from '../../errors.js';

/**
 * @param path a Hugging Face preprocessor_config.json, or YAML/JSON with the keys of the flags
 * @throws FlowCompressError `io` when it cannot be read, otherwise as parsePreprocessFile
 */
export async function readPreprocessFile(path: string): Promise<PreprocessOptions> {
  const text = await readFile(path, 'utf8').catch((error: unknown) => {
    throw new FlowCompressError('io', `${path} could not be read: ${messageOf(error)}`, { node: path, cause: error });
  });
  return parsePreprocessFile(text, path);
}
