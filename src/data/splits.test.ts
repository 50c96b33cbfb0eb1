import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { Batch, Dataset, OpenedData } from './dataset.js';
import { openTest, timesOpened } from './sealed-test.js';
import { makeSplits, type Splits } from './splits.js';
import { subset } from './subset.js';

/** A dataset whose sample i holds the number i; `onRead` sees every index that is read. */
function numbered(
  size: number,
  labels?: Int32Array,
  onRead: (index: number) => void = () => undefined,
  source = 'numbers',
): Dataset {
  return {
    source,
    size,
    ...(labels && { labels }),
    async read(indices): Promise<Batch> {
      const rows = Array.from(indices);
      rows.forEach(onRead);
      return { feeds: { x: { type: 'int32', dims: [rows.length], data: Int32Array.from(rows) } }, size: rows.length };
    },
    close: async () => undefined,
  };
}
const opened = (parts: Partial<Record<'all' | 'train' | 'val' | 'test', Dataset>>): OpenedData => ({
  kind: 'npz',
  notes: [],
  close: async () => undefined,
  ...parts,
});

async function contents(dataset: Dataset): Promise<number[]> {
  const batch = await dataset.read(Int32Array.from({ length: dataset.size }, (_, i) => i));
  return Array.from(batch.feeds.x.data, Number);
}

const forbidden: Dataset = {
  ...numbered(20, undefined, undefined, 'forbidden'),
  read: () => {
    throw new Error('TEST was read');
  },
};

