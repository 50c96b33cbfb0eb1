import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { ModelProto } from 'onnx-buf';
import { openModel, saveModel } from '../../node/model-file.js';
import { makeTensor, readFloats } from '../../onnx/tensor.js';
import { info, op, tinyModel } from '../../testing/graph-writing.js';
import { normals } from '../../testing/tiny-models.js';
import { npzOf } from '../../testing/tiny-net.js';
import type { WandbSdk } from '../../node/wandb.js';
import { trainModel, type TrainInput } from './train.js';

let folder: string;
const at = (name: string): string => join(folder, name);

/** Softmax of a linear map that starts at zero: three classes of four numbers. */
function classifier(batch: number | string): ModelProto {
  return tinyModel({
    inputs: [info('x', [batch, 4])],
    outputs: [info('probabilities', [batch, 3])],
    nodes: [op('Gemm x w b -> z'), op('Softmax z -> probabilities')],
    initializers: [makeTensor('w', 1, [4, 3], new Float32Array(12)), makeTensor('b', 1, [3], new Float32Array(3))],
  });
}

/** Numbers around a centre of their class. */
function samples(count: number, seed: number): { values: Float32Array; labels: number[] } {
  const labels = Array.from({ length: count }, (_, i) => i % 3);
  const noise = normals(4 * count, seed, 0.5);
  return { labels, values: noise.map((v, i) => v + (i % 4 === labels[Math.floor(i / 4)]! ? 2 : 0)) };
}

const options = (more: Partial<TrainInput> = {}): TrainInput => ({
  ...{ data: at('train.npz'), test: at('test.npz'), output: at('out.onnx'), force: true },
  ...{ epochs: 4, batchSize: 16, lr: 0.05, latencyRuns: 2, ...more },
});

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'train-'));
  const [train, test] = [samples(240, 1), samples(90, 2)];
  await writeFile(at('train.npz'), npzOf('x', [4], train.values, train.labels));
  await writeFile(at('test.npz'), npzOf('x', [4], test.values, test.labels));
  await writeFile(at('unlabelled.npz'), npzOf('x', [4], train.values));
  await saveModel(classifier('N'), at('free.onnx'));
  await saveModel(classifier(1), at('fixed.onnx'));
});

afterAll(() => rm(folder, { recursive: true }));

