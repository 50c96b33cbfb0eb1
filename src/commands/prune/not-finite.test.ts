/** A model that a cut leaves without finite answers is refused, by `prune` and by `compress`. */
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { ModelProto } from 'onnx-buf';
import { intAttribute } from '../../onnx/attributes.js';
import { makeTensor } from '../../onnx/tensor.js';
import { runOnce } from '../../runtime/run-once.js';
import { engine, info, op, tensorFeed, tinyModel } from '../../testing/graph-writing.js';
import { normals } from '../../testing/tiny-models.js';
import { npzOf } from '../../testing/tiny-net.js';
import { compressModel } from '../compress/compress.js';
import { pruneModel, type PruneInput } from './prune.js';

const WIDTH = 16;
const INPUTS = 12;

/**
 * 16 neurons, the first half of which have the smaller weights and hold a sum above 0 up; the other half pull it down. Without the
 * first half the root of the sum is not a number.
 */
function fragile(): ModelProto {
  const holds = (neuron: number): boolean => neuron < WIDTH / 2;
  const first = normals(WIDTH * INPUTS, 1).map((v, i) => v * (holds(Math.floor(i / INPUTS)) ? 0.01 : 0.2));
  const tensor = (name: string, dims: number[], data: Float32Array) => makeTensor(name, 1, dims, data);
  return tinyModel({
    inputs: [info('x', ['N', INPUTS])],
    outputs: [info('logits', ['N', 5])],
    nodes: [
      op('Gemm x w1 b1 -> h', [intAttribute('transB', 1)], 'first'),
      op('Relu h -> a'),
      op('Gemm a w2 -> s', [intAttribute('transB', 1)], 'second'),
      op('Sqrt s -> r'),
      op('Gemm r w3 b3 -> logits', [intAttribute('transB', 1)], 'head'),
    ],
    initializers: [
      tensor('w1', [WIDTH, INPUTS], first),
      tensor('b1', [WIDTH], new Float32Array(WIDTH).fill(1)),
      tensor(
        'w2',
        [8, WIDTH],
        normals(8 * WIDTH, 2).map((v, i) => (holds(i % WIDTH) ? 1 + 0.1 * v : -0.2)),
      ),
      tensor('w3', [5, 8], normals(40, 3)),
      tensor('b3', [5], normals(5, 4)),
    ],
  });
}

const MODEL = fragile();
let folder: string;
const at = (name: string): string => join(folder, name);

const common = () => ({
  ...{ data: at('data.npz'), output: at('out.onnx'), force: true, align: 4, threads: 1 },
  ...{ calibSamples: 48, probeSamples: 32, steps: 0, latencyRuns: 1 },
});
const prune = (more: Partial<PruneInput>) => pruneModel(MODEL, { ...common(), method: 'l1', ...more });

async function isFiniteOf(model: ModelProto): Promise<boolean> {
  const { logits } = await runOnce(engine, model, { x: tensorFeed([32, INPUTS]) });
  return [...(logits!.data as Float32Array)].every(Number.isFinite);
}

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'not-finite-'));
  await writeFile(at('data.npz'), npzOf('x', [INPUTS], normals(300 * INPUTS, 5)));
  expect(await isFiniteOf(MODEL)).toBe(true);
});
afterAll(() => rm(folder, { recursive: true }));

describe('a cut that leaves no finite answers', () => {
  it('is taken back, and the goal is not met by it', async () => {
    const refused = prune({ reduce: 0.5, cuts: 1, output: at('refused.onnx') });
    await expect(refused).rejects.toMatchObject({ code: 'infeasible' });
    expect((await readdir(folder)).filter((name) => name.includes('refused'))).toEqual([]);
    const { model, report } = await prune({ reduce: 0.5, cuts: 1, bestEffort: true });
    expect(await isFiniteOf(model)).toBe(true);
    // What is not finite is not told.
    const [first] = report.steps;
    expect(first).toMatchObject({ accepted: false });
    expect(first).not.toHaveProperty('cut');
    expect(report.budget!.met).toBe(false);
  });

  it('is named where only the drop is limited', async () => {
    await expect(prune({ maxDrop: 0.5, align: 8 })).rejects.toMatchObject({
      code: 'infeasible',
      message: expect.stringContaining('no finite numbers') as string,
    });
  });

  it('is not chosen where cuts are measured', async () => {
    const { model, report } = await prune({ method: 'idap', reduce: 0.3 });
    expect(await isFiniteOf(model)).toBe(true);
    expect(report.budget!.met).toBe(true);
  });

  it('is refused by compress, whose rule makes no other', async () => {
    const refused = compressModel(MODEL, {
      ...{ ...common(), output: at('refused.onnx'), execution: 'float' },
      ...{ method: 'sequential', sizeRatio: 1.5, reduce: 0.5 },
    });
    await expect(refused).rejects.toMatchObject({
      code: 'infeasible',
      message: expect.stringContaining('no finite numbers') as string,
    });
    expect((await readdir(folder)).filter((name) => name.includes('refused'))).toEqual([]);
  });
});
