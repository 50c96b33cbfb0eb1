/** Reads a dataset batch by batch, ahead of the consumer: while the engine computes one batch, the next ones are decoded. */
import { FlowCompressError, throwIfAborted } from '../errors.js';
import type { Batch, Dataset } from './dataset.js';

export interface BatchOptions {
  /** Batches read ahead of the one the consumer holds. Default 2; 0 reads each when it is asked for. */
  readonly prefetch?: number;
  readonly signal?: AbortSignal;
  /** Sample indices in the order to read them. Default: all, in order. */
  readonly order?: ArrayLike<number>;
  /**
   * For models with a fixed batch dimension: the tensors always hold `batchSize` rows, the last batch repeating its own
   * samples. `size` and `labels` count only the real ones, which come first.
   */
  readonly fixedBatch?: boolean;
}

/**
 * The samples in deterministic order, as batches of `batchSize` (the last may be smaller, see `fixedBatch`). At most
 * `prefetch` + 1 batches are in memory. A failed read is thrown when its batch is due; leaving the loop stops the reading.
 * @throws FlowCompressError what the dataset throws, `aborted` once the signal fires, `bad-input` for an invalid batch size
 */
export async function* batches(
  dataset: Dataset,
  batchSize: number,
  options: BatchOptions = {},
): AsyncGenerator<Batch, void, undefined> {
  const { prefetch = 2, signal, order, fixedBatch = false } = options;
  if (!Number.isSafeInteger(batchSize) || batchSize < 1) {
    throw new FlowCompressError('bad-input', `The batch size must be a whole number above 0, found ${batchSize}.`);
  }
  const total = order?.length ?? dataset.size;
  const pending: Promise<Batch>[] = [];
  let next = 0;

  const startReading = (): void => {
    const size = Math.min(batchSize, total - next);
    const first = next;
    next += size;
    const rows = fixedBatch ? batchSize : size;
    const indices = Int32Array.from({ length: rows }, (_, i) =>
      order ? order[first + (i % size)] : first + (i % size),
    );
    const reading = dataset
      .read(indices)
      .then((batch) => (rows === size ? batch : { ...batch, size, labels: batch.labels?.slice(0, size) }));
    // An error waits for its turn; without a handler it would end the process before that.
    reading.catch(() => undefined);
    pending.push(reading);
  };

  try {
    while (next < total || pending.length > 0) {
      throwIfAborted(signal);
      while (next < total && pending.length < Math.max(1, prefetch)) startReading();
      const batch = await pending.shift()!;
      while (next < total && pending.length < prefetch) startReading();
      throwIfAborted(signal);
      yield batch;
    }
  } finally {
    // The caller may close the dataset next: reads that were under way must have ended.
    await Promise.allSettled(pending);
  }
}