describe('trainModel', () => {
  it('learns through the softmax at the end, and writes the model that it measured', async () => {
    const { report } = await trainModel(at('free.onnx'), options());
    expect(report.before?.metric?.value).toBeCloseTo(1 / 3, 1);
    expect(report.after.metric).toMatchObject({ name: 'top1', split: 'test' });
    expect(report.after.metric!.value).toBeGreaterThan(0.9);
    expect(report.history.map(({ epoch }) => epoch)).toEqual([1, 2, 3, 4]);
    expect(report.training).toMatchObject({ parameters: 15, epochs: 4, stopped: 'epochs' });
    const { model } = await openModel(at('out.onnx'));
    expect(model.graph!.node.map(({ opType }) => opType)).toEqual(['Gemm', 'Softmax']);
    const weights = readFloats(model.graph!.initializer.find(({ name }) => name === 'w')!);
    expect(Math.max(...weights)).toBeGreaterThan(0.1);
  });

  it.each<[string, string, Partial<TrainInput>, RegExp, RegExp]>([
    ['a model of fixed batches', 'fixed.onnx', {}, /batches of 1 only/, /free batch dimension/],
  ])('refuses %s, and writes nothing', async (_, model, more, message, hint) => {
    const output = at('refused.onnx');
    const data = more.data === undefined ? {} : { data: at(more.data) };
    await expect(trainModel(at(model), options({ ...more, ...data, output }))).rejects.toMatchObject({
      code: 'unsupported',
      message: expect.stringMatching(message) as string,
      hint: expect.stringMatching(hint) as string,
    });
    expect((await readdir(folder)).filter((name) => name.startsWith('refused'))).toEqual([]);
  });

  it('leaves the statistics of a trained file alone, unless told otherwise', async () => {
    const vector = (name: string, value: number, size = 4) =>
      makeTensor(name, 1, [size], new Float32Array(size).fill(value));
    const normalized = (mean: number) =>
      tinyModel({
        inputs: [info('x', ['N', 4])],
        outputs: [info('logits', ['N', 3])],
        nodes: [op('BatchNormalization x scale shift mean var -> n'), op('Gemm n w b -> logits')],
        initializers: [
          ...[vector('scale', 1), vector('shift', 0), vector('mean', mean), vector('var', 1), vector('b', 0, 3)],
          makeTensor('w', 1, [4, 3], new Float32Array(12)),
        ],
      });
    await saveModel(normalized(0.25), at('trained.onnx'));
    await saveModel(normalized(0), at('fresh.onnx'));
    const meansOf = async (file: string, more: Partial<TrainInput> = {}) => {
      const { model, report } = await trainModel(at(file), options({ epochs: 1, ...more }));
      const means = readFloats(model.graph!.initializer.find(({ name }) => name === 'mean')!);
      return { mode: report.settings!.batchNorm, moved: means.some((v) => v !== (file === 'fresh.onnx' ? 0 : 0.25)) };
    };
    expect(await meansOf('trained.onnx')).toEqual({ mode: 'frozen', moved: false });
    expect(await meansOf('trained.onnx', { batchNorm: 'updated' })).toEqual({ mode: 'updated', moved: true });
    expect(await meansOf('fresh.onnx')).toEqual({ mode: 'updated', moved: true });
    expect(await meansOf('fresh.onnx', { batchNorm: 'frozen' })).toEqual({ mode: 'frozen', moved: false });
  });

  it('gives the curves to Weights & Biases, also of a training that fails', async () => {
    const rows: Record<string, unknown>[] = [];
    const codes: (number | undefined)[] = [];
    let config: Readonly<Record<string, unknown>> = {};
    const wandbSdk: WandbSdk = {
      init: (given) => {
        config = given.config;
        return Promise.resolve({
          log: (data) => void rows.push(data),
          finish: (code) => Promise.resolve(void codes.push(code)),
        });
      },
    };
    const { report } = await trainModel(at('free.onnx'), options({ epochs: 2, wandb: 'p', wandbSdk }));
    expect(config).toMatchObject({ loss: 'cross-entropy', metric: 'top1', lr: 0.05, model: at('free.onnx') });
    expect(rows).toHaveLength(report.training.steps);
    expect(rows.flatMap((row) => row['val/top1'] ?? [])).toEqual(report.history.map(({ score }) => score));
    const diverging = trainModel(at('free.onnx'), options({ lr: 1e38, wandb: 'p', wandbSdk }));
    await expect(diverging).rejects.toMatchObject({ message: expect.stringContaining('diverged') as string });
    expect(codes).toEqual([0, 1]);
    // Without the package nothing is trained.
    await expect(trainModel(at('free.onnx'), options({ wandb: 'p', output: at('none.onnx') }))).rejects.toMatchObject({
      node: '@wandb/sdk',
    });
    expect(await readdir(folder)).not.toContain('none.onnx');
  });

  it('builds an architecture with the classes of the data, and suggests names', async () => {
    const images = normals(40 * 16 * 16 * 3, 3);
    const labels = Array.from({ length: 40 }, (_, i) => i % 4);
    await writeFile(at('images.npz'), npzOf('input', [3, 16, 16], images, labels));
    const { model } = await trainModel(
      'resnet8',
      options({
        data: at('images.npz'),
        test: undefined,
        inputSize: 16,
        width: 0.25,
        batchSize: 8,
        epochs: undefined,
        steps: 1,
      }),
    );
    const head = model.graph!.output[0]!.type!.value;
    const dims = head.case === 'tensorType' ? head.value.shape!.dim : [];
    expect(dims.at(-1)!.value).toEqual({ case: 'dimValue', value: 4n });
    await expect(trainModel('resnet21', options())).rejects.toMatchObject({
      code: 'bad-input',
      hint: expect.stringContaining('Did you mean resnet20?') as string,
    });
  });
});
