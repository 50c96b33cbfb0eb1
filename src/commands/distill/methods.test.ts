import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { saveModel } from '../../node/model-file.js';
import { normals } from '../../testing/tiny-models.js';
import { npzOf } from '../../testing/tiny-net.js';
import { smallNetwork } from '../../testing/zoo-models.js';
import { distillModel, type DistillInput } from './distill.js';
import { trainModel } from '../train/train.js';

let folder: string;
const at = (name: string): string => join(folder, name);
const SIZE = 8;

/** Noise around a bright corner, the same one for all images of a class. */
function images(count: number, seed: number): { values: Float32Array; labels: number[] } {
  const labels = Array.from({ length: count }, (_, i) => i % 3);
  const values = normals(count * SIZE * SIZE, seed, 0.5).map((v, i) => {
    const [n, y, x] = [Math.floor(i / SIZE ** 2), Math.floor(i / SIZE) % SIZE, i % SIZE];
    const corner = (y < SIZE / 2 ? 0 : 2) + (x < SIZE / 2 ? 0 : 1);
    return v + (corner === labels[n] ? 1 : 0);
  });
  return { values, labels };
}

const network = (width: number) => smallNetwork('resnet8', { classes: 3, inputSize: SIZE, channels: 1, width });

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'methods-'));
  const [train, test] = [images(120, 1), images(30, 2)];
  await writeFile(at('train.npz'), npzOf('input', [1, SIZE, SIZE], train.values, train.labels));
  await writeFile(at('test.npz'), npzOf('input', [1, SIZE, SIZE], test.values, test.labels));
  await saveModel(network(0.5), at('big.onnx'));
  await saveModel(network(0.25), at('small.onnx'));
  await trainModel(at('big.onnx'), { ...common(), output: at('teacher.onnx'), epochs: 3, lr: 0.01 });
}, 60_000);

afterAll(() => rm(folder, { recursive: true }));

const common = () => ({
  ...{ data: at('train.npz'), test: at('test.npz'), force: true, threads: 1, batchSize: 12 },
  ...{ calibSamples: 32, latencyRuns: 1 },
});

const options = (more: Partial<DistillInput> = {}): DistillInput => ({
  ...common(),
  ...{ teacher: at('teacher.onnx'), output: at('out.onnx'), epochs: 3, lr: 0.01, ...more },
});

/** Aborts once an evaluation has been logged. */
function interrupted(more: Partial<DistillInput>): DistillInput {
  const controller = new AbortController();
  return options({
    ...more,
    signal: controller.signal,
    onProgress: ({ stage, done }) => {
      if (stage === 'train' && done >= 13) controller.abort();
    },
  });
}

describe('distillModel', () => {
  it.each<[string, Partial<DistillInput>, string[]]>([
    ['joint weighting', { weighting: 'joint' }, ['answers', 'flow', 'task']],
    ['variational weighting', { weighting: 'variational' }, ['answers', 'flow', 'task']],
    ['a memory bank', { method: 'crd' }, ['answers', 'contrast', 'task']],
    ['raised scores', { method: 'topkd' }, ['answers', 'task', 'top-k']],
  ])('goes on with %s to the same bytes as without an interruption', async (name, more, terms) => {
    const { report } = await distillModel(at('small.onnx'), options({ ...more, output: at('whole.onnx') }));
    expect(Object.keys(report.history[0]!.terms).sort()).toEqual(terms);
    expect(report.after.metric!.value).toBeGreaterThan(0.5);
    const runDir = at(`run-${name.replaceAll(' ', '-')}`);
    const parts = { ...more, output: at('parts.onnx'), runDir };
    await expect(distillModel(at('small.onnx'), interrupted(parts))).rejects.toMatchObject({ code: 'aborted' });
    await distillModel(at('small.onnx'), options({ ...parts, resume: true }));
    expect((await readFile(at('parts.onnx'))).equals(await readFile(at('whole.onnx')))).toBe(true);
  });

  it('learns otherwise by every weighting', async () => {
    const bytes = new Set<string>();
    for (const weighting of ['adaptive', 'joint', 'variational', 'fixed'] as const) {
      const { report } = await distillModel(at('small.onnx'), options({ weighting, epochs: 2 }));
      expect(report.settings).toMatchObject({ weighting });
      bytes.add((await readFile(at('out.onnx'))).toString('base64'));
    }
    expect(bytes.size).toBe(4);
  });

  it('needs other samples than those of a batch for a memory bank', async () => {
    const few = images(20, 3);
    await writeFile(at('few.npz'), npzOf('input', [1, SIZE, SIZE], few.values, few.labels));
    await expect(
      distillModel(at('small.onnx'), options({ method: 'crd', data: at('few.npz'), batchSize: 18 })),
    ).rejects.toMatchObject({
      code: 'unsupported',
      message: expect.stringContaining('beside those of a batch') as string,
    });
  });
});
