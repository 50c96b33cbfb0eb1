/** Batches of any size out of a few samples, and what the shapes of a model's inputs say about its batch. */
import { BYTES_PER_ELEMENT, viewElements } from '../data/elements.js';
import { FlowCompressError } from '../errors.js';
import type { Feeds, HostTensor, ValueSignature } from './engine.js';

/**
 * The first `count` rows of every tensor, starting over when there are fewer.
 * @throws FlowCompressError `internal` for tensors without rows
 */
export function takeRows(feeds: Feeds, count: number): Feeds {
  return pickRows(
    feeds,
    Array.from({ length: count }, (_, i) => i),
  );
}

/**
 * These rows of every tensor, in this order; numbers beyond the last row start over.
 * @throws FlowCompressError `internal` for tensors without rows
 */
export function pickRows(feeds: Feeds, rows: readonly number[]): Feeds {
  return Object.fromEntries(Object.entries(feeds).map(([name, tensor]) => [name, rowsOf(name, tensor, rows)]));
}

function rowsOf(name: string, { type, dims, data }: HostTensor, picked: readonly number[]): HostTensor {
  const [rows = 0, ...rest] = dims;
  if (rows === 0) throw new FlowCompressError('internal', `The feed ${name} has no rows.`, { node: name });
  const size = rest.reduce((product, dim) => product * dim, BYTES_PER_ELEMENT[type]);
  const source = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  const out = new Uint8Array(picked.length * size);
  picked.forEach((row, i) => {
    const from = (row % rows) * size;
    out.set(source.subarray(from, from + size), i * size);
  });
  return { type, dims: [picked.length, ...rest], data: viewElements(type, out) };
}

/**
 * Rows that the model insists on, undefined when it takes any number.
 * @throws FlowCompressError `unsupported` when two inputs insist on different numbers
 */
export function fixedBatchOf(inputs: readonly ValueSignature[]): number | undefined {
  const fixed = inputs.filter(({ dims }) => typeof dims[0] === 'number' && dims[0] > 0);
  const [first] = fixed;
  const other = fixed.find(({ dims }) => dims[0] !== first.dims[0]);
  if (first && other) {
    throw new FlowCompressError(
      'unsupported',
      `The first axes of the inputs ${first.name} (${first.dims[0]}) and ${other.name} (${other.dims[0]}) differ: they cannot both be the samples.`,
      { node: other.name, hint: 'Export the model with the batch as the first axis of every input.' },
    );
  }
  return typeof first?.dims[0] === 'number' ? first.dims[0] : undefined;
}

/** The feeds of these names: a part of a model may not take all inputs. */
export function namedFeeds(feeds: Feeds, names: ReadonlySet<string>): Feeds {
  return Object.fromEntries(Object.entries(feeds).filter(([name]) => names.has(name)));
}