describe('splits', () => {
  it('of one dataset are disjoint, complete, and keep TEST out of the working splits, at any size', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 3, max: 400 }),
        fc.integer({ min: 1, max: 5 }),
        fc.boolean(),
        fc.integer(),
        fc.integer({ min: 1, max: 600 }),
        async (size, classes, labelled, seed, calibSamples) => {
          const labels = labelled ? Int32Array.from({ length: size }, (_, i) => (i * i) % classes) : undefined;
          const { working, test } = makeSplits(opened({ all: numbered(size, labels) }), { seed, calibSamples });
          const [train, val, calib, held] = await Promise.all(
            [working.train, working.val, working.calib, openTest(test)].map(contents),
          );
          expect([...train, ...val, ...held].sort((a, b) => a - b)).toEqual(Array.from({ length: size }, (_, i) => i));
          const inTrain = new Set(train);
          expect(calib.every((index) => inTrain.has(index))).toBe(true);
          expect(new Set(calib).size).toBe(Math.min(calibSamples, train.length));
          expect(val.length).toBe(Math.max(1, Math.round(size / 10)));
          expect(held.length).toBe(val.length);
          if (labels) expect(Array.from(working.train.labels!)).toEqual(train.map((index) => labels[index]));
        },
      ),
      { numRuns: 60 },
    );
  });

  it('never let an algorithm reach TEST', async () => {
    const size = 200;
    const read = new Set<number>();
    const { working, test } = makeSplits(opened({ all: numbered(size, undefined, (index) => read.add(index)) }));
    for (const part of [working.train, working.val, working.calib]) {
      await contents(part);
      for (const index of [-1, part.size, size - 1, 0.5, NaN])
        await expect(part.read([index])).rejects.toThrow('outside');
      // Nothing in the object leads to the base dataset: only data and the two functions.
      expect(Object.keys(part).sort()).toEqual(['close', 'read', 'size', 'source']);
    }
    expect(Object.keys(test).sort()).toEqual(['size', 'source']);
    const byAlgorithms = new Set(read);
    const held = await contents(openTest(test));
    expect(held.length).toBe(20);
    expect(held.filter((index) => byAlgorithms.has(index))).toEqual([]);
    expect(byAlgorithms.size).toBe(size - held.length);
  });

  it('never touch a TEST dataset of its own', async () => {
    for (const splits of [
      makeSplits(opened({ all: numbered(50) }), { testData: opened({ all: forbidden }) }),
      makeSplits(opened({ train: numbered(50), test: forbidden })),
      makeSplits(opened({ train: numbered(50), val: numbered(10), test: forbidden })),
    ]) {
      for (const part of Object.values(splits.working)) await contents(part);
      expect(timesOpened(splits.test)).toBe(0);
      await expect(async () => contents(openTest(splits.test))).rejects.toThrow('TEST was read');
    }
  });

  it('open TEST once only', () => {
    const { test } = makeSplits(opened({ all: numbered(30) }));
    openTest(test);
    expect(() => openTest(test)).toThrow('already read');
    expect(timesOpened(test)).toBe(2);
    expect(() => openTest({ source: test.source, size: test.size })).toThrow('not a sealed');
  });

  it('keep all of the data for TRAIN and VAL when TEST is separate', () => {
    const { working, test } = makeSplits(opened({ all: numbered(100) }), {
      testData: opened({ all: numbered(7, undefined, undefined, 'other') }),
    });
    expect([working.train.size, working.val.size, test.size]).toEqual([90, 10, 7]);
  });

  it('keep the splits of the author', async () => {
    const own = makeSplits(opened({ train: numbered(50), val: numbered(20), test: numbered(30) }));
    expect([own.working.train.size, own.working.val.size, own.test.size]).toEqual([50, 20, 30]);
    const noTest = makeSplits(opened({ train: numbered(50), val: numbered(20) }));
    expect([noTest.working.train.size, noTest.working.val.size, noTest.test.size]).toEqual([50, 10, 10]);
    expect(new Set([...(await contents(noTest.working.val)), ...(await contents(openTest(noTest.test)))]).size).toBe(
      20,
    );
    const noVal = makeSplits(opened({ train: numbered(50), test: numbered(30) }));
    expect([noVal.working.train.size, noVal.working.val.size, noVal.test.size]).toEqual([45, 5, 30]);
    const onlyTest = makeSplits(opened({ test: numbered(50) }));
    expect([onlyTest.working.train.size, onlyTest.working.val.size, onlyTest.test.size]).toEqual([40, 5, 5]);
  });

  it('hold each class in its share', () => {
    const labels = Int32Array.from({ length: 1000 }, (_, i) => (i < 700 ? 0 : i < 950 ? 1 : 2));
    const { working, test } = makeSplits(opened({ all: numbered(1000, labels) }), { seed: 5, calibSamples: 100 });
    const count = (dataset: Dataset): number[] =>
      [0, 1, 2].map((each) => dataset.labels!.filter((label) => label === each).length);
    const near = (found: number[], expected: number[]): void =>
      found.forEach((n, i) => expect(Math.abs(n - expected[i])).toBeLessThanOrEqual(1));
    near(count(working.val), [70, 25, 5]);
    near(count(openTest(test)), [70, 25, 5]);
    near(count(working.calib), [70, 25, 5]);
  });

  it('follow the seed', async () => {
    const make = (seed: number): Splits => makeSplits(opened({ all: numbered(100) }), { seed });
    expect(await contents(make(1).working.val)).toEqual(await contents(make(1).working.val));
    expect(await contents(make(1).working.val)).not.toEqual(await contents(make(2).working.val));
  });

  it('refuse too little data and a test that is the training data', () => {
    expect(() => makeSplits(opened({ all: numbered(2) }))).toThrow('too few');
    const same = opened({ all: numbered(20) });
    expect(() => makeSplits(same, { testData: opened({ all: numbered(20) }) })).toThrow('both training and test');
    expect(() => makeSplits(same, { calibSamples: 0 })).toThrow('calibration');
  });

  it('are opened by no algorithm: none of their folders imports openTest', () => {
    const source = new URL('..', import.meta.url).pathname;
    const algorithms = ['autodiff', 'distillation', 'flow', 'linalg', 'pruning', 'quantization', 'training'];
    const files = readdirSync(source, { recursive: true, encoding: 'utf8' }).filter(
      (file) => file.endsWith('.ts') && algorithms.includes(file.split(/[\\/]/)[0]),
    );
    expect(files.filter((file) => readFileSync(join(source, file), 'utf8').includes('sealed-test'))).toEqual([]);
  });
});

describe('a subset', () => {
  it('refuses indices outside its base', () => {
    expect(() => subset(numbered(5), [4, 5])).toThrow('outside');
  });
});
