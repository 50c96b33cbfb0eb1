import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { clone, equals } from '@bufbuild/protobuf';
import { ModelProtoSchema, type ModelProto } from 'onnx-buf';
import { toBytes } from '../onnx/to-bytes.js';
import { convNet } from '../testing/tiny-net.js';
import { fingerprint } from './fingerprint.js';
import { gzipBytes, openModel, saveModel } from './model-file.js';
import { nameOf, openModelInput, type ModelInput } from './model-input.js';

let folder: string;
const at = (name: string): string => join(folder, name);
const model = convNet();

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'model-input-'));
  await saveModel(model, at('net.onnx'));
  await saveModel(model, at('split.onnx'), { externalData: 'always', externalThreshold: 16 });
});
afterAll(() => rm(folder, { recursive: true }));

describe('openModelInput', () => {
  it('opens a path, bytes and a model to the same', async () => {
    const bytes = await readFile(at('net.onnx'));
    const inputs: ModelInput[] = [at('net.onnx'), new Uint8Array(bytes), bytes, model];
    for (const input of inputs) {
      const opened = await openModelInput(input);
      expect(equals(ModelProtoSchema, opened.model, model)).toBe(true);
      expect(opened.bytes).toBe(bytes.length);
      expect(await fingerprint(opened.content)).toBe(await fingerprint(at('net.onnx')));
      expect(await gzipBytes(opened.content)).toBe(await gzipBytes(at('net.onnx')));
      expect(opened.files).toEqual(typeof input === 'string' ? [at('net.onnx')] : []);
      expect(opened.name).toBe(typeof input === 'string' ? at('net.onnx') : 'model in memory');
    }
  });

  it('takes bytes from the middle of a buffer, and leaves bytes and models as they are', async () => {
    const bytes = toBytes(model);
    const around = new Uint8Array(bytes.length + 7).fill(0xff);
    around.set(bytes, 3);
    const before = around.slice();
    const copy = clone(ModelProtoSchema, model);
    expect((await openModelInput(around.subarray(3, 3 + bytes.length))).bytes).toBe(bytes.length);
    await openModelInput(copy);
    expect(around).toEqual(before);
    expect(equals(ModelProtoSchema, copy, model)).toBe(true);
  });

  it('knows the files of external data, whose weights a model in memory holds', async () => {
    const opened = await openModelInput(at('split.onnx'));
    expect(opened.files).toEqual([at('split.onnx'), at('split.onnx_data')]);
    const { model: whole } = await openModel(at('split.onnx'));
    expect((await openModelInput(whole)).files).toEqual([]);
  });

  it.each<[string, () => Promise<unknown> | unknown, RegExp]>([
    ['bytes whose weights are elsewhere', () => readFile(at('split.onnx')), /^some name: the weights of "\w+" are in/],
    [
      'cut bytes',
      () => toBytes(model).subarray(0, 200),
      /^some name is not a readable ONNX model: the file is cut off/,
    ],
    ['no bytes', () => new Uint8Array(), /^some name is empty/],
    ['other things', () => ({ graph: {} }), /given as a path, as the bytes of a file, or as a ModelProto/],
    ['nothing', () => undefined, /given as a path, as the bytes of a file, or as a ModelProto/],
    ['other messages', () => model.graph, /given as a path, as the bytes of a file, or as a ModelProto/],
  ])('refuses %s', async (_, input, message) => {
    const given = (await input()) as ModelProto;
    await expect(openModelInput(given, { name: 'some name' })).rejects.toMatchObject({
      code: 'bad-input',
      message: expect.stringMatching(message) as string,
      hint: expect.any(String) as string,
    });
  });
});

describe('nameOf', () => {
  it('is the path, or tells models in memory apart', () => {
    expect(nameOf('a/b.onnx', 1)).toBe('a/b.onnx');
    expect([nameOf(model), nameOf(model, 0), nameOf(new Uint8Array(), 1)]).toEqual([
      'model in memory',
      'model 1, in memory',
      'model 2, in memory',
    ]);
  });
});
