import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { Batch } from '../data/dataset.js';
import type { HostTensor } from './engine.js';
import { evaluateSession, evaluateSessions, type Subject } from './metric.js';
import { SQNR_CEILING_DB } from './scores.js';

const float = (dims: number[], values: ArrayLike<number>): HostTensor => ({
  type: 'float32',
  dims,
  data: Float32Array.from(values),
});

/** A model that gives the scores in `table` (one row per sample of all batches) for the row numbers it is fed. */
function lookup(name: string, table: readonly (readonly number[])[], shape?: number[], output = 'scores'): Subject {
  return {
    name,
    session: {
      outputs: [{ name: output, type: 'float32', dims: [] }],
      run: async ({ row }) => {
        const rows = Array.from(row.data, Number);
        return {
          [output]: float(
            [rows.length, ...(shape ?? [table[0].length])],
            rows.flatMap((at) => table[at]),
          ),
        };
      },
    },
  };
}

/** Batches whose samples are the row numbers 0, 1, ... */
async function* rows(sizes: readonly number[], labels?: readonly number[], padded = 0): AsyncGenerator<Batch> {
  let from = 0;
  for (const size of sizes) {
    const fed = Array.from({ length: Math.max(size, padded) }, (_, i) => from + (i % size));
    const own = labels && Int32Array.from(labels.slice(from, from + size));
    yield { feeds: { row: float([fed.length], fed) }, size, ...(own && { labels: own }) };
    from += size;
  }
}

