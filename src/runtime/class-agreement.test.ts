import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { Batch } from '../data/dataset.js';
import { compareAnswers, type AnswerComparison } from './class-agreement.js';
import type { HostTensor, Session } from './engine.js';

const CLASSES = 3;

/** A session that gives the rows of a table of scores, told by the first value of every sample. */
function tableOf(scores: readonly (readonly number[])[]): Pick<Session, 'run'> {
  return {
    run: (feeds) => {
      const rows = Array.from(feeds['x']!.data as Float32Array);
      const data = Float32Array.from(rows.flatMap((row) => scores[row]!));
      const tensor: HostTensor = { type: 'float32', dims: [rows.length, CLASSES], data };
      return Promise.resolve({ scores: tensor });
    },
  };
}

async function* batchesOf(count: number, size: number, labels?: readonly number[]): AsyncGenerator<Batch> {
  for (let from = 0; from < count; from += size) {
    const rows = Array.from({ length: Math.min(size, count - from) }, (_, i) => from + i);
    const data = Float32Array.from(rows);
    yield await Promise.resolve({
      size: rows.length,
      feeds: { x: { type: 'float32' as const, dims: [rows.length, 1], data } },
      ...(labels && { labels: Int32Array.from(rows, (row) => labels[row]!) }),
    });
  }
}

const compare = (
  before: readonly (readonly number[])[],
  after: readonly (readonly number[])[],
  labels?: readonly number[],
  size = 4,
): Promise<AnswerComparison> =>
  compareAnswers({
    ...{ original: tableOf(before), changed: tableOf(after), scores: 'scores', worst: 2 },
    ...{ batches: batchesOf(before.length, size, labels), samples: before.length },
  });

const logits = fc.array(fc.float({ min: -5, max: 5, noNaN: true }), { minLength: CLASSES, maxLength: CLASSES });
const top = (row: readonly number[]): number => row.indexOf(Math.max(...row));

function kl(a: readonly number[], b: readonly number[]): number {
  const softmax = (row: readonly number[]): number[] => {
    const powers = row.map((v) => Math.exp(v));
    const sum = powers.reduce((x, y) => x + y, 0);
    return powers.map((p) => p / sum);
  };
  const [p, q] = [softmax(a), softmax(b)];
  return p.reduce((sum, v, c) => sum + v * Math.log(v / q[c]!), 0);
}

describe('compareAnswers', () => {
  it('counts by class and finds the samples that differ most, however they come in batches', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.tuple(logits, logits, fc.nat(CLASSES - 1)), { minLength: 1, maxLength: 20 }),
        fc.integer({ min: 1, max: 7 }),
        async (samples, size) => {
          const [before, after] = [samples.map(([a]) => a), samples.map(([, b]) => b)];
          const labels = samples.map(([, , label]) => label);
          const { classes, worst } = await compare(before, after, labels, size);
          for (let c = 0; c < CLASSES; c++) {
            const own = samples.filter(([a]) => top(a) === c);
            const named = samples.filter(([, , label]) => label === c);
            const row = classes.find((one) => one.class === c);
            if (own.length + named.length === 0) {
              expect(row).toBeUndefined();
              continue;
            }
            expect(row!.samples).toBe(own.length);
            if (own.length > 0)
              expect(row!.agreement).toBeCloseTo(own.filter(([, b]) => top(b) === c).length / own.length, 12);
            if (named.length > 0)
              expect(row!.labelled).toEqual({
                samples: named.length,
                before: named.filter(([a]) => top(a) === c).length / named.length,
                after: named.filter(([, b]) => top(b) === c).length / named.length,
              });
          }
          const divergences = samples.map(([a, b]) => kl(a, b)).sort((x, y) => y - x);
          expect(worst.length).toBe(Math.min(2, samples.length));
          worst.forEach((one, i) => {
            expect(one.divergence).toBeCloseTo(divergences[i]!, 5);
            expect(one.divergence).toBeCloseTo(kl(before[one.index]!, after[one.index]!), 5);
            expect(one.label).toBe(labels[one.index]);
            expect([one.original.class, one.changed.class]).toEqual([top(before[one.index]!), top(after[one.index]!)]);
            const powers = before[one.index]!.map((v) => Math.exp(v));
            expect(one.original.probability).toBeCloseTo(Math.max(...powers) / powers.reduce((x, y) => x + y, 0), 5);
          });
        },
      ),
    );
  });

  it('leaves out what only labels tell', async () => {
    const { classes, worst } = await compare([[1, 0, 0]], [[0, 1, 0]]);
    expect(classes).toEqual([{ class: 0, samples: 1, agreement: 0 }]);
    expect(worst[0]).not.toHaveProperty('label');
  });

  it('counts an answer that is no number as a difference, and shows it first', async () => {
    const { classes, worst } = await compare(
      [
        [1, 0, 0],
        [1, 0, 0],
      ],
      [
        [0, 5, 0],
        [NaN, 0, 0],
      ],
    );
    expect(classes).toEqual([{ class: 0, samples: 2, agreement: 0 }]);
    expect(worst[0]).toMatchObject({ index: 1, divergence: Infinity, changed: { class: -1, probability: 0 } });
  });
});
