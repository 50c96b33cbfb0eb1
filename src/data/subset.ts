/** Part of a dataset, as a dataset of its own that cannot reach the rest. */
import { FlowCompressError } from '../errors.js';
import type { Dataset } from './dataset.js';

/** The first `count` samples; the dataset itself where it has no more. */
export function firstSamples(base: Dataset, count: number): Dataset {
  return count < base.size
    ? subset(
        base,
        Int32Array.from({ length: count }, (_, i) => i),
      )
    : base;
}

/**
 * The samples `indices` of a dataset, numbered from 0. Neither the base dataset nor the indices can be taken back out of it.
 * Closing a subset does nothing: the base belongs to whoever opened it.
 */
export function subset(base: Dataset, indices: ArrayLike<number>, source = base.source): Dataset {
  const rows = Int32Array.from(indices);
  const { labels, classNames, targets } = base;
  for (const row of rows) if (row < 0 || row >= base.size) throw outside(row, base.size, source);
  return Object.freeze<Dataset>({
    source,
    size: rows.length,
    ...(labels && { labels: rows.map((row) => labels[row]) }),
    ...(classNames && { classNames }),
    ...(targets && { targets: resized(targets, rows.length) }),
    read: async (wanted) => {
      const picked = new Int32Array(wanted.length);
      for (let i = 0; i < wanted.length; i++) {
        if (!Number.isInteger(wanted[i]) || wanted[i] < 0 || wanted[i] >= rows.length)
          throw outside(wanted[i], rows.length, source);
        picked[i] = rows[wanted[i]];
      }
      return base.read(picked);
    },
    close: async () => undefined,
  });
}

function resized(shapes: NonNullable<Dataset['targets']>, size: number): NonNullable<Dataset['targets']> {
  return Object.fromEntries(Object.entries(shapes).map(([name, dims]) => [name, [size, ...dims.slice(1)]]));
}

function outside(index: number, size: number, source: string): FlowCompressError {
  return new FlowCompressError('internal', `Sample ${index} is outside the ${size} samples of ${source}.`, {
    node: source,
  });
}
