/**
 * An output that is made beside its destination and moved there at the very end, so that it can be measured first: until
 * then the destination stays as it is.
 */
import { basename, dirname, join } from 'node:path';
import { FlowCompressError } from '../errors.js';
import { assertWritableOutput, placeFiles, writeError, type AtomicWriteOptions } from './atomic-file.js';
import { makeTemporaryFolder } from './temporary-folder.js';

export interface StagedOutput {
  /** The output's name in a hidden folder on the file system of the destination, which is for this output alone. */
  readonly path: string;
  /** Makes files in the folder; errors about `path` speak of the destination. */
  make<T>(work: (path: string) => Promise<T>): Promise<T>;
  /** Moves files of the folder, under their names, to the folder of the destination: all of them or none. */
  publish(files: readonly string[]): Promise<void>;
  /** Removes what was not published. */
  discard(): Promise<void>;
}

/** @throws FlowCompressError as `assertWritableOutput` */
export async function stageOutput(destination: string, rules: AtomicWriteOptions = {}): Promise<StagedOutput> {
  try {
    // A link stays a link: what it points to is replaced.
    const target = await assertWritableOutput(destination, rules);
    const folder = await makeTemporaryFolder(join(dirname(target), `.${basename(target).slice(0, 100)}.tmp-`));
    const path = join(folder.path, basename(target));
    const mine = (error: unknown): boolean => error instanceof FlowCompressError && error.node === path;
    return {
      path,
      async make(work) {
        try {
          return await work(path);
        } catch (error) {
          throw mine(error) && error instanceof Error && error.cause !== undefined
            ? writeError(destination, error.cause)
            : error;
        }
      },
      publish: (files) =>
        placeFiles(
          files.map((from) => ({ from, path: from === path ? destination : join(dirname(target), basename(from)) })),
          rules,
        ),
      discard: () => folder.remove(),
    };
  } catch (error) {
    throw writeError(destination, error);
  }
}
