/** Models, data and flags that cannot be used, through the whole program: exit code 2, one message, nothing touched. */
import { mkdir, symlink } from 'node:fs/promises';
import type { ModelProto, TensorProto } from 'onnx-buf';
import sharp from 'sharp';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { writeNpz } from '../data/npz-write.js';
import { DataType } from '../onnx/dtypes.js';
import { splitExternalData } from '../onnx/external-data.js';
import { withFields } from '../onnx/message.js';
import { makeTensor } from '../onnx/tensor.js';
import { toBytes } from '../onnx/to-bytes.js';
import { workbench, type Workbench } from '../testing/command-line.js';
import { info, ints, op, tinyModel } from '../testing/graph-writing.js';
import { normals, tinyResNet } from '../testing/tiny-models.js';
import { npzOf } from '../testing/tiny-net.js';

const SAMPLES = 60;
const PIXELS = normals(SAMPLES * 192, 3);
const LABELS = Array.from({ length: SAMPLES }, (_, i) => i % 5);
const HUGE = { dims: [2n ** 60n, 2n ** 60n] };
const NET = toBytes(tinyResNet());

let bench: Workbench;
let model = '';
let data = '';

beforeAll(async () => {
  bench = await workbench();
  model = await bench.write('model.onnx', NET);
  data = await bench.write('data.npz', npzOf('x', [3, 8, 8], PIXELS, LABELS));
  await bench.write('out.onnx', 'an earlier result');
});
afterAll(() => bench.remove());

/** Quantizes over an earlier result and expects to be refused with one message that leaves everything as it was. */
async function refuses(message: RegExp, given: { model?: string; data?: string; flags?: string[] }): Promise<void> {
  const { model: path = model, data: source = data, flags = [] } = given;
  const args = ['quantize', path, '-o', bench.at('out.onnx'), '--force', '--data', source, ...flags];
  const { code, stdout, stderr, changed } = await bench.run(args);
  expect(stderr.replaceAll(`${bench.path}/`, '')).toMatch(message);
  expect(stderr).toMatch(/^error: [^\n]+\n( {2}node: [^\n]+\n)?( {2}hint: [^\n]+\n)?$/);
  expect({ code, stdout, changed }).toEqual({ code: 2, stdout: '', changed: [] });
}

/** The network with one initializer replaced, or left out. */
function withInitializer(name: string, replacement?: TensorProto): ModelProto {
  const net = tinyResNet();
  const initializer = net.graph!.initializer.flatMap((tensor) =>
    tensor.name !== name ? [tensor] : replacement ? [replacement] : [],
  );
  return withFields(net, { graph: withFields(net.graph!, { initializer }) });
}

