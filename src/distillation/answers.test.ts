import { describe, expect, it } from 'vitest';
import { blockNet, CLASSES, feedOf } from '../testing/distillation-models.js';
import { engine, run } from '../testing/graph-writing.js';
import { rewrite } from '../onnx/graph.js';
import { exposeValue } from '../runtime/trace.js';
import type { FedBatch } from '../training/trainer.js';
import { answersInMemory, openAnswers, type AnswerStore } from './answers.js';

const SAMPLES = 8;
const teacher = blockNet(1, 2, 1);
const logits = teacher.graph!.output[0]!.name;
const inner = teacher.graph!.node.find(({ opType }) => opType === 'Relu')!.output[0]!;
const all = feedOf(teacher, SAMPLES).x!;
const row = all.data.length / SAMPLES;

/** Those samples, changed by the round. */
function fed(indices: readonly number[], round: number): FedBatch {
  const data = new Float32Array(indices.length * row);
  indices.forEach((index, n) => {
    data.set((all.data as Float32Array).subarray(index * row, (index + 1) * row), n * row);
  });
  const x = {
    type: 'float32' as const,
    dims: [indices.length, ...all.dims.slice(1)],
    data: data.map((v) => v + round),
  };
  return { feeds: { x }, indices, round, epoch: 0, share: 0 };
}

/** Both values straight from the model. */
async function said(batch: FedBatch): Promise<number[][]> {
  const open = rewrite(teacher, (graph) => {
    exposeValue(graph, graph.mustGet(inner));
  });
  const results = await run(open, batch.feeds);
  return [logits, inner].map((name) => [...(results[name]!.data as Float32Array)]);
}

async function check(found: readonly { readonly data: unknown; readonly dims: readonly number[] }[], batch: FedBatch) {
  const wanted = await said(batch);
  const samples = batch.indices.length;
  expect(found.map(({ dims }) => dims)).toEqual([
    [samples, CLASSES],
    [samples, 2, 4, 4],
  ]);
  found.forEach(({ data }, i) => {
    [...(data as Float32Array)].forEach((v, k) => {
      expect(v).toBeCloseTo(wanted[i]![k]!, 4);
    });
  });
}

describe('openAnswers', () => {
  it('asks once per sample and round, and gives the same for the same samples in any order', async () => {
    const widths: number[] = [];
    const answers = await openAnswers(engine, teacher, [logits, inner], (width) => {
      widths.push(width);
      return Promise.resolve(answersInMemory(2, SAMPLES, width));
    });
    for (const [order, round, asked] of [
      [[0, 1, 2, 3], 0, 1],
      [[4, 5, 6, 7], 0, 2],
      [[6, 0, 3, 5], 0, 2],
      [[6, 0, 3, 5], 1, 3],
      [[7, 4, 2, 1], 1, 4],
      [[0, 1, 2, 3], 1, 4],
      [[2, 2, 2, 2], 0, 4],
    ] as const) {
      const batch = fed(order, round);
      await check(await answers.of(batch), batch);
      expect(answers.asked).toBe(asked);
    }
    expect(widths).toEqual([CLASSES + 32]);
    await answers.release();
  });

  it('asks about a batch of which one sample is missing, and knows all of it then', async () => {
    const answers = await openAnswers(engine, teacher, [logits, inner], (width) =>
      Promise.resolve(answersInMemory(1, SAMPLES, width)),
    );
    for (const [order, asked] of [
      [[0, 1, 2], 1],
      [[2, 1, 5], 2],
      [[5, 0, 1], 2],
    ] as const) {
      const batch = fed(order, 0);
      await check(await answers.of(batch), batch);
      expect(answers.asked).toBe(asked);
    }
    await answers.release();
  });

  it('keeps nothing of rounds below 0, and nothing without room', async () => {
    for (const room of [true, false]) {
      const written: number[] = [];
      const store: AnswerStore = {
        read: () => Promise.resolve(false),
        write: (round) => Promise.resolve(void written.push(round)),
      };
      const answers = await openAnswers(engine, teacher, [logits, inner], () =>
        Promise.resolve(room ? store : undefined),
      );
      for (const round of [-1, 0, -1]) {
        const batch = fed([0, 1], round);
        await check(await answers.of(batch), batch);
      }
      expect(answers.asked).toBe(3);
      expect(written).toEqual(room ? [0] : []);
      await answers.release();
    }
  });

  it('asks once for one batch, however often it is named, and not at all for no values', async () => {
    const answers = await openAnswers(engine, teacher, [logits, inner]);
    const batch = fed([1, 2], 0);
    expect(await answers.of(batch)).toBe(await answers.of(batch));
    expect(answers.asked).toBe(1);
    await answers.release();
  });
});

describe('answersInMemory', () => {
  it('is not there for more than 256 MB', () => {
    expect(answersInMemory(1, 1000, 64_000)).toBeDefined();
    expect(answersInMemory(1, 1000, 64_001)).toBeUndefined();
    expect(answersInMemory(2, 1000, 64_000)).toBeUndefined();
  });
});
