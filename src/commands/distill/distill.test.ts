import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { ModelProto } from 'onnx-buf';
import { openModel, saveModel } from '../../node/model-file.js';
import { Graph, rewrite } from '../../onnx/graph.js';
import type { ProgressEvent } from '../../progress.js';
import { writeNpz } from '../../data/npz-write.js';
import { tinyResNet } from '../../testing/tiny-models.js';
import { blockNet, chainNet, CLASSES, feedOf } from '../../testing/distillation-models.js';
import { run } from '../../testing/graph-writing.js';
import { npzOf } from '../../testing/tiny-net.js';
import { distillModel, type DistillInput } from './distill.js';

const SAMPLES = 120;
let folder: string;
const at = (name: string): string => join(folder, name);
const TEACHER = blockNet(3, 3, 1);

const options = (more: Partial<DistillInput> = {}): DistillInput => ({
  ...{ teacher: at('teacher.onnx'), data: at('data.npz'), output: at('out.onnx'), force: true },
  ...{ epochs: 3, batchSize: 16, latencyRuns: 2, threads: 1, lr: 0.005, calibSamples: 32, ...more },
});

const bytes = (name = 'out.onnx'): Promise<Buffer> => readFile(at(name));

/** The teacher's own classes of the samples, so that it is right everywhere. */
async function labelsBy(model: ModelProto): Promise<number[]> {
  const scores = await run(model, feedOf(model, SAMPLES));
  const data = Object.values(scores)[0]!.data as Float32Array;
  return Array.from({ length: SAMPLES }, (_, n) => {
    const row = data.subarray(n * CLASSES, (n + 1) * CLASSES);
    return row.indexOf(Math.max(...row));
  });
}

/** With a Softmax at its end. */
function withSoftmax(model: ModelProto): ModelProto {
  return rewrite(model, (graph: Graph) => {
    const [logits] = graph.outputs;
    const scores = graph.insertOp('Softmax', [logits!], [], 'probabilities');
    scores.info = { ...logits!.info!, name: scores.name };
    graph.outputs.splice(0, 1, scores);
  });
}

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'distill-'));
  const values = feedOf(TEACHER, SAMPLES).x!.data as Float32Array;
  const labels = await labelsBy(TEACHER);
  await writeFile(at('data.npz'), npzOf('x', [2, 4, 4], values, labels));
  await writeFile(at('unlabelled.npz'), npzOf('x', [2, 4, 4], values));
  await saveModel(TEACHER, at('teacher.onnx'));
  await saveModel(withSoftmax(TEACHER), at('softmax.onnx'));
  await saveModel(blockNet(1, 2, 2), at('student.onnx'));
  await saveModel(chainNet(4, 2), at('chain.onnx'));
});
afterAll(() => rm(folder, { recursive: true }));

