/** Architectures listed and written by the library functions. */
import { readFile } from 'node:fs/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openModel } from '../node/model-file.js';
import { parameterCount } from '../onnx/parameters.js';
import { workbench, type Workbench } from '../testing/command-line.js';
import { ARCHITECTURES } from '../zoo/registry.js';
import { inspectModel } from './inspect.js';
import { buildFromZoo, listZoo } from './zoo.js';

let bench: Workbench;
beforeAll(async () => {
  bench = await workbench();
});
afterAll(() => bench.remove());

describe('listZoo', () => {
  it('has every architecture once, with its counts and options', () => {
    const { architectures } = listZoo().report;
    expect(new Set(architectures.map(({ name }) => name)).size).toBe(ARCHITECTURES.length);
    expect(architectures.find(({ name }) => name === 'resnet20')).toMatchObject({
      params: 269_722,
      options: { classes: 10, width: 1, inputSize: 32, channels: 3, shortcut: 'pad', seed: 0 },
    });
    for (const { params, macs } of architectures) expect(Math.min(params, macs)).toBeGreaterThan(0);
  });
});

describe('buildFromZoo', () => {
  it('writes the model that it reports', async () => {
    const output = bench.at('resnet8.onnx');
    const { model, report } = await buildFromZoo('ResNet8', { output, classes: 4, inputSize: 16, seed: 9 });
    expect(report).toMatchObject({
      architecture: 'resnet8',
      seed: 9,
      options: { classes: 4, inputSize: 16, channels: 3, width: 1, shortcut: 'pad' },
      params: parameterCount(model),
      bytes: (await readFile(output)).length,
    });
    expect(parameterCount((await openModel(output)).model)).toBe(report.params);
    const inspected = await inspectModel(output);
    expect(inspected.report.model).toMatchObject({ params: report.params, macs: report.macs, opset: 17 });
    expect(inspected.report.warnings).toBeUndefined();
  });

  it('writes the same bytes for the same seed', async () => {
    const [a, b] = [bench.at('a.onnx'), bench.at('b.onnx')];
    await buildFromZoo('lenet5', { output: a, seed: 3 });
    await buildFromZoo('lenet5', { output: b, seed: 3 });
    expect((await readFile(a)).equals(await readFile(b))).toBe(true);
  });

  it('refuses unknown names and existing outputs, and stops when told to', async () => {
    const output = await bench.write('taken.onnx', 'mine');
    await expect(buildFromZoo('resnet21', { output: bench.at('x.onnx') })).rejects.toMatchObject({
      code: 'bad-input',
      hint: 'Did you mean "resnet20"?',
    });
    await expect(buildFromZoo('lenet5', { output })).rejects.toMatchObject({ code: 'bad-input', node: output });
    const signal = AbortSignal.abort();
    await expect(buildFromZoo('lenet5', { output, force: true, signal })).rejects.toMatchObject({ code: 'aborted' });
    expect(await readFile(output, 'utf8')).toBe('mine');
  });
});
