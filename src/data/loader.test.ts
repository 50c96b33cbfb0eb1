import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { Batch, Dataset } from './dataset.js';
import { batches } from './loader.js';

interface Probe {
  readonly dataset: Dataset;
  reads: number;
  running: number;
}

/** Sample i is the number i with label i % 3; reads finish in an irregular order. */
function probed(size: number, failAt = -1): Probe {
  const probe: Probe = {
    reads: 0,
    running: 0,
    dataset: {
      source: 'probe',
      size,
      async read(indices): Promise<Batch> {
        const turn = probe.reads++;
        probe.running++;
        await new Promise((resolve) => setTimeout(resolve, (turn * 7) % 5));
        probe.running--;
        const rows = Int32Array.from(indices);
        if (rows.includes(failAt)) throw new Error(`sample ${failAt} is broken`);
        return {
          feeds: { x: { type: 'int32', dims: [rows.length], data: rows } },
          labels: rows.map((i) => i % 3),
          size: rows.length,
        };
      },
      close: async () => undefined,
    },
  };
  return probe;
}
const rowsOf = (batch: Batch): number[] => Array.from(batch.feeds.x.data, Number);

describe('batches', () => {
  it('deliver every sample once, in order, whatever is read ahead', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 0, max: 40 }),
        fc.integer({ min: 1, max: 12 }),
        fc.integer({ min: 0, max: 4 }),
        async (size, batchSize, prefetch) => {
          const seen: number[] = [];
          for await (const batch of batches(probed(size).dataset, batchSize, { prefetch })) {
            expect(batch.size).toBe(Math.min(batchSize, size - seen.length));
            seen.push(...rowsOf(batch));
          }
          expect(seen).toEqual(Array.from({ length: size }, (_, i) => i));
        },
      ),
      { numRuns: 25 },
    );
  });

  it('follow a given order', async () => {
    const seen = [];
    for await (const batch of batches(probed(5).dataset, 2, { order: [4, 0, 4] })) seen.push(rowsOf(batch));
    expect(seen).toEqual([[4, 0], [4]]);
  });

  it('read no further ahead than asked', async () => {
    const probe = probed(100);
    let taken = 0;
    for await (const batch of batches(probe.dataset, 1, { prefetch: 3 })) {
      taken += batch.size;
      expect(probe.reads).toBeLessThanOrEqual(taken + 3);
      if (taken === 2) {
        await new Promise((resolve) => setTimeout(resolve, 20));
        expect(probe.reads).toBe(5);
      }
    }
    expect(taken).toBe(100);
  });

  it('stop reading when the loop is left, and leave nothing running', async () => {
    const probe = probed(100);
    for await (const batch of batches(probe.dataset, 1)) if (batch.size > 0) break;
    const { reads } = probe;
    expect(reads).toBeLessThanOrEqual(3);
    expect(probe.running).toBe(0);
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect(probe.reads).toBe(reads);
  });

  it('throw an error of a read at its turn', async () => {
    const seen: number[] = [];
    const consume = async (): Promise<void> => {
      for await (const batch of batches(probed(20, 7).dataset, 2, { prefetch: 5 })) {
        await new Promise((resolve) => setTimeout(resolve, 3));
        seen.push(...rowsOf(batch));
      }
    };
    await expect(consume()).rejects.toThrow('sample 7 is broken');
    expect(seen).toEqual([0, 1, 2, 3, 4, 5]);
  });

  it('pad the last batch of a fixed size and count the real samples', async () => {
    const seen = [];
    for await (const batch of batches(probed(5).dataset, 4, { fixedBatch: true }))
      seen.push([rowsOf(batch), batch.size, Array.from(batch.labels!)]);
    expect(seen).toEqual([
      [[0, 1, 2, 3], 4, [0, 1, 2, 0]],
      [[4, 4, 4, 4], 1, [1]],
    ]);
  });

  it('end with the signal', async () => {
    const controller = new AbortController();
    const consume = async (): Promise<void> => {
      for await (const batch of batches(probed(20).dataset, 2, { signal: controller.signal }))
        if (batch.feeds.x.data[0] === 4) controller.abort();
    };
    await expect(consume()).rejects.toMatchObject({ code: 'aborted' });
  });

  it('refuse an impossible batch size', async () => {
    for (const size of [0, -1, 1.5, NaN])
      await expect(batches(probed(3).dataset, size).next()).rejects.toMatchObject({ code: 'bad-input' });
  });
});
