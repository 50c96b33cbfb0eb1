import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openModel, saveModel } from '../node/model-file.js';
import type { ModelInput } from '../node/model-input.js';
import { toBytes } from '../onnx/to-bytes.js';
import { info, op, tinyModel } from '../testing/graph-writing.js';
import { normals } from '../testing/tiny-models.js';
import { convNet, npzOf } from '../testing/tiny-net.js';
import { evaluateModels } from './evaluate.js';
import { inspectModel } from './inspect.js';
import { profileModel } from './profile.js';
import { quantizeModel, type QuantizeInput } from './quantize/quantize.js';
import { trainModel } from './train/train.js';

let folder: string;
const at = (name: string): string => join(folder, name);
const model = convNet();
/** Each way of giving the model. */
const ways: () => ModelInput[] = () => [at('net.onnx'), toBytes(model), model];

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'in-memory-'));
  await saveModel(model, at('net.onnx'));
  const labels = Array.from({ length: 60 }, (_, i) => i % 5);
  await writeFile(at('data.npz'), npzOf('image', [3, 8, 8], normals(60 * 192, 5), labels));
});
afterAll(() => rm(folder, { recursive: true }));

const quantizing = (output: string, more: Partial<QuantizeInput> = {}): QuantizeInput => ({
  ...{ data: at('data.npz'), output: at(output), execution: 'float', bits: 4, threads: 1, latencyRuns: 2, ...more },
});

describe('a model in memory', () => {
  it('is inspected as its file is', async () => {
    const [file, ...others] = await Promise.all(ways().map(async (way) => (await inspectModel(way)).report.model));
    for (const other of others) expect(other).toEqual({ ...file, path: 'model in memory' });
  });

  it('is evaluated beside files, under a name of its own', async () => {
    const { report } = await evaluateModels(ways(), {
      data: at('data.npz'),
      threads: 1,
      latencyRuns: 2,
      batchSizes: [1],
    });
    expect(report.files.map(({ path }) => path)).toEqual([at('net.onnx'), 'model 2, in memory', 'model 3, in memory']);
    const sizes = report.files.map(({ bytes, gzipBytes, params, macs }) => ({ bytes, gzipBytes, params, macs }));
    expect(sizes[1]).toEqual(sizes[0]);
    expect(sizes[2]).toEqual(sizes[0]);
    for (const { metric } of report.files) expect(metric).toEqual(report.files[0]!.metric);
  });

  it('is profiled as its file is', async () => {
    const options = { data: at('data.npz'), threads: 1, widths: [4] };
    const reports = [];
    for (const way of ways()) reports.push((await profileModel(way, options)).report);
    expect(reports.map((report) => report.model)).toEqual([at('net.onnx'), 'model in memory', 'model in memory']);
    for (const { before, layers } of reports)
      expect({ before, layers }).toEqual({
        before: reports[0]!.before,
        layers: reports[0]!.layers,
      });
  });

  it('is quantized to the same bytes', async () => {
    const files: Uint8Array[] = [];
    for (const [i, way] of ways().entries()) {
      const { report } = await quantizeModel(way, quantizing(`q${String(i)}.onnx`, i < 2 ? {} : { sweep: [2] }));
      files.push(await readFile(at(`q${String(i)}.onnx`)));
      expect(report.model).toBe(i === 0 ? at('net.onnx') : 'model in memory');
      expect(report.before.bytes).toBe(toBytes(model).length);
      expect(report.sweep?.length).toBe(i < 2 ? undefined : 1);
    }
    expect(files[1]).toEqual(files[0]);
    expect(files[2]).toEqual(files[0]);
  });

  it('is known again by a run directory, and another one refused', async () => {
    const options = quantizing('run.onnx', { runDir: at('run') });
    const first = await quantizeModel(toBytes(model), options);
    // A file of these bytes is the same model.
    for (const way of ways()) {
      const { report } = await quantizeModel(way, { ...options, resume: true });
      expect(report).toEqual(first.report);
    }
    const other = (await openModel(at('net.onnx'))).model;
    other.graph!.initializer[0]!.rawData[0]! ^= 1;
    await expect(quantizeModel(other, { ...options, resume: true })).rejects.toMatchObject({
      code: 'bad-input',
      message: expect.stringContaining('the model has changed since then') as string,
    });
  });

  it('is trained to the same weights', async () => {
    const files: Uint8Array[] = [];
    for (const [i, way] of ways().entries()) {
      const output = at(`t${String(i)}.onnx`);
      const { report } = await trainModel(way, {
        ...{ data: at('data.npz'), output, epochs: 1, batchSize: 12, threads: 1, latencyRuns: 2 },
      });
      files.push(await readFile(output));
      expect(report.model).toBe(i === 0 ? at('net.onnx') : 'model in memory');
      expect(report.before?.bytes).toBe(toBytes(model).length);
    }
    expect(files[1]).toEqual(files[0]);
    expect(files[2]).toEqual(files[0]);
  });

  it('is refused by that name, and nothing is written', async () => {
    const broken = tinyModel({
      inputs: [info('image', ['N', 3, 8, 8])],
      outputs: [info('y')],
      nodes: [op('Relu missing -> y')],
    });
    const unknown = tinyModel({
      inputs: [info('image', ['N', 3, 8, 8])],
      outputs: [info('y')],
      nodes: [op('NoSuchOperator image -> y')],
    });
    const cases: [ModelInput, RegExp][] = [
      [broken, /^model in memory: .*missing/],
      [toBytes(broken), /^model in memory: .*missing/],
      [Uint8Array.of(1, 2, 3), /^model in memory is not a readable ONNX model/],
    ];
    for (const [input, message] of cases)
      await expect(quantizeModel(input, quantizing('refused.onnx'))).rejects.toMatchObject({
        code: 'bad-input',
        message: expect.stringMatching(message) as string,
      });
    await expect(quantizeModel(unknown, quantizing('refused.onnx'))).rejects.toMatchObject({ node: 'model in memory' });
    await expect(evaluateModels([at('net.onnx'), unknown], { data: at('data.npz') })).rejects.toMatchObject({
      node: 'model 2, in memory',
    });
    expect((await readdir(folder)).filter((name) => name.startsWith('refused'))).toEqual([]);
  });
});
