/** What `train` learns from: labels under every loss, and arrays of targets, as a user gives them. */
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ModelProto } from 'onnx-buf';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { writeNpz } from '../../data/npz-write.js';
import { saveModel } from '../../node/model-file.js';
import type { HostTensor } from '../../runtime/engine.js';
import { info, op, run, tinyModel } from '../../testing/graph-writing.js';
import { normals } from '../../testing/tiny-models.js';
import { makeTensor, readFloats } from '../../onnx/tensor.js';
import type { LossName } from '../../training/losses.js';
import { trainModel, type TrainInput } from './train.js';

let folder: string;
const at = (name: string): string => join(folder, name);

const FEATURES = 4;
const tensor = (dims: readonly number[], data: Float32Array): HostTensor => ({ type: 'float32', dims, data });
const labelsOf = (labels: readonly number[]): HostTensor => ({
  ...{ type: 'int64', dims: [labels.length], data: BigInt64Array.from(labels, BigInt) },
});

/** Linear maps of x [N, 4] that start at zero, one per output; `end` stands behind each of them. */
function linear(outputs: Readonly<Record<string, number>>, end = 'Identity', batch = 'N'): ModelProto {
  const names = Object.entries(outputs);
  return tinyModel({
    inputs: [info('x', [batch, FEATURES])],
    outputs: names.map(([name, size]) => info(name, [batch, size])),
    nodes: names.flatMap(([name]) => [
      op(`Gemm x w.${name} b.${name} -> z.${name}`),
      op(`${end} z.${name} -> ${name}`),
    ]),
    initializers: names.flatMap(([name, size]) => [
      makeTensor(`w.${name}`, 1, [FEATURES, size], new Float32Array(FEATURES * size)),
      makeTensor(`b.${name}`, 1, [size], new Float32Array(size)),
    ]),
  });
}

const COUNT = 240;
const x = normals(COUNT * FEATURES, 1);
const X = tensor([COUNT, FEATURES], x);
/** What a linear map with those columns makes of every sample. */
const mapped = (columns: readonly (readonly number[])[]): Float32Array =>
  Float32Array.from({ length: COUNT * columns.length }, (_, i) => {
    const [n, c] = [Math.floor(i / columns.length), i % columns.length];
    return columns[c]!.reduce((sum, w, k) => sum + w * x[n * FEATURES + k]!, 0);
  });
const COLUMNS = [
  [1, -1, 0.5, 0],
  [0, 2, 0, -1],
  [-0.5, 0, 1, 1],
];
const TEACHER = mapped(COLUMNS);
const LABELS = Array.from({ length: COUNT }, (_, n) => {
  const row = TEACHER.subarray(3 * n, 3 * n + 3);
  return row.indexOf(Math.max(...row));
});

const save = async (name: string, arrays: Readonly<Record<string, HostTensor>>): Promise<void> =>
  writeFile(at(name), writeNpz(arrays));

const train = async (model: string, data: string, more: Partial<TrainInput> = {}) =>
  trainModel(at(model), {
    ...{ data: at(data), output: at('out.onnx'), force: true, epochs: 15, batchSize: 16, lr: 0.05 },
    ...{ weightDecay: 0, latencyRuns: 1, ...more, ...(more.test !== undefined && { test: at(more.test) }) },
  });

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'objective-'));
  for (const [file, end] of [
    ['logits.onnx', 'Identity'],
    ['sigmoid.onnx', 'Sigmoid'],
    ['softmax.onnx', 'Softmax'],
  ] as const)
    await saveModel(linear({ y: 3 }, end), at(file));
  await saveModel(linear({ y: 1 }), at('number.onnx'));
  await saveModel(linear({ first: 3, second: 2 }), at('two.onnx'));
  await save('labels.npz', { x: X, labels: labelsOf(LABELS) });
  await save('binary.npz', { x: X, labels: labelsOf(LABELS.map((label) => Number(label === 1))) });
  await save('plain.npz', { x: X });
  await save('numbers.npz', { x: X, y: tensor([COUNT], mapped(COLUMNS.slice(0, 1))) });
  await save('teacher.npz', { x: X, y: tensor([COUNT, 3], TEACHER), labels: labelsOf(LABELS) });
  await save('negative.npz', { x: X, y: tensor([COUNT, 3], TEACHER) });
  await save('bits.npz', {
    x: X,
    y: tensor(
      [COUNT, 3],
      TEACHER.map((v) => Number(v > 0)),
    ),
  });
  await save('second.npz', { x: X, second: tensor([COUNT, 2], mapped(COLUMNS.slice(1))) });
  await save('both.npz', {
    ...{ x: X, first: tensor([COUNT, 3], TEACHER) },
    second: tensor([COUNT, 2], mapped(COLUMNS.slice(1))),
  });
  await save('wide.npz', { x: X, y: tensor([COUNT, 4], x) });
  await save('high.npz', { x: X, labels: labelsOf(LABELS.map((label) => label + 1)) });
  await save('short.npz', { x: X, y: tensor([COUNT - 1], mapped(COLUMNS.slice(0, 1)).slice(1)) });
  await save('nan.npz', { x: X, y: tensor([COUNT], mapped(COLUMNS.slice(0, 1)).fill(NaN, 7, 8)) });
});
afterAll(() => rm(folder, { recursive: true }));

