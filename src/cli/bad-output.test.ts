/** Outputs that cannot be written and budgets that cannot be met, through the whole program. */
import { mkdir, readFile, rm, symlink } from 'node:fs/promises';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { splitExternalData } from '../onnx/external-data.js';
import { toBytes } from '../onnx/to-bytes.js';
import { concat } from '../testing/mutations.js';
import { workbench, type Workbench } from '../testing/command-line.js';
import { normals, tinyResNet } from '../testing/tiny-models.js';
import { npzOf } from '../testing/tiny-net.js';

const SAMPLES = 40;
const LABELS = Array.from({ length: SAMPLES }, (_, i) => i % 5);

let bench: Workbench;
let model = '';
let data = '';

beforeEach(async () => {
  bench = await workbench();
  model = await bench.model('model.onnx', tinyResNet());
  data = await bench.write('data.npz', npzOf('x', [3, 8, 8], normals(SAMPLES * 192, 3), LABELS));
});
afterEach(() => bench.remove());

/** Arguments of a quantization that takes no timing of operators. */
function quantize(output: string, ...flags: string[]): string[] {
  return [
    'quantize',
    model,
    '-o',
    output,
    '--data',
    data,
    '--execution',
    'float',
    '--latency-runs',
    '2',
    '--quiet',
    ...flags,
  ];
}

/** Expects one message, the exit code and no change to any file. */
async function refuses(args: string[], message: RegExp, exit = 2): Promise<void> {
  const { code, stdout, stderr, changed } = await bench.run(args);
  expect(stderr.replaceAll(`${bench.path}/`, '')).toMatch(message);
  expect(stderr).toMatch(/^error: [^\n]+\n( {2}node: [^\n]+\n)?( {2}hint: [^\n]+\n)?$/);
  expect({ code, stdout, changed }).toEqual({ code: exit, stdout: '', changed: [] });
}

describe('the output', () => {
  it('that exists needs --force', async () => {
    await refuses(quantize(await bench.write('out.onnx', 'mine')), /The output out\.onnx exists\.[^]*--force/);
  });

  it('is never an input, whatever name leads to it', async () => {
    await symlink(model, bench.at('link.onnx'));
    await bench.write('hub/model.onnx', await readFile(model));
    const same = /is the same file as the input/;
    const dots = `${bench.path}/hub/.././model.onnx`;
    for (const output of [model, bench.at('link.onnx'), dots, data]) await refuses(quantize(output, '--force'), same);
    const test = await bench.write('test.npz', await readFile(data));
    await refuses(quantize(test, '--force', '--test', test), same);
    const preprocess = await bench.write('pre.json', '{}');
    await refuses(quantize(preprocess, '--force', '--preprocess', preprocess), same);
    model = bench.at('link.onnx');
    await refuses(quantize(bench.at('model.onnx'), '--force'), same);
    model = bench.at('hub');
    await refuses(quantize(bench.at('hub/model.onnx'), '--force'), same);
  });

  it('is not the external data of the model', async () => {
    const { model: split, chunks } = splitExternalData(tinyResNet(), 'weights.bin', 800);
    const weights = await bench.write('weights.bin', concat(chunks));
    model = await bench.write('external.onnx', toBytes(split));
    await refuses(quantize(weights, '--force'), /is the same file as the input weights\.bin/);
  });

  it('must be a file in a folder that exists', async () => {
    await mkdir(bench.at('folder'));
    await refuses(quantize(bench.at('folder'), '--force'), /folder cannot be written: it is a folder/);
    await refuses(quantize(bench.at('no/out.onnx')), /no\/out\.onnx cannot be written: its folder does not exist/);
    await refuses(quantize(`${data}/out.onnx`), /a part of its path is not a folder/);
  });

  it('of --report follows the same rules', async () => {
    const report = (path: string): string[] => quantize(bench.at('out.onnx'), '--report', path);
    await refuses(report(await bench.write('r.html', 'mine')), /The output r\.html exists/);
    await refuses(report(`${data}/r.html`), /a part of its path is not a folder/);
    await refuses(report(model), /must end in \.html, \.md or \.json/);
    const config = await bench.write('settings.json', '{"bits": 4}');
    await refuses([...report(config), '--config', config, '--force'], /is the same file as the input settings\.json/);
  });

  it('replaces a file with --force, a link staying a link, and leaves nothing else behind', async () => {
    await bench.write('real/out.onnx', 'an earlier result');
    await symlink(bench.at('real/out.onnx'), bench.at('out.onnx'));
    const { code, changed } = await bench.run(quantize(bench.at('out.onnx'), '--force', '--sweep', '3,8'));
    expect(code).toBe(0);
    expect(changed).toEqual(['out.onnx', 'real/out.onnx']);
    await rm(bench.at('out.onnx'));
    const kept = await bench.contents();
    expect([...kept.keys()]).toEqual(['data.npz', 'model.onnx', 'real', 'real/out.onnx']);
    expect((await bench.run(['inspect', bench.at('real/out.onnx')])).code).toBe(0);
  });
});

describe('a budget that cannot be met', () => {
  it('exits with 3, tells how close it came, and writes nothing', async () => {
    const output = await bench.write('out.onnx', 'an earlier result');
    await refuses(quantize(output, '--force', '--max-size', '1KB'), /as small as 1000 bytes: the closest has \d+/, 3);
    await refuses(quantize(output, '--force', '--bits', '1'), /floors .*head >= 8 bits/, 3);
    await refuses(quantize(output, '--force', '--bits', '2', '--min-bits', '4'), /floors alone need/, 3);
  });

  it('is written with --best-effort all the same', async () => {
    const { code, stdout, changed } = await bench.run(
      quantize(bench.at('out.onnx'), '--max-size', '1KB', '--best-effort', '--json'),
    );
    expect({ code, changed }).toEqual({ code: 3, changed: ['out.onnx'] });
    const { budget, after } = JSON.parse(stdout) as { budget: Record<string, unknown>; after: { bytes: number } };
    expect(budget).toEqual({ unit: 'bytes', requested: 1000, achieved: after.bytes, met: false });
    expect((await readFile(bench.at('out.onnx'))).length).toBe(after.bytes);
  });
});
