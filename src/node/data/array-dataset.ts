/** A dataset over arrays on disk: rows are read when they are asked for, several at a time. */
import type { Batch, Dataset } from '../../data/dataset.js';
import { planArrayInput, planTarget, type ArrayShape } from '../../data/array-input.js';
import { BYTES_PER_ELEMENT, viewElements } from '../../data/elements.js';
import { parseLabels } from '../../data/labels.js';
import type { PreprocessOptions } from '../../data/preprocess.js';
import { FlowCompressError } from '../../errors.js';
import type { HostTensor, ValueSignature } from '../../runtime/engine.js';
import type { ByteSource } from './byte-source.js';
import { mapLimited } from './map-limited.js';

/** An array in a file; its elements are little-endian and in row-major order. */
export interface ArrayFile extends ArrayShape {
  readonly bytes: ByteSource;
  /** Where the first element is. */
  readonly offset: number;
}

const READS_AT_ONCE = 16;

function rowBytes({ type, dims }: ArrayFile): number {
  return dims.slice(1).reduce((product, dim) => product * dim, BYTES_PER_ELEMENT[type]);
}

/** Reads rows of the first axis, one read per run of consecutive rows. */
async function readRows(array: ArrayFile, rows: ArrayLike<number>): Promise<Uint8Array> {
  const size = rowBytes(array);
  const out = new Uint8Array(rows.length * size);
  const runs: [from: number, count: number][] = [];
  for (let i = 0; i < rows.length; i++) {
    if (!Number.isInteger(rows[i]) || rows[i] < 0 || rows[i] >= array.dims[0]) {
      throw new FlowCompressError(
        'internal',
        `Sample ${rows[i]} is outside the ${array.dims[0]} samples of ${array.name}.`,
        { node: array.name },
      );
    }
    if (i > 0 && rows[i] === rows[i - 1] + 1) runs[runs.length - 1][1]++;
    else runs.push([i, 1]);
  }
  await mapLimited(runs, READS_AT_ONCE, ([from, count]) =>
    array.bytes.read(out.subarray(from * size, (from + count) * size), array.offset + rows[from] * size),
  );
  return out;
}

/** A whole array, for small ones such as labels. */
export async function readArray(array: ArrayFile): Promise<HostTensor> {
  const bytes = new Uint8Array(array.dims.reduce((product, dim) => product * dim, BYTES_PER_ELEMENT[array.type]));
  await array.bytes.read(bytes, array.offset);
  return { type: array.type, dims: array.dims, data: viewElements(array.type, bytes) };
}

/** @throws FlowCompressError `bad-input` when the file holds fewer elements than its header says */
export function checkLength(array: ArrayFile): void {
  const needed = array.dims.reduce((product, dim) => product * dim, BYTES_PER_ELEMENT[array.type]);
  const found = array.bytes.size - array.offset;
  if (found >= needed) return;
  throw new FlowCompressError(
    'bad-input',
    `${array.name} is truncated: its shape [${array.dims.join(', ')}] needs ${needed} bytes, ${found} are there.`,
    {
      node: array.name,
      hint: 'Copy or write the file again.',
    },
  );
}

/**
 * @param source as messages show it
 * @param arrays one array per model input, in the order of `inputs`
 * @param about labels, and targets by the name of the output
 * @param close releases the files
 * @throws FlowCompressError `bad-input` when the arrays do not fit the model's inputs, each other or the labels
 */
export async function openArrays(
  source: string,
  arrays: readonly ArrayFile[],
  { labels, targets = new Map() }: { labels?: ArrayFile | undefined; targets?: ReadonlyMap<string, ArrayFile> },
  inputs: readonly ValueSignature[],
  options: PreprocessOptions,
  close: () => Promise<void>,
): Promise<Dataset> {
  const all = [...arrays, ...targets.values()];
  for (const array of all) {
    if (array.dims.length === 0) {
      throw new FlowCompressError(
        'bad-input',
        `${array.name} is a single number; its first axis must be the samples.`,
        { node: array.name },
      );
    }
    if (array.dims.includes(0))
      throw new FlowCompressError('bad-input', `${array.name} is empty: its shape is [${array.dims.join(', ')}].`, {
        node: array.name,
        hint: 'Give at least one sample.',
      });
    checkLength(array);
  }
  const [{ name, dims }] = arrays;
  const size = dims[0];
  for (const other of all) {
    if (other.dims[0] !== size) {
      throw new FlowCompressError(
        'bad-input',
        `${other.name} has ${other.dims[0]} samples and ${name} has ${size}: the first axes must agree.`,
        {
          node: source,
          hint: 'Save arrays with one row per sample, in the same order.',
        },
      );
    }
  }
  const plans = arrays.map((array, i) => planArrayInput(array, inputs[i], options));
  const targetPlans = [...targets].map(([output, array]) => ({ output, array, toTensor: planTarget(array) }));
  if (labels) checkLength(labels);
  const classes = labels && parseLabels(await readArray(labels), size, labels.name);

  return {
    source,
    size,
    ...(classes && { labels: classes }),
    ...(targets.size > 0 && {
      targets: Object.fromEntries([...targets].map(([output, array]) => [output, array.dims])),
    }),
    async read(indices): Promise<Batch> {
      const tensors = await Promise.all(
        arrays.map(async (array, i) => plans[i](await readRows(array, indices), indices)),
      );
      const wanted = await Promise.all(
        targetPlans.map(async ({ output, array, toTensor }): Promise<[string, HostTensor]> => [
          output,
          toTensor(await readRows(array, indices), indices),
        ]),
      );
      return {
        feeds: Object.fromEntries(inputs.map((input, i) => [input.name, tensors[i]])),
        ...(classes && { labels: Int32Array.from(indices, (index) => classes[index]) }),
        ...(wanted.length > 0 && { targets: Object.fromEntries(wanted) }),
        size: indices.length,
      };
    },
    close,
  };
}