describe('labels', () => {
  it.each<[LossName, Partial<TrainInput>]>([
    ['cross-entropy', { balance: true }],
    ['mse', { labelSmoothing: 0.1 }],
    ['l1', {}],
    ['huber', { balance: true }],
    ['bce', { balance: true, labelSmoothing: 0.1 }],
    ['cosine', {}],
  ])('train class scores by %s', async (loss, more) => {
    for (const model of ['logits.onnx', 'softmax.onnx']) {
      const { report } = await train(model, 'labels.npz', { loss, epochs: 10, ...more });
      expect(report.after.metric).toMatchObject({ name: 'top1' });
      expect(report.after.metric!.value).toBeGreaterThan(loss === 'l1' ? 0.75 : 0.85);
      expect(report.history.at(-1)!.loss).toBeLessThan(report.history[0]!.loss);
      expect(report.settings).toMatchObject({ loss });
    }
  });

  it('train one score per sample by bce', async () => {
    const { report } = await train('number.onnx', 'binary.npz', { loss: 'bce', metric: 'f1-binary' });
    expect(report.after.metric).toMatchObject({ name: 'f1-binary' });
    expect(report.after.metric!.value).toBeGreaterThan(0.8);
    expect(report.after.metrics!.map(({ name }) => name)).toContain('top1');
    expect(report.training.metric).toBe('f1-binary');
  });
});

describe('arrays under the name of an output', () => {
  it('train a regression; the loss on TEST is that of the written file', async () => {
    const test = normals(3 * FEATURES, 9);
    await save('test.npz', { x: tensor([3, FEATURES], test), y: tensor([3, 1], Float32Array.of(1, 2, 3)) });
    const { model, report } = await train('number.onnx', 'numbers.npz', { test: 'test.npz' });
    expect(report.history.at(-1)!.score).toBeLessThan(0.02 * report.history[0]!.score);
    expect(
      [...readFloats(model.graph!.initializer.find(({ name }) => name === 'w.y')!)].map((v) => v.toFixed(1)),
    ).toEqual(['1.0', '-1.0', '0.5', '0.0'].map((v) => expect.stringMatching(`^-?${v.replace('-', '')}$`) as string));
    const y = (await run(model, { x: tensor([3, FEATURES], test) })).y!.data as Float32Array;
    const expected = y.reduce((sum, v, i) => sum + (v - (i + 1)) ** 2, 0) / 3;
    expect(report.after.metric).toMatchObject({ name: 'loss', split: 'test', samples: 3 });
    expect(report.after.metric!.value).toBeCloseTo(expected, 4);
    // The file that was trained gives zeros.
    expect(report.before!.metric!.value).toBeCloseTo((1 + 4 + 9) / 3, 5);
    const best = Math.min(...report.history.map(({ score }) => score));
    expect(report.history.find(({ epoch }) => epoch === report.training.bestEpoch)!.score).toBe(best);
  });

  it('train several labels at once by bce, through the sigmoid at the end', async () => {
    const { model } = await train('sigmoid.onnx', 'bits.npz', { loss: 'bce' });
    const y = (await run(model, { x: X })).y!.data as Float32Array;
    const right = y.filter((p, i) => p > 0.5 === TEACHER[i]! > 0).length;
    expect(right / y.length).toBeGreaterThan(0.95);
  });

  it('teach the logits of a teacher by kl, or its probabilities where the student has a softmax', async () => {
    const shares = Float32Array.from(TEACHER, Math.exp);
    for (let n = 0; n < COUNT; n++) {
      const row = shares.subarray(3 * n, 3 * n + 3);
      const sum = row[0]! + row[1]! + row[2]!;
      row.forEach((v, c) => (row[c] = v / sum));
    }
    await save('shares.npz', { x: X, y: tensor([COUNT, 3], shares), labels: labelsOf(LABELS) });
    for (const [model, data] of [
      ['logits.onnx', 'teacher.npz'],
      ['softmax.onnx', 'shares.npz'],
    ] as const) {
      const { model: student, report } = await train(model, data, { loss: 'kl', temperature: 2, metric: 'loss' });
      expect(report.history.at(-1)!.loss).toBeLessThan(0.02);
      expect(report.settings).toMatchObject({ loss: 'kl', temperature: 2 });
      if (model === 'softmax.onnx')
        (await run(student, { x: X })).y!.data.forEach((p: number | bigint, i: number) => {
          expect(Math.abs(Number(p) - shares[i]!)).toBeLessThan(0.1);
        });
    }
    const { report } = await train('logits.onnx', 'teacher.npz', { loss: 'kl' });
    expect(report.training.metric).toBe('top1');
  });

  it('choose the output that is trained', async () => {
    const { model } = await train('two.onnx', 'second.npz', { epochs: 2 });
    const isZero = (name: string): boolean =>
      readFloats(model.graph!.initializer.find((each) => each.name === name)!).every((v) => v === 0);
    expect(['w.first', 'w.second'].map(isZero)).toEqual([true, false]);
  });
});

