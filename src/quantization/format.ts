/** The forms in which the codes of a layer can be stored, and what each takes. */
import type { Grid } from './grid.js';
import { packedBytes } from './pack.js';

/** `uniform`: codes of a grid. `codebook`: places in a list of levels of the layer's own. */
export interface StorageFormat {
  readonly kind: 'uniform' | 'codebook';
  /** Of a code. */
  readonly bits: number;
}

export function uniformCodes(bits: number): StorageFormat {
  return { kind: 'uniform', bits };
}

export function codebookCodes(bits: number): StorageFormat {
  return { kind: 'codebook', bits };
}

export function formatOf({ bits, levels }: Grid): StorageFormat {
  return { kind: levels ? 'codebook' : 'uniform', bits };
}

/** What the tensor of a codebook takes in a file beside its levels: names, type and dimensions. */
export const CODEBOOK_HEADER = 16;

/** Bytes of the codes of a layer, and of its codebook. */
export function storedBytes(count: number, format: StorageFormat): number {
  return packedBytes(count, format.bits) + codebookBytes(format);
}

/** What a layer's list of levels takes; 0 without one. */
export function codebookBytes({ kind, bits }: StorageFormat): number {
  return kind === 'codebook' ? 2 ** bits + CODEBOOK_HEADER : 0;
}
