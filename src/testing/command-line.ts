/** The command line as users have it, run inside the test process in a folder of its own. */
import { mkdtemp, mkdir, readdir, readFile, realpath, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { PassThrough } from 'node:stream';
import type { ModelProto } from 'onnx-buf';
import type { CliContext } from '../cli/context.js';
import type { Library } from '../cli/library-types.js';
import { library } from '../cli/library.js';
import { runCli } from '../cli/program.js';
import { toBytes } from '../onnx/to-bytes.js';
import type { OnProgress } from '../progress.js';

export interface Outcome {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** What differs from a plain run. */
export type Surroundings = Partial<Pick<CliContext, 'library' | 'signal'>>;

/** Runs one command. */
export async function commandLine(args: readonly string[], surroundings: Surroundings = {}): Promise<Outcome> {
  const written = { stdout: '', stderr: '' };
  const stream = (name: 'stdout' | 'stderr'): PassThrough =>
    new PassThrough().on('data', (chunk: Buffer) => {
      written[name] += chunk.toString();
    });
  const code = await runCli({
    library,
    version: '0.0.0',
    stdout: stream('stdout'),
    stderr: stream('stderr'),
    env: {},
    signal: new AbortController().signal,
    args,
    ...surroundings,
  });
  return { code, ...written };
}

/** The library with another listener for the progress of `quantize`. */
export function listeningTo(onProgress: OnProgress): Library {
  return { ...library, quantizeModel: (path, options) => library.quantizeModel(path, { ...options, onProgress }) };
}

/** A folder that is removed after the test. */
export interface Workbench {
  readonly path: string;
  /** A path in it. */
  at(name: string): string;
  /** Writes a file, its folders included. @returns its path */
  write(name: string, content: Uint8Array | string): Promise<string>;
  model(name: string, model: ModelProto): Promise<string>;
  /** Runs a command and looks at what it did to the files. */
  run(args: readonly string[], surroundings?: Surroundings): Promise<Outcome & { readonly changed: string[] }>;
  /** Every file below the folder with its contents, hidden ones included. */
  contents(): Promise<Map<string, string>>;
  remove(): Promise<void>;
}

export async function workbench(): Promise<Workbench> {
  const path = await realpath(await mkdtemp(join(tmpdir(), 'flow-bench-')));
  const at = (name: string): string => join(path, name);
  const write = async (name: string, content: Uint8Array | string): Promise<string> => {
    await mkdir(dirname(at(name)), { recursive: true });
    await writeFile(at(name), content);
    return at(name);
  };
  const contents = async (): Promise<Map<string, string>> => {
    const files = new Map<string, string>();
    for (const name of (await readdir(path, { recursive: true })).sort()) {
      const isFile = (await stat(at(name))).isFile();
      files.set(name, isFile ? (await readFile(at(name))).toString('base64') : 'folder');
    }
    return files;
  };
  return {
    path,
    at,
    write,
    model: (name, model) => write(name, toBytes(model)),
    async run(args, surroundings) {
      const before = await contents();
      const outcome = await commandLine(args, surroundings);
      const after = await contents();
      const names = [...new Set([...before.keys(), ...after.keys()])];
      return { ...outcome, changed: names.filter((name) => before.get(name) !== after.get(name)) };
    },
    contents,
    remove: () => rm(path, { recursive: true, force: true }),
  };
}