describe('model files', () => {
  const flipped = NET.slice();
  flipped[40] ^= 0x80;
  it.each<[string, Uint8Array | string, RegExp]>([
    ['cut off near the end', NET.slice(0, -100), /bad\.onnx is not a readable ONNX model: the file is cut off/],
    ['cut in half', NET.slice(0, NET.length >> 1), /the file is cut off .*\n.*\n {2}hint: .*copied whole/],
    ['with a flipped bit', flipped, /bad\.onnx is not a readable ONNX model: .* at byte \d+/],
    ['that are empty', '', /bad\.onnx is empty/],
    ['that are text', 'hello', /bad\.onnx is not an ONNX model: it looks like a text file/],
    ['that are archives', npzOf('x', [1], new Float32Array(4)), /it looks like a ZIP archive/],
  ])('%s', async (_, content, message) => {
    await refuses(message, { model: await bench.write('bad.onnx', content) });
  });

  it('that do not exist', () => refuses(/gone\.onnx does not exist/, { model: bench.at('gone.onnx') }));

  it.each<[string, ModelProto, RegExp]>([
    [
      'with a cycle',
      tinyModel({
        inputs: [info('x', ['N', 4])],
        outputs: [info('y', ['N', 4])],
        nodes: [op('Add x c -> b', [], 'one'), op('Relu b -> c', [], 'two'), op('Relu c -> y')],
      }),
      /form a cycle: two -> one -> two\.\n {2}node: two\n {2}hint: /,
    ],
    ['without an initializer', withInitializer('head.w'), /Node "head" reads "head\.w".*\n {2}node: head/],
    [
      'with integer weights in a Conv',
      withInitializer('stem.w', makeTensor('stem.w', DataType.INT32, [8, 3, 3, 3], new Int32Array(216))),
      /ONNX Runtime rejects .*int32.*\(stem\)/,
    ],
    [
      'that add a float and an integer',
      tinyModel({
        inputs: [info('x', ['N', 4])],
        outputs: [info('y', ['N', 4])],
        nodes: [op('Add x k -> y', [], 'mixed')],
        initializers: [ints('k', [1, 2, 3, 4])],
      }),
      /tensor\(int64\) in node \(mixed\)/,
    ],
    [
      'with impossible dims',
      withInitializer('stem.w', withFields(makeTensor('stem.w', DataType.FLOAT, [1], new Float32Array(1)), HUGE)),
      /more elements than can be addressed \(tensor "stem\.w"\)/,
    ],
    ['of opset 6', tinyResNet(6), /uses opset 6; opsets 7 to \d+ are handled/],
    ['of opset 99', tinyResNet(99), /uses opset 99; .*\n {2}hint: .*or lower/],
  ])('%s', async (_, net, message) => {
    await refuses(message, { model: await bench.model('bad.onnx', net) });
  });

  it.each<[string, string, RegExp]>([
    [
      'is missing',
      'gone.bin',
      /tensor "stem\.w" are in gone\.bin, which cannot be found\.\n.*\n {2}hint: Put the file/,
    ],
    ['is too short', 'short.bin', /short\.bin has 10 bytes, but tensor "stem\.w" lies at bytes 0 to 864/],
    [
      'is named by a path that leads out',
      '../outside.bin',
      /"\.\.\/outside\.bin", a path that leads out of the folder/,
    ],
    ['is named by an absolute path', '/etc/hostname', /"\/etc\/hostname", a path that is absolute/],
    ['is a link that leads out', 'link.bin', /link\.bin, a link that leads out of the folder/],
  ])('whose external data %s', async (_, location, message) => {
    await bench.write('short.bin', new Uint8Array(10));
    await symlink('/etc/hostname', bench.at('link.bin')).catch(() => undefined);
    const { model: split } = splitExternalData(tinyResNet(), location, 800);
    await refuses(message, { model: await bench.model('external.onnx', split) });
  });
});