describe('with labels', () => {
  const scores = [
    [1, 2, 3],
    [3, 2, 1],
    [0, 5, 0],
    [1, 1, 0],
  ];

  it('counts the top class, the first of equal ones, over any batches', async () => {
    const labels = [2, 1, 1, 0];
    for (const sizes of [[4], [1, 3], [2, 2]]) {
      const { metric } = await evaluateSession(lookup('m', scores).session, rows(sizes, labels));
      expect(metric).toEqual({ name: 'top1', value: 0.75, samples: 4 });
    }
  });

  it('puts the figure that is asked for first, and top1 beside it', async () => {
    const labels = [2, 1, 1, 0];
    const session = lookup('m', scores).session;
    const byF1 = await evaluateSession(session, rows([1, 3], labels), { main: 'f1-macro' });
    // Class 0: 2 predictions, 1 label, both 1; class 1: 1, 2, 1; class 2: right.
    expect(byF1.metric).toEqual({ name: 'f1-macro', value: (2 / 3 + 2 / 3 + 1) / 3, samples: 4 });
    expect(byF1.metrics).toEqual([{ name: 'top1', value: 0.75, samples: 4 }]);
    expect((await evaluateSession(session, rows([4], labels), { main: 'top5' })).metric).toMatchObject({ value: 1 });
    // One score per sample, as logits: the threshold that holds at the end counts.
    const logits = [[-2], [0.2], [3], [0.1]];
    const binary = await evaluateSession(lookup('m', logits).session, rows([2, 2], [1, 1, 1, 0]), {
      main: 'f1-binary',
    });
    expect(binary.metric).toMatchObject({ name: 'f1-binary', value: 4 / 6 });
  });

  it('ignores the rows that pad a fixed batch', async () => {
    const { metric } = await evaluateSession(lookup('m', scores).session, rows([3, 1], [2, 1, 1, 0], 3));
    expect(metric).toEqual({ name: 'top1', value: 0.75, samples: 4 });
  });

  it('reads scores with trailing axes of one, and a single score as two classes', async () => {
    const { metric } = await evaluateSession(lookup('m', scores, [3, 1, 1]).session, rows([4], [2, 0, 1, 1]));
    expect(metric?.value).toBe(0.75);
    const sigmoid = [[0.9], [0.4], [0.6], [0.1]];
    const logit = [[2], [-1], [0.2], [-3]];
    for (const table of [sigmoid, logit]) {
      const result = await evaluateSession(lookup('m', table).session, rows([2, 2], [1, 0, 0, 0]));
      expect(result.metric).toEqual({ name: 'top1', value: 0.75, samples: 4 });
    }
  });

  it('adds top-5 from 20 classes on, with the ranks of a plain sort', async () => {
    const tables = fc.array(fc.array(fc.integer({ min: 0, max: 30 }), { minLength: 20, maxLength: 20 }), {
      minLength: 1,
      maxLength: 6,
    });
    await fc.assert(
      fc.asyncProperty(tables, fc.infiniteStream(fc.integer({ min: 0, max: 19 })), async (table, stream) => {
        const labels = [...stream.take(table.length)];
        const ranks = table.map((row, i) =>
          row
            .map((score, index) => ({ score, index }))
            .sort((a, b) => b.score - a.score || a.index - b.index)
            .findIndex(({ index }) => index === labels[i]),
        );
        const { metric, metrics } = await evaluateSession(lookup('m', table).session, rows([table.length], labels));
        expect(metric?.value).toBeCloseTo(ranks.filter((rank) => rank === 0).length / ranks.length);
        expect(metrics[0]).toMatchObject({ name: 'top5' });
        expect(metrics[0].value).toBeCloseTo(ranks.filter((rank) => rank < 5).length / ranks.length);
      }),
      { numRuns: 30 },
    );
  });

  it('adds the agreement of further models with the first one', async () => {
    const other = scores.map((row, i) => (i === 2 ? [9, 0, 0] : row));
    const labels = [2, 0, 0, 0];
    const { evaluations } = await evaluateSessions([lookup('a', scores), lookup('b', other)], rows([3, 1], labels));
    expect(evaluations[0]).toEqual({ metric: { name: 'top1', value: 0.75, samples: 4 }, metrics: [] });
    expect(evaluations[1]).toEqual({
      metric: { name: 'top1', value: 1, samples: 4 },
      metrics: [{ name: 'agreement', value: 0.75, samples: 4 }],
    });
  });

  it('refuses labels outside the classes, naming the sample', async () => {
    await expect(evaluateSession(lookup('m', scores).session, rows([3, 1], [0, 1, 2, 3]))).rejects.toThrow(
      /label 3 of sample 3 .* 3 classes \(0 to 2\)/,
    );
    await expect(evaluateSession(lookup('m', [[0.5], [0.5]]).session, rows([2], [0, 2]))).rejects.toThrow(
      /label 2 of sample 1/,
    );
  });

  it('counts NaN as wrong with a warning, and refuses an original of nothing else', async () => {
    const partly = [
      [NaN, 0],
      [0, 1],
      [1, NaN],
      [0, 2],
    ];
    const { metric, warnings } = await evaluateSession(lookup('m', partly).session, rows([4], [0, 1, 0, 1]));
    expect(metric?.value).toBe(0.5);
    expect(warnings.join()).toMatch(/NaN for 2 of 4 samples/);
    const broken = [[NaN, NaN]];
    await expect(evaluateSession(lookup('m', broken).session, rows([1], [0]))).rejects.toMatchObject({
      code: 'bad-input',
    });
    const after = await evaluateSessions([lookup('a', [[0, 1]]), lookup('b', broken)], rows([1], [1]));
    expect(after.evaluations[1].metric?.value).toBe(0);
  });

  it('says when the labels cannot be used', async () => {
    const map = [[1, 2, 3, 4]];
    const { metric, warnings } = await evaluateSession(lookup('m', map, [2, 2]).session, rows([1], [0]));
    expect(metric).toBeUndefined();
    expect(warnings.join()).toMatch(/labels were not used/);
  });
});

