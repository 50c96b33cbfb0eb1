/** Where the models, the data and the peers are: flags or environment variables, never fixed paths. Missing ones are skipped with a note. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';

/** The flags that say where things are, for `parseArgs`. */
export const PLACE_FLAGS = {
  /** Folder of real models and data, one sub-folder each. */
  assets: { type: 'string' },
  /** Folder with cifar-train.npz and cifar-test.npz, as make-cifar.ts writes them. */
  cifar: { type: 'string' },
  /** Folder of the Python environment with the peers (bench/peers/requirements.txt). */
  peers: { type: 'string' },
  /** Folder of the peers' files. */
  'peers-out': { type: 'string' },
} as const;

export interface Places {
  readonly assets?: string;
  readonly cifar?: { readonly train: string; readonly test: string };
  /** The peers' Python interpreter. */
  readonly python?: string;
  readonly peersOut?: string;
}

type PlaceFlag = keyof typeof PLACE_FLAGS;

const VARIABLES: Readonly<Record<PlaceFlag, string>> = {
  assets: 'FLOW_COMPRESS_ASSETS',
  cifar: 'FLOW_COMPRESS_CIFAR',
  peers: 'FLOW_COMPRESS_PEERS',
  'peers-out': 'FLOW_COMPRESS_PEERS_OUT',
};

/** Preprocessing of the CIFAR-10 models here, as options of the library and as flags of the peers. */
export const CIFAR_PREPROCESS = { mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225] };

/** Finds what is there and says on stderr what is not. */
export function findPlaces(flags: Readonly<Partial<Record<PlaceFlag, string>>>): Places {
  const folder = (flag: PlaceFlag, ...needed: string[]): string | undefined => {
    const path = flags[flag] ?? process.env[VARIABLES[flag]];
    if (path === undefined) {
      note(`--${flag} (or ${VARIABLES[flag]}) is not given: what needs it is skipped.`);
      return undefined;
    }
    const missing = [path, ...needed.map((name) => join(path, name))].find((each) => !existsSync(each));
    if (missing !== undefined) note(`${missing} is not there: what needs it is skipped.`);
    return missing === undefined ? path : undefined;
  };
  const cifar = folder('cifar', 'cifar-train.npz', 'cifar-test.npz');
  const peers = folder('peers', 'bin/python');
  return {
    assets: folder('assets'),
    ...(cifar && { cifar: { train: join(cifar, 'cifar-train.npz'), test: join(cifar, 'cifar-test.npz') } }),
    ...(peers && { python: join(peers, 'bin/python') }),
    peersOut: folder('peers-out'),
  };
}

/** A line for the person who runs the script; stdout is for results. */
export function note(text: string): void {
  console.error(text);
}

/** The path if the file exists. */
export function existing(...parts: readonly (string | undefined)[]): string | undefined {
  const known = parts.filter((part) => part !== undefined);
  if (known.length < parts.length) return undefined;
  const path = join(...known);
  return existsSync(path) ? path : undefined;
}
