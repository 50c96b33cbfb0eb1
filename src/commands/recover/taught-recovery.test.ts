/** Teachings of distillation in a recovery, through `quantize` and `compress`. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { nodeEngine } from '../../node/onnxruntime.js';
import { Graph } from '../../onnx/graph.js';
import { toBytes } from '../../onnx/to-bytes.js';
import { runOnce } from '../../runtime/run-once.js';
import { argmax } from '../../runtime/scores.js';
import { floatStudent } from '../../recovery/float-student.js';
import { declareOutput, normals, tinyResNet } from '../../testing/tiny-models.js';
import { npzOf } from '../../testing/tiny-net.js';
import { quantizeModel, type QuantizeInput } from '../quantize/quantize.js';
import { pruneModel } from '../prune/prune.js';
import { tuitionByMethod } from './taught-recovery.js';
import { openWorkspace } from '../workspace.js';

let folder: string;
const at = (name: string): string => join(folder, name);
const [SIZE, SAMPLES] = [3 * 8 * 8, 240];
const MODEL = tinyResNet();
const engine = nodeEngine({ threads: 1 });

const quantize = (more: Partial<QuantizeInput>) =>
  quantizeModel(MODEL, {
    ...{ data: at('train.npz'), output: at('out.onnx'), force: true, threads: 1, latencyRuns: 2 },
    ...{ recoverBatchSize: 16, execution: 'float', ...more },
  });

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'taught-'));
  const values = normals(SAMPLES * SIZE, 1);
  const feeds = { x: { type: 'float32' as const, dims: [SAMPLES, 3, 8, 8], data: values } };
  const { logits } = await runOnce(engine, MODEL, feeds);
  const own = Array.from({ length: SAMPLES }, (_, i) => argmax(logits!.data, 5 * i, 5));
  await writeFile(at('train.npz'), npzOf('x', [3, 8, 8], values, own));
  // Labels that contradict the model: 0 and 1 change places.
  const swapped = own.map((label) => (label < 2 ? 1 - label : label));
  await writeFile(at('swapped.npz'), npzOf('x', [3, 8, 8], values, swapped));
  await writeFile(at('bare.npz'), npzOf('x', [3, 8, 8], values));
});
afterAll(() => rm(folder, { recursive: true }));

describe('--teaching', () => {
  it.each(['kd', 'fad', 'crd'] as const)(
    '%s brings a rounded model nearer to the original, the same way every time',
    async (teaching) => {
      const options = { bits: 2, edgeBits: 2, recover: 16, recoverLr: 3e-3, teaching };
      const first = await quantize(options);
      const { recovery, settings } = first.report;
      expect(recovery!.after.divergence).toBeLessThan(recovery!.before.divergence);
      expect(recovery!.bestStep).toBeGreaterThan(0);
      expect(settings).toMatchObject({ teaching, temperature: 4 });
      expect(settings).not.toHaveProperty('hintWeight');
      const again = await quantize(options);
      expect(toBytes(again.model)).toEqual(toBytes(first.model));
      const others = await quantize({ ...options, teaching: 'answers', temperature: 4 });
      expect(toBytes(others.model)).not.toEqual(toBytes(first.model));
    },
  );

  it('int8-qat follows the labels away from the original, and needs none', async () => {
    const { report } = await quantize({ data: at('swapped.npz'), method: 'int8-qat', recover: 60, recoverLr: 1e-2 });
    const { before, after } = report.recovery!;
    expect(report.settings).toMatchObject({ teaching: 'labels' });
    expect(after.top1!).toBeGreaterThan(before.top1! + 0.1);
    expect(after.divergence).toBeGreaterThan(before.divergence);
    expect(report.recovery!.points.every(({ divergence }) => divergence > before.divergence)).toBe(true);
    expect(report.layers.every(({ bits }) => bits >= 7)).toBe(true);
    const bare = await quantize({ data: at('bare.npz'), method: 'int8-qat', recover: 2 });
    expect(bare.report.settings).toMatchObject({ teaching: 'answers' });
  });

  it('fad and crd teach a cut model', async () => {
    for (const teaching of ['fad', 'crd'] as const) {
      const { report } = await pruneModel(tinyResNet(17, 16), {
        ...{ data: at('train.npz'), output: at('cut.onnx'), force: true, threads: 1, latencyRuns: 2, teaching },
        ...{ reduce: 0.4, align: 4, steps: 16, batchSize: 16, lr: 3e-3, probeSamples: 16 },
      });
      expect(report.recovery!.after.divergence, teaching).toBeLessThan(report.recovery!.before.divergence);
      expect(report.settings).toMatchObject({ teaching, temperature: 4 });
    }
  });

  it('fad holds the flow of every block that is left against that of the same block', async () => {
    const workspace = await openWorkspace(MODEL, { ...OPTIONS, data: at('train.npz') });
    try {
      const student = floatStudent(MODEL);
      const request = { workspace, teacher: MODEL, plain: MODEL, temperature: 4, batchSize: 16, seed: 0 };
      const tuition = await tuitionByMethod({ ...request, name: 'fad' }, student.model, {});
      // Answers, and the flow of one residual block.
      expect(tuition.hints).toHaveLength(2);
      expect(tuition.loss).toBe('cross-entropy');
      expect(tuition.parameters).toEqual([]);
      await tuition.release();
      const contrast = await tuitionByMethod({ ...request, name: 'crd' }, student.model, {});
      expect(contrast.parameters.length).toBe(2);
      // In units of their own size.
      const graph = new Graph(contrast.model);
      for (const { name, size } of contrast.parameters) {
        const values = graph.mustGet(name).initializer!;
        expect(
          Math.abs(Math.hypot(...new Float32Array(values.rawData.slice().buffer)) / Math.sqrt(size) - 1),
        ).toBeLessThan(1e-3);
      }
      await contrast.release();
    } finally {
      await workspace.close();
    }
  });

  it.each<[string, Partial<QuantizeInput>, RegExp]>([
    ['a name that is none', { recover: 2, teaching: 'fadd' as never }, /unknown teaching "fadd" .did you mean fad\?/],
    [
      'weighed hints beside another teaching',
      { recover: 2, teaching: 'kd', hintWeight: 3 },
      /belongs to --teaching hints/,
    ],
    ['labels that are not there', { recover: 2, teaching: 'labels', data: 'bare.npz' }, /no labels to learn from/],
    ['training without updates', { method: 'int8-qat', recover: 0 }, /trains what it rounded/],
    ['training at several widths', { method: 'int8-qat', sweep: [3] }, /trains what it rounded/],
    ['an unknown method by its nearest', { method: 'hawk' }, /unknown method "hawk" .did you mean hawq\?/],
  ])('refuses %s', async (_, more, message) => {
    const data = more.data === undefined ? {} : { data: at(more.data) };
    await expect(quantize({ ...more, ...data })).rejects.toMatchObject({
      code: 'bad-input',
      message: expect.stringMatching(message) as string,
    });
  });

  it('refuses what takes class scores for a model that gives none', async () => {
    const plain = new Graph(MODEL);
    plain.outputs.splice(0);
    declareOutput(plain, plain.mustGet('block.out'), ['N', 8, 8, 8]);
    plain.removeDead();
    await expect(
      quantizeModel(plain.toModel(), { data: at('bare.npz'), output: at('none.onnx'), recover: 2, teaching: 'fad' }),
    ).rejects.toMatchObject({ code: 'unsupported', message: expect.stringContaining('one of class scores') as string });
  });
});

const OPTIONS = { seed: 0, target: 'cpu' as const, calibSamples: 64, batchSize: 32, preprocess: {}, threads: 1 };