describe('train refuses', () => {
  it.each<[string, string, string, Partial<TrainInput>, string, RegExp, RegExp]>([
    [
      'neither labels nor targets',
      'logits.onnx',
      'plain.npz',
      {},
      'bad-input',
      /neither labels.*\(y\)/,
      /name of the output/,
    ],
    ['targets for two outputs', 'two.onnx', 'both.npz', {}, 'bad-input', /first and second/, /one output/],
    [
      'targets of another shape',
      'logits.onnx',
      'wide.npz',
      {},
      'bad-input',
      /\[samples, 4\].*\[samples, 3\]/,
      /own shape/,
    ],
    ['too few targets', 'number.onnx', 'short.npz', {}, 'bad-input', /239 samples.*240/, /one row per sample/],
    ['targets that are NaN', 'number.onnx', 'nan.npz', {}, 'bad-input', /sample 7 holds NaN/, /isfinite/],
    ['labels out of range', 'logits.onnx', 'high.npz', {}, 'bad-input', /label 3 .*3 classes/, /numbered from 0/],
    [
      'labels of scores that are not there',
      'two.onnx',
      'labels.npz',
      {},
      'unsupported',
      /scores per class/,
      /first, second/,
    ],
    ['kl on labels', 'logits.onnx', 'labels.npz', { loss: 'kl' }, 'bad-input', /of a teacher/, /the array y/],
    ['one score by cross-entropy', 'number.onnx', 'binary.npz', {}, 'bad-input', /score per class/, /bce/],
    ['logits by cross-entropy', 'logits.onnx', 'teacher.npz', { loss: 'cross-entropy' }, 'bad-input', /sum to 1/, /kl/],
    ['numbers by cross-entropy', 'number.onnx', 'numbers.npz', { loss: 'kl' }, 'bad-input', /\[N, 1\]/, /mse/],
    ['targets outside 0 to 1 by bce', 'logits.onnx', 'negative.npz', { loss: 'bce' }, 'bad-input', /0 to 1/, /Scale/],
    [
      'smoothed targets',
      'number.onnx',
      'numbers.npz',
      { labelSmoothing: 0.1 },
      'bad-input',
      /label-smoothing/,
      /Leave/,
    ],
    ['balanced targets', 'number.onnx', 'numbers.npz', { balance: true }, 'bad-input', /--balance/, /Leave/],
    ['top1 without labels', 'number.onnx', 'numbers.npz', { metric: 'top1' }, 'bad-input', /top1 needs labels/, /loss/],
    [
      'f1-binary of three classes',
      'logits.onnx',
      'labels.npz',
      { metric: 'f1-binary' },
      'bad-input',
      /two classes.*3/,
      /f1-macro/,
    ],
    [
      'top5 of three classes',
      'logits.onnx',
      'labels.npz',
      { metric: 'top5' },
      'bad-input',
      /more than five.*3/,
      /top1/,
    ],
    [
      'a test without targets',
      'number.onnx',
      'numbers.npz',
      { test: 'plain.npz' },
      'bad-input',
      /plain.npz has no array y/,
      /same arrays/,
    ],
    [
      'a temperature of another loss',
      'number.onnx',
      'numbers.npz',
      { temperature: 2 },
      'bad-input',
      /temperature/,
      /./,
    ],
  ])('%s, and writes nothing', async (_, model, data, more, code, message, hint) => {
    const error: unknown = await train(model, data, { ...more, output: at('refused.onnx') }).catch((e: unknown) => e);
    expect(error).toMatchObject({ code, message: expect.stringMatching(message) as string });
    if (!(more.temperature ?? 0)) expect(error).toMatchObject({ hint: expect.stringMatching(hint) as string });
    expect((await readdir(folder)).filter((name) => name.startsWith('refused'))).toEqual([]);
  });

  it('to move pixels away from their targets', async () => {
    const side = 4;
    const images = normals(40 * 3 * side * side, 3);
    const model = tinyModel({
      inputs: [info('x', ['N', 3, side, side])],
      outputs: [info('y', ['N', 3, side, side])],
      nodes: [op('Conv x w -> y')],
      initializers: [makeTensor('w', 1, [3, 3, 1, 1], normals(9, 1))],
    });
    await saveModel(model, at('denoise.onnx'));
    await save('images.npz', { x: tensor([40, 3, side, side], images), y: tensor([40, 3, side, side], images) });
    await expect(train('denoise.onnx', 'images.npz', { augment: ['cutout', 'flip'] })).rejects.toMatchObject({
      ...{ code: 'unsupported', node: 'y' },
      message: expect.stringMatching(/--augment flip/) as string,
    });
    const { report } = await train('denoise.onnx', 'images.npz', { augment: ['cutout'], batchSize: 8, epochs: 3 });
    expect(report.training.metric).toBe('loss');
  });
});
