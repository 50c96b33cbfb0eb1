import { describe, expect, it } from 'vitest';
import type { ModelProto } from 'onnx-buf';
import type { Batch } from '../data/dataset.js';
import { nodeEngine } from '../node/onnxruntime.js';
import { pickRows } from '../runtime/rows.js';
import { declareOutput, normals, startGraph, weight } from '../testing/tiny-models.js';
import { convNet } from '../testing/tiny-net.js';
import { measureFidelities, measureFidelity, type FidelityRequest } from './fidelity.js';

const engine = nodeEngine({ threads: 1 });
const WIDTH = 6;

interface ClassifierSpec {
  readonly seed: number;
  readonly classes?: number;
  readonly output?: string;
  readonly softmax?: boolean;
  readonly scale?: number;
  readonly inputs?: number;
}

/** x [N, 6] -> MatMul, Relu, MatMul -> scores. */
function classifier({ seed, classes = 4, output = 'scores', softmax = false, scale = 1 }: ClassifierSpec): ModelProto {
  const { graph, x } = startGraph(17, ['N', WIDTH]);
  const hidden = graph.insertOp(
    'Relu',
    [graph.insertOp('MatMul', [x, weight(graph, 'w1', [WIDTH, 5], seed, scale)])],
    [],
    'hidden',
  );
  const logits = graph.insertOp(
    'MatMul',
    [hidden, weight(graph, 'w2', [5, classes], seed + 1, scale)],
    [],
    softmax ? 'logits' : output,
  );
  declareOutput(graph, softmax ? graph.insertOp('Softmax', [logits], [], output) : logits, ['N', classes]);
  return graph.toModel();
}

const SAMPLES = 50;
const inputs = normals(SAMPLES * WIDTH, 77);
const classes = Array.from({ length: SAMPLES }, (_, i) => (i * 7) % 4);

function batchesOf(size: number, labelled = true): () => AsyncGenerator<Batch> {
  return async function* () {
    for (let from = 0; from < SAMPLES; from += size) {
      const count = Math.min(size, SAMPLES - from);
      const data = inputs.slice(from * WIDTH, (from + count) * WIDTH);
      yield await Promise.resolve({
        ...{ size: count, feeds: { x: { type: 'float32' as const, dims: [count, WIDTH], data } } },
        ...(labelled && { labels: Int32Array.from(classes.slice(from, from + count)) }),
      });
    }
  };
}

async function probabilities(model: ModelProto, samples = SAMPLES): Promise<number[][]> {
  const { toBytes } = await import('../onnx/to-bytes.js');
  const session = await engine.createSession(toBytes(model));
  const { data, dims } = Object.values(
    await session.run({ x: { type: 'float32', dims: [samples, WIDTH], data: inputs.slice(0, samples * WIDTH) } }),
  )[0];
  await session.release();
  return Array.from({ length: samples }, (_, i) => {
    const row = [...(data as Float32Array).subarray(i * dims[1], (i + 1) * dims[1])].map(Math.exp);
    return row.map((v) => v / row.reduce((a, b) => a + b, 0));
  });
}

const request = (rest: Partial<FidelityRequest> = {}): FidelityRequest => ({
  ...{ engine, teacher: classifier({ seed: 1 }), student: classifier({ seed: 1, scale: 0.4 }) },
  ...{ scores: { teacher: 'scores', student: 'scores' }, batches: batchesOf(8), split: 'val', samples: SAMPLES },
  ...rest,
});