describe('distillModel', () => {
  it('teaches a file with fad, and reports terms, layers, flow and fidelity', async () => {
    const { report } = await distillModel(at('student.onnx'), options({ runDir: at('run') }));
    expect(report.history.map(({ terms }) => Object.keys(terms!).sort())).toEqual(
      Array.from({ length: 3 }, () => ['answers', 'flow', 'task']),
    );
    expect(report.mapping).toHaveLength(1);
    expect(report.mapping![0]!.weight).toBeCloseTo(1, 9);
    expect(report.flow!.teacher).toHaveLength(3);
    expect(report.flow!.student).toHaveLength(1);
    expect(report.fidelity!.agreement).toBeGreaterThan(0.3);
    expect(report.before!.metric).toMatchObject({ name: 'top1', value: 1 });
    expect(report.settings).toMatchObject({ temperature: 4, select: 'all', flow: 'layers', mapping: 'cka' });
    expect(report.stages!.map(({ name }) => name)).toEqual(expect.arrayContaining(['train', 'flow', 'fidelity']));
    const { model } = await openModel(at('out.onnx'));
    expect(model.graph!.output.map(({ name }) => name)).toEqual(
      blockNet(1, 2, 2).graph!.output.map(({ name }) => name),
    );
    expect(model.graph!.node.map(({ opType }) => opType)).toEqual(
      blockNet(1, 2, 2).graph!.node.map(({ opType }) => opType),
    );
  });

  it('gives the same bytes for the same seed, and others for another', async () => {
    const made: Buffer[] = [];
    for (const seed of [1, 1, 2]) {
      await distillModel(at('student.onnx'), options({ seed, epochs: 1 }));
      made.push(await bytes());
    }
    expect(made[0]!.equals(made[1]!)).toBe(true);
    expect(made[0]!.equals(made[2]!)).toBe(false);
  });

  it('takes a model in memory and an architecture, which gets the inputs and classes of the teacher', async () => {
    const { report: inMemory } = await distillModel(blockNet(1, 2, 2), options({ epochs: 1 }));
    const first = await bytes();
    await distillModel(at('student.onnx'), options({ epochs: 1 }));
    expect(first.equals(await bytes())).toBe(true);
    expect(inMemory.after.bytes).toBe(first.length);
    const built = await distillModel('resnet8', options({ epochs: 1, width: 0.25, method: 'kd' }));
    const graph = new Graph(built.model);
    expect(graph.inputs.map(({ name }) => name)).toEqual(['x']);
    expect(built.report).toMatchObject({ student: 'resnet8', method: 'kd' });
    expect(built.report.mapping).toBeUndefined();
  });

  it('learns without labels from the answers alone, which come closer', async () => {
    for (const method of ['kd', 'fad']) {
      const { report } = await distillModel(
        at('student.onnx'),
        options({ data: at('unlabelled.npz'), method, epochs: 6, lr: 0.02 }),
      );
      const [first, last] = [report.history[0]!, report.history.at(-1)!];
      expect(last.terms!.answers!).toBeLessThan(0.8 * first.terms!.answers!);
      expect(report.training).toMatchObject({ metric: 'loss' });
      expect(Math.min(...report.history.map(({ score }) => score))).toBeLessThan(first.score);
      expect(report.after.metric).toMatchObject({ name: 'agreement' });
      expect(report.data!.labels).toBe(false);
    }
  });

  it('sees the same in a teacher with a softmax at its end', async () => {
    const without = await distillModel(at('student.onnx'), options({ epochs: 1 }));
    const expected = await bytes();
    const { report } = await distillModel(at('student.onnx'), options({ epochs: 1, teacher: at('softmax.onnx') }));
    expect((await bytes()).equals(expected)).toBe(true);
    expect(report.fidelity!.divergence).toBeCloseTo(without.report.fidelity!.divergence, 4);
    await distillModel(
      at('student.onnx'),
      options({ teacher: at('softmax.onnx'), data: at('unlabelled.npz'), epochs: 1 }),
    );
  });

  it('keeps answers for the next run, and gives the same with them as without', async () => {
    const augmented = { augment: ['flip' as const], rounds: 2, epochs: 4 };
    await distillModel(at('student.onnx'), options(augmented));
    const expected = await bytes();
    const kept = { ...augmented, cacheTeacher: at('answers') };
    for (let time = 0; time < 2; time++) {
      await distillModel(at('student.onnx'), options(kept));
      expect((await bytes()).equals(expected)).toBe(true);
    }
    expect((await readdir(at('answers'))).sort()).toEqual(['answers.json', 'round-0.f32', 'round-1.f32']);
    const record = 4 * (CLASSES + 1 + 1);
    const round = await bytes('answers/round-0.f32');
    expect(round.length % record).toBe(0);
    expect(round.length / record).toBeLessThanOrEqual(96);
    // Another draw of the changes is another set of answers.
    await expect(distillModel(at('student.onnx'), options({ ...kept, seed: 5 }))).rejects.toMatchObject({
      code: 'bad-input',
      message: expect.stringContaining('another teacher, other data or other options') as string,
    });
  });
  it('does not take answers about pixels that were read differently', async () => {
    const data = Uint8Array.from({ length: 60 * 192 }, (_, i) => (i * 37) % 251);
    await writeFile(at('pixels.npz'), writeNpz({ x: { type: 'uint8', dims: [60, 8, 8, 3], data } }));
    await saveModel(tinyResNet(), at('pixel-teacher.onnx'));
    const given = (mean: number): DistillInput =>
      options({
        ...{ teacher: at('pixel-teacher.onnx'), data: at('pixels.npz'), method: 'kd', epochs: 1 },
        ...{ cacheTeacher: at('of pixels'), preprocess: { mean: [mean, mean, mean], std: [0.25, 0.25, 0.25] } },
      });
    await distillModel(tinyResNet(17, 4), given(0.5));
    await distillModel(tinyResNet(17, 4), given(0.5));
    await expect(distillModel(tinyResNet(17, 4), given(0.4))).rejects.toMatchObject({
      message: expect.stringContaining('another teacher, other data or other options') as string,
    });
  });
});

describe('a distillation that was interrupted', () => {
  it.each<[string, string, Partial<DistillInput>]>([
    ['fad with selected layers', 'student.onnx', { select: 'selective' }],
    ['fad with maps that are fed', 'chain.onnx', { mapping: 'depth' }],
    ['fad along the depth, over parts of batches', 'student.onnx', { flow: 'integrated', accumulate: 2, batchSize: 8 }],
    ['fad with augmentation in rounds and kept answers', 'student.onnx', { augment: ['crop', 'flip'], rounds: 2 }],
    ['crd-lite with its projections', 'student.onnx', { method: 'crd-lite' }],
    ['fad without labels', 'chain.onnx', { data: 'unlabelled.npz' }],
  ])('goes on to the same bytes and terms: %s', async (name, student, more) => {
    const cached = more.rounds !== undefined;
    const given = (run: string): DistillInput =>
      options({
        ...{ epochs: 4, ...more, runDir: at(`${run} ${name}`) },
        ...(more.data !== undefined && { data: at(more.data) }),
        ...(cached && { cacheTeacher: at(`kept by ${run}`) }),
      });
    const whole = await distillModel(at(student), given('whole'));
    const expected = await bytes();
    await rm(at('out.onnx'));
    // In the middle of an epoch, then behind an evaluation.
    for (const stopAt of [8, 18]) {
      const abort = new AbortController();
      const stopped = distillModel(at(student), {
        ...given('part'),
        ...{ resume: stopAt > 8, signal: abort.signal },
        onProgress: ({ stage, done }: ProgressEvent) => {
          if (stage === 'train' && done === stopAt) abort.abort();
        },
      });
      await expect(stopped).rejects.toMatchObject({ code: 'aborted' });
    }
    expect(await readdir(folder)).not.toContain('out.onnx');
    const resumed = await distillModel(at(student), { ...given('part'), resume: true });
    expect((await bytes()).equals(expected)).toBe(true);
    const figures = ({ report }: typeof whole) => report.history.map(({ seconds: _, ...rest }) => rest);
    expect(figures(resumed)).toEqual(figures(whole));
    // A run that is finished says what it said.
    const again = await distillModel(at(student), { ...given('part'), resume: true });
    expect(again.report).toEqual(resumed.report);
  });
});