describe('without labels', () => {
  const original = [
    [3, 4],
    [0, 5],
    [2, 1],
  ];

  it('compares classifiers by agreement and signal to noise', async () => {
    const changed = [
      [3, 4],
      [0, 5],
      [1, 2],
    ];
    const { evaluations } = await evaluateSessions([lookup('a', original), lookup('b', changed)], rows([2, 1]));
    expect(evaluations[0]).toEqual({ metrics: [] });
    expect(evaluations[1].metric).toEqual({ name: 'agreement', value: 2 / 3, samples: 3 });
    expect(evaluations[1].metrics[0]).toMatchObject({ name: 'sqnrDb', samples: 3 });
    expect(evaluations[1].metrics[0].value).toBeCloseTo(10 * Math.log10((9 + 16 + 25 + 4 + 1) / 2), 10);
  });

  it('compares other outputs by signal to noise, with a ceiling for equal ones', async () => {
    const flat = [
      [0, 0],
      [0, 0],
      [0, 0],
    ];
    const shape = [1, 2];
    const { evaluations } = await evaluateSessions(
      [lookup('a', original, shape), lookup('b', original, shape), lookup('c', flat, shape)],
      rows([3]),
    );
    expect(evaluations[1].metric).toEqual({ name: 'sqnrDb', value: SQNR_CEILING_DB, samples: 3 });
    expect(evaluations[2].metric?.value).toBeCloseTo(0, 10);
    await expect(evaluateSessions([lookup('a', original, shape), lookup('b', original)], rows([3]))).rejects.toThrow(
      /cannot be compared/,
    );
  });

  it('leaves padding rows out of the noise', async () => {
    // Row 0 is fed three times; only the first counts, so the noise of one row stays the noise of one row.
    const shape = [1, 2];
    const changed = [
      [3, 5],
      [0, 5],
      [2, 1],
    ];
    const { evaluations } = await evaluateSessions(
      [lookup('a', original, shape), lookup('b', changed, shape)],
      rows([1, 2], undefined, 3),
    );
    expect(evaluations[1].metric?.value).toBeCloseTo(10 * Math.log10(55 / 1), 10);
  });

  it('takes flat images and embeddings for scores only where there are labels', async () => {
    const table = [
      [1, 2, 3],
      [3, 2, 1],
    ];
    const subjects = (output: string): Subject[] => [
      lookup('a', table, undefined, output),
      lookup('b', table, undefined, output),
    ];
    for (const [output, name] of [
      ['image', 'sqnrDb'],
      ['sentence_embedding', 'sqnrDb'],
      ['output_0', 'agreement'],
      ['image_logits', 'agreement'],
    ]) {
      const { evaluations } = await evaluateSessions(subjects(output), rows([2]));
      expect(evaluations[1].metric?.name).toBe(name);
    }
    const { evaluations } = await evaluateSessions(subjects('image'), rows([2], [2, 0]));
    expect(evaluations[1].metric).toMatchObject({ name: 'top1', value: 1 });
  });

  it('does not take a reconstruction for scores', async () => {
    const image = float([1, 4], [1, 2, 3, 4]);
    const mirror = (name: string): Subject => ({
      name,
      session: { outputs: [{ name: 'y', type: 'float32', dims: [] }], run: async ({ x }) => ({ y: x }) },
    });
    async function* one(): AsyncGenerator<Batch> {
      yield { feeds: { x: image }, size: 1 };
    }
    const { evaluations } = await evaluateSessions([mirror('a'), mirror('b')], one());
    expect(evaluations[1].metric?.name).toBe('sqnrDb');
    // With labels it may be a classifier with as many classes as features.
    async function* labelled(): AsyncGenerator<Batch> {
      yield { feeds: { x: image }, size: 1, labels: Int32Array.of(3) };
    }
    const { evaluations: judged } = await evaluateSessions([mirror('a')], labelled());
    expect(judged[0].metric).toEqual({ name: 'top1', value: 1, samples: 1 });
  });

  it('stops on abort', async () => {
    const controller = new AbortController();
    controller.abort();
    await expect(
      evaluateSession(lookup('m', original).session, rows([3]), { signal: controller.signal }),
    ).rejects.toMatchObject({ code: 'aborted' });
  });
});