describe('measureFidelity', () => {
  it('finds nothing missing in the teacher itself', async () => {
    const teacher = classifier({ seed: 1 });
    const fidelity = await measureFidelity(request({ teacher, student: teacher }));
    expect(fidelity).toMatchObject({
      ...{ split: 'val', samples: SAMPLES, measure: 'kl', divergence: 0, agreement: 1, agreementWhenRight: 1 },
      ...{ confidence: 1, probed: SAMPLES },
    });
    expect(fidelity.cka).toBeCloseTo(1, 10);
    expect(fidelity.informationKept).toBeGreaterThan(0.99);
    expect(fidelity.geometry!.student).toEqual(fidelity.geometry!.teacher);
    expect(fidelity.geometry!.teacher).toMatchObject({ features: 5, separability: expect.any(Number) as number });
  });

  it('has the figures of their definitions, under other names and with probabilities on one side', async () => {
    const teacher = classifier({ seed: 1, scale: 0.4 });
    for (const softmax of [false, true]) {
      const student = classifier({ seed: 5, scale: 0.5, output: 'answer', softmax });
      const [p, q] = [await probabilities(teacher), await probabilities(classifier({ seed: 5, scale: 0.5 }))];
      const top = (row: number[]): number => row.indexOf(Math.max(...row));
      const mean = (of: (i: number) => number): number => p.reduce((sum, _, i) => sum + of(i), 0) / SAMPLES;
      const scores = { teacher: 'scores', student: 'answer' };
      const fidelity = await measureFidelity(request({ teacher, student, scores, split: 'test' }));
      expect(fidelity.split).toBe('test');
      expect(fidelity.divergence).toBeCloseTo(
        mean((i) => p[i].reduce((sum, v, c) => sum + v * Math.log(v / q[i][c]), 0)),
        5,
      );
      expect(fidelity.agreement).toBe(mean((i) => Number(top(p[i]) === top(q[i]))));
      const right = p.flatMap((row, i) => (top(row) === classes[i] ? [i] : []));
      expect(fidelity.agreementWhenRight).toBe(right.filter((i) => top(q[i]) === classes[i]).length / right.length);
      expect(fidelity.confidence).toBeCloseTo(1 - Math.abs(mean((i) => p[i][classes[i]] - q[i][classes[i]])), 6);
      expect(fidelity.cka).toBeLessThan(0.99);
    }
  });

  it('does not depend on how the samples come in batches, reads them once and needs no labels', async () => {
    const whole = await measureFidelity(request({ batches: batchesOf(SAMPLES) }));
    let passes = 0;
    const counted = (): AsyncGenerator<Batch> => {
      passes++;
      return batchesOf(7)();
    };
    const parts = await measureFidelity(request({ batches: counted }));
    expect(passes).toBe(1);
    expect(parts.divergence).toBeCloseTo(whole.divergence, 6);
    expect(parts.cka).toBeCloseTo(whole.cka!, 6);
    expect(parts.geometry!.student.effectiveRank).toBeCloseTo(whole.geometry!.student.effectiveRank, 5);
    expect(parts.agreement).toBe(whole.agreement);
    const { agreementWhenRight, confidence, geometry, ...rest } = await measureFidelity(
      request({ batches: batchesOf(7, false) }),
    );
    expect([agreementWhenRight, confidence, geometry!.teacher.separability]).toEqual([undefined, undefined, undefined]);
    expect(rest.agreement).toBe(whole.agreement);
  });

  it('leaves the rows out that only fill a batch up', async () => {
    const [fixed, free] = [convNet(4), convNet()];
    const images = normals(10 * 192, 5);
    const padded = async function* (): AsyncGenerator<Batch> {
      for (const [from, count] of [
        [0, 4],
        [4, 4],
        [8, 2],
      ] as const) {
        const data = new Float32Array(4 * 192).fill(9);
        data.set(images.subarray(from * 192, (from + count) * 192));
        yield await Promise.resolve({ feeds: { image: { type: 'float32', dims: [4, 3, 8, 8], data } }, size: count });
      }
    };
    const plain = async function* (): AsyncGenerator<Batch> {
      yield await Promise.resolve({
        feeds: { image: { type: 'float32', dims: [10, 3, 8, 8], data: images } },
        size: 10,
      });
    };
    const other = (batch?: number): ModelProto => {
      const model = batch === undefined ? convNet() : convNet(batch);
      const tensor = model.graph!.initializer.find(({ name }) => name === 'w1')!;
      tensor.rawData = new Uint8Array(normals(4 * 27, 8).slice().buffer);
      return model;
    };
    const scores = { teacher: 'scores', student: 'scores' };
    const common = { engine, scores, split: 'val' as const, samples: 10 };
    const a = await measureFidelity({ ...common, teacher: fixed, student: other(4), batches: padded });
    const b = await measureFidelity({ ...common, teacher: free, student: other(), batches: plain });
    expect(a).toMatchObject({ samples: 10, probed: 10, agreement: b.agreement });
    expect(a.divergence).toBeGreaterThan(1e-3);
    expect(a.divergence).toBeCloseTo(b.divergence, 5);
    expect(a.cka).toBeCloseTo(b.cka!, 5);
    expect(a.informationKept).toBeCloseTo(b.informationKept!, 4);
  });

  it('spreads the probed samples over the split, and takes the first ones of an unknown number', async () => {
    // Sorted by class: the first 512 samples are of one class.
    const total = 1500;
    const sorted = async function* (): AsyncGenerator<Batch> {
      for (let from = 0; from < total; from += 100) {
        const data = normals(100 * WIDTH, from + 1);
        yield await Promise.resolve({
          ...{ size: 100, feeds: { x: { type: 'float32' as const, dims: [100, WIDTH], data } } },
          labels: Int32Array.from({ length: 100 }, (_, i) => Math.floor((from + i) / 750)),
        });
      }
    };
    const first = await measureFidelity({ ...request({ batches: sorted }), samples: undefined });
    expect(first).toMatchObject({ samples: total, probed: 512 });
    expect(first.geometry!.teacher.separability).toBe(0);
    const spread = await measureFidelity(request({ batches: sorted, samples: total }));
    expect(spread.probed).toBe(512);
    expect(spread.geometry!.teacher.separability).toBeGreaterThan(0);
    const picked = async function* (): AsyncGenerator<Batch> {
      let before = 0;
      for await (const { feeds, labels } of sorted()) {
        const rows = Array.from({ length: 100 }, (_, i) => i).filter(
          (i) => Math.floor(((before + i + 1) * 512) / total) > Math.floor(((before + i) * 512) / total),
        );
        yield { feeds: pickRows(feeds, rows), size: rows.length, labels: Int32Array.from(rows, (row) => labels![row]) };
        before += 100;
      }
    };
    const alone = await measureFidelity(request({ batches: picked, samples: 512 }));
    expect(alone.geometry).toEqual(spread.geometry);
    expect(alone.cka).toBe(spread.cka);
  });

  it('holds other outputs against each other where scores are missing', async () => {
    const teacher = classifier({ seed: 1 });
    const twice = classifier({ seed: 1, output: 'other' });
    const tensor = twice.graph!.initializer.find(({ name }) => name === 'w2')!;
    const values = new Float32Array(tensor.rawData.slice().buffer);
    tensor.rawData = new Uint8Array(values.map((v) => 1.5 * v).buffer);
    const fidelity = await measureFidelity(request({ teacher, student: twice, scores: { teacher: 'scores' } }));
    expect(fidelity).toMatchObject({ measure: 'relative-error', divergence: expect.closeTo(0.25, 5) as number });
    expect(fidelity).not.toHaveProperty('agreement');
    expect(fidelity.cka).toBeCloseTo(1, 10);
  });

  it('has no figures of features for a handful of samples or models without layers', async () => {
    const few = async function* (): AsyncGenerator<Batch> {
      for await (const batch of batchesOf(4)()) return yield batch;
    };
    expect(Object.keys(await measureFidelity(request({ batches: few, samples: 4 })))).not.toContain('cka');
    const { graph, x } = startGraph(17, ['N', WIDTH]);
    declareOutput(graph, graph.insertOp('Relu', [x], [], 'scores'), ['N', WIDTH]);
    const plain = graph.toModel();
    const fidelity = await measureFidelity(request({ teacher: plain, student: plain }));
    expect(fidelity.divergence).toBe(0);
    expect(fidelity).not.toHaveProperty('geometry');
  });

  it('measures several students against a teacher that runs once', async () => {
    const teacher = { model: classifier({ seed: 1 }), scores: 'scores' };
    const students = [0.4, 0.7].map((scale) => ({ model: classifier({ seed: 1, scale }), scores: 'scores' }));
    const all = await measureFidelities({ ...request(), teacher, students });
    for (const [i, { model }] of students.entries())
      expect(all[i]).toEqual(await measureFidelity(request({ student: model })));
  });

  it('refuses what cannot be compared, and ends on abort', async () => {
    const refuse = (rest: Partial<FidelityRequest>) => expect(measureFidelity(request(rest))).rejects;
    await refuse({ student: classifier({ seed: 1, classes: 3 }) }).toMatchObject({
      ...{ code: 'bad-input', node: 'the student' },
      message: expect.stringMatching(/the teacher has 4 classes, the student has 3/) as string,
    });
    await refuse({ student: classifier({ seed: 1, classes: 3 }), scores: {} }).toThrow(
      /scores float32 \[8, 4\].*\[8, 3\]/,
    );
    await refuse({ student: classifier({ seed: 1, scale: NaN }) }).toThrow(/not all finite/);
    await refuse({ teacher: classifier({ seed: 1, scale: NaN }), scores: {} }).toThrow(/not all finite/);
    await refuse({ batches: async function* () {} }).toThrow(/no samples/);
    const labelled = async function* (): AsyncGenerator<Batch> {
      for await (const batch of batchesOf(8)()) yield { ...batch, labels: batch.labels!.map((label) => label + 2) };
    };
    await refuse({ batches: labelled }).toThrow(/label [45] .* 4 classes/);
    const controller = new AbortController();
    const onProgress = ({ done }: { done: number }): void => {
      if (done > 8) controller.abort();
    };
    await expect(measureFidelity(request(), { signal: controller.signal, onProgress })).rejects.toMatchObject({
      code: 'aborted',
    });
  });
});