describe('data', () => {
  const labelled = (labels: readonly number[]): Uint8Array => npzOf('x', [3, 8, 8], PIXELS, labels);
  const with7 = (label: number): Uint8Array => labelled(LABELS.map((own, i) => (i === 7 ? label : own)));
  const notANumber = PIXELS.slice();
  notANumber[30 * 192] = NaN;
  const floats = { type: 'float32', dims: [SAMPLES], data: Float32Array.from(LABELS) } as const;
  const pixels = { type: 'float32', dims: [SAMPLES, 3, 8, 8], data: PIXELS } as const;
  // The shape of the element type is all that differs from a readable array.
  const objects = Buffer.from(writeNpz({ x: pixels }))
    .toString('latin1')
    .replace("'<f4'", "'|O' ");

  it.each<[string, Uint8Array, RegExp]>([
    ['of another rank', npzOf('x', [192], PIXELS), /shape \[60, 192\], input x of the model expects \[N, 3, 8, 8\]/],
    [
      'with other channels',
      npzOf('x', [1, 8, 8], normals(SAMPLES * 64, 1)),
      /\[60, 1, 8, 8\].* expects \[N, 3, 8, 8\]/,
    ],
    ['of another size', npzOf('x', [3, 8, 7], normals(SAMPLES * 168, 1)), /\[60, 3, 8, 7\].* expects/],
    ['with NaN', npzOf('x', [3, 8, 8], notANumber, LABELS), /sample 30 holds NaN/],
    ['with a label above the classes', with7(5), /label 5 of sample 7 in bad\.npz is not one of the 5 classes/],
    ['with a negative label', with7(-1), /label -1 of sample 7 is not a class index/],
    [
      'with labels that are not integers',
      writeNpz({ x: pixels, labels: floats }),
      /labels must be integers, found float/,
    ],
    ['with a label too few', labelled(LABELS.slice(1)), /59 labels for 60 samples/],
    ['without arrays', writeNpz({}), /no array for the model's input x; arrays found: none/],
    ['with other names', writeNpz({ a: pixels, b: floats }), /input x; arrays found: a, b\.\n.*\n {2}hint: .*x=\.\.\./],
    ['of Python objects', Buffer.from(objects, 'latin1'), /object array/],
    ['without samples', npzOf('x', [3, 8, 8], new Float32Array()), /x in bad\.npz is empty/],
    ['with a single sample', npzOf('x', [3, 8, 8], PIXELS.slice(0, 192)), /1 sample, too few/],
    ['that are empty', new Uint8Array(), /bad\.npz is empty/],
    ['that are cut off', labelled(LABELS).slice(0, 20_000), /bad\.npz is not a readable \.npz file/],
    ['that are no archive', new Uint8Array(100).fill(7), /bad\.npz is not a readable \.npz file/],
  ])('%s', async (_, content, message) => {
    await refuses(message, { data: await bench.write('bad.npz', content) });
  });

  it('that do not exist or are of no known kind', async () => {
    await refuses(/gone\.npz does not exist\.\n.*\n {2}hint: Data is/, { data: bench.at('gone.npz') });
    await refuses(/model\.onnx is not a kind of data/, { data: model });
    await refuses(/is given for both --data and --test/, { flags: ['--test', data] });
  });

  it('in class folders that are empty, hold a corrupt image, or are more than the classes', async () => {
    const pixel = { width: 8, height: 8, channels: 3, background: '#808080' } as const;
    const png = await sharp({ create: pixel }).png().toBuffer();
    const folder = async (name: string, files: Record<string, Uint8Array>): Promise<string> => {
      for (const [file, content] of Object.entries(files)) await bench.write(`${name}/${file}`, content);
      return bench.at(name);
    };
    const many = (classes: number, each: number): Record<string, Uint8Array> =>
      Object.fromEntries(Array.from({ length: classes * each }, (_, i) => [`${i % classes}/${i}.png`, png]));
    await mkdir(bench.at('none'));
    await refuses(/none holds no PNG, JPEG or WebP images/, { data: bench.at('none') });
    const holed = await folder('holed', many(2, 10));
    await mkdir(bench.at('holed/2'));
    await refuses(/Class folder holed\/2 holds no .* images\.\n {2}node: .*\n {2}hint: /, { data: holed });
    const corrupt = await folder('corrupt', { ...many(2, 20), '1/bad.png': png.subarray(0, 60) });
    await refuses(/corrupt\/1\/bad\.png cannot be decoded as an image: .*[^:]\n/, { data: corrupt });
    await refuses(/label 5 of sample \d+ in crowd is not one of the 5 classes/, {
      data: await folder('crowd', many(6, 3)),
    });
  });

  it('whose fault shows only in TEST, when the model is written already', async () => {
    await refuses(/test\.npz: sample 30 holds NaN/, {
      data: await bench.write('train.npz', labelled(LABELS)),
      flags: [
        '--test',
        await bench.write('test.npz', npzOf('x', [3, 8, 8], notANumber, LABELS)),
        '--execution',
        'float',
      ],
    });
  });
});

describe('flags and configuration', () => {
  it.each<[string[], RegExp]>([
    [['--nope'], /unknown option '--nope'/],
    [['--method', 'magic'], /--method: unknown method "magic"; there are faaq/],
    [['--calib-samples', '-3'], /--calib-samples: .*>=1 \(given: -3\)/],
    [['--seed', '-1'], /--seed: .*>=0 \(given: -1\)/],
    [['--bits', '9'], /--bits: .*<=8 \(given: 9\)/],
    [['--bits', '0'], /--bits: .*>=1 \(given: 0\)/],
    [['--bits', 'abc'], /--bits must be a number, not "abc"/],
    [['--bits', '4', '--max-size', '9KB'], /--bits: cannot be combined with a largest size/],
    [['--max-size', '-5KB'], /--max-size must be a size such as 400KB/],
    [['--resume'], /--resume: needs --run-dir/],
    [['--sweep', '2,99'], /--sweep: .*<=8 \(given: 99\)/],
    [['--std', '0'], /--std: must be above 0/],
    [['extra'], /too many arguments/],
  ])('%j', async (flags, message) => {
    const args = ['quantize', model, '-o', bench.at('new.onnx'), '--data', data, ...flags];
    const { code, stdout, stderr, changed } = await bench.run(args);
    expect(stderr).toMatch(message);
    expect({ code, stdout, changed }).toEqual({ code: 2, stdout: '', changed: [] });
  });

  it.each<[string, RegExp]>([
    ['bitz: 4\n', /Unknown key "bitz" in c\.yaml\.\n.*\n {2}hint: Did you mean "bits"/],
    ['bits: [4\n', /c\.yaml is not valid YAML/],
    ['bits: {a: 1}\n', /bits in c\.yaml must be one value/],
    ['- 1\n', /c\.yaml must hold "key: value" lines/],
    ['bits: 12\n', /--bits: .*given: 12/],
  ])('the configuration %j', async (text, message) => {
    await refuses(message, { flags: ['--config', await bench.write('c.yaml', text)] });
  });
});
