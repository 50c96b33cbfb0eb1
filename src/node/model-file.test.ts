import { equals, toBinary } from '@bufbuild/protobuf';
import {
  copyFile,
  mkdir,
  mkdtemp,
  open,
  readFile,
  readdir,
  rename,
  rm,
  stat,
  symlink,
  truncate,
  writeFile,
} from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { ModelProtoSchema } from 'onnx-buf';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { FlowCompressError } from '../errors.js';
import { validateModel } from '../onnx/validate.js';
import { chainModel, richModel } from '../testing/rich-model.js';
import { gzipBytes, modelBytes, openModel, saveModel } from './model-file.js';

let folder: string;
const at = (name: string): string => join(folder, name);

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'model-file-'));
});
afterEach(async () => {
  await rm(folder, { recursive: true, force: true });
});

async function refusal(work: Promise<unknown>): Promise<FlowCompressError> {
  try {
    await work;
  } catch (error) {
    if (error instanceof FlowCompressError) return error;
    throw error;
  }
  throw new Error('nothing was refused');
}

describe('saveModel and openModel', () => {
  it('give the same model back from one file', async () => {
    const model = richModel();
    const saved = await saveModel(model, at('m.onnx'));
    const opened = await openModel(at('m.onnx'));
    expect(equals(ModelProtoSchema, opened.model, model)).toBe(true);
    expect(opened).toMatchObject({ path: at('m.onnx'), bytes: saved.bytes, externalFiles: [] });
    expect(saved.bytes).toBe((await stat(at('m.onnx'))).size);
    expect(Buffer.compare(await readFile(at('m.onnx')), toBinary(ModelProtoSchema, model))).toBe(0);
  });

  it('give the same model back from external data', async () => {
    const model = richModel();
    const saved = await saveModel(model, at('m.onnx'), { externalData: 'always', externalThreshold: 8 });
    expect(saved.externalFiles).toEqual([at('m.onnx_data')]);
    const opened = await openModel(at('m.onnx'));
    validateModel(opened.model);
    expect(equals(ModelProtoSchema, opened.model, model)).toBe(true);
    expect(Buffer.compare(toBinary(ModelProtoSchema, opened.model), toBinary(ModelProtoSchema, model))).toBe(0);
    const sizes = await Promise.all(['m.onnx', 'm.onnx_data'].map(async (name) => (await stat(at(name))).size));
    expect(opened.bytes).toBe(sizes[0] + sizes[1]);
    expect(saved.bytes).toBe(opened.bytes);
    expect(await modelBytes(at('m.onnx'))).toBe(opened.bytes);
    expect(opened.externalFiles).toEqual([at('m.onnx_data')]);
  });

  it('chooses external data by size', async () => {
    const model = chainModel(2, 1000);
    expect((await saveModel(model, at('a.onnx'), { maxFileBytes: 8000 })).externalFiles).toHaveLength(1);
    expect((await saveModel(model, at('b.onnx'), { maxFileBytes: 9000 })).externalFiles).toHaveLength(0);
    expect(
      (await saveModel(model, at('c.onnx'), { maxFileBytes: 10, externalData: 'never' })).externalFiles,
    ).toHaveLength(0);
    // Nothing is large enough to be moved.
    expect((await saveModel(chainModel(1, 2), at('d.onnx'), { externalData: 'always' })).externalFiles).toHaveLength(0);
  });

  it('overwrites neither existing files nor inputs', async () => {
    const model = chainModel(2, 1000);
    await saveModel(model, at('m.onnx'), { externalData: 'always' });
    const opened = await openModel(at('m.onnx'));
    const inputs = [opened.path, ...opened.externalFiles];
    const before = await readFile(at('m.onnx_data'));
    expect((await refusal(saveModel(model, at('m.onnx')))).message).toContain('exists');
    expect((await refusal(saveModel(model, at('m.onnx'), { force: true, inputs }))).message).toContain('same file');
    await rename(at('m.onnx'), at('moved.onnx'));
    const clash = saveModel(chainModel(3, 1000), at('m.onnx'), {
      externalData: 'always',
      force: true,
      inputs: [at('moved.onnx'), ...opened.externalFiles],
    });
    expect((await refusal(clash)).message).toContain('m.onnx_data');
    expect(Buffer.compare(await readFile(at('m.onnx_data')), before)).toBe(0);
    expect((await readdir(folder)).sort()).toEqual(['m.onnx_data', 'moved.onnx']);
  });

  it('replaces both files of a model with force', async () => {
    await saveModel(chainModel(2, 1000), at('m.onnx'), { externalData: 'always' });
    const model = chainModel(3, 2000);
    await saveModel(model, at('m.onnx'), { externalData: 'always', force: true });
    expect(equals(ModelProtoSchema, (await openModel(at('m.onnx'))).model, model)).toBe(true);
    expect((await readdir(folder)).sort()).toEqual(['m.onnx', 'm.onnx_data']);
  });

  it('leaves nothing after an abort', async () => {
    const signal = AbortSignal.abort();
    expect((await refusal(saveModel(chainModel(1, 10), at('m.onnx'), { signal }))).code).toBe('aborted');
    expect(await readdir(folder)).toEqual([]);
  });
});

describe('openModel', () => {
  it('finds the model in a folder', async () => {
    const model = chainModel(1, 4);
    await mkdir(at('hf/onnx'), { recursive: true });
    await saveModel(model, at('hf/onnx/model.onnx'));
    expect((await openModel(at('hf'))).path).toBe(at('hf/onnx/model.onnx'));
    await mkdir(at('flat'));
    expect((await refusal(openModel(at('flat')))).message).toContain('holds no ONNX model');
    await copyFile(at('hf/onnx/model.onnx'), at('flat/net.onnx'));
    expect((await openModel(at('flat'))).path).toBe(at('flat/net.onnx'));
    await copyFile(at('flat/net.onnx'), at('flat/net2.onnx'));
    expect((await refusal(openModel(at('flat')))).message).toContain('net.onnx, net2.onnx');
    await copyFile(at('flat/net.onnx'), at('flat/model.onnx'));
    expect((await openModel(at('flat'))).path).toBe(at('flat/model.onnx'));
  });

  it('names a missing file, and one of 2 GiB', async () => {
    expect(await refusal(openModel(at('none.onnx')))).toMatchObject({ code: 'io', node: at('none.onnx') });
    const sparse = await open(at('huge.onnx'), 'w');
    await sparse.truncate(2 ** 31);
    await sparse.close();
    expect((await refusal(openModel(at('huge.onnx')))).hint).toContain('external data');
  });

  it('names tensor, file and remedy when external data are missing or short', async () => {
    await saveModel(chainModel(2, 1000), at('m.onnx'), { externalData: 'always' });
    await truncate(at('m.onnx_data'), 6000);
    const short = await refusal(openModel(at('m.onnx')));
    expect(short.message).toContain('"w1"');
    expect(short.message).toContain('m.onnx_data has 6000 bytes');
    await rm(at('m.onnx_data'));
    const missing = await refusal(openModel(at('m.onnx')));
    expect(missing).toMatchObject({ code: 'io' });
    expect(missing.message).toContain('"w0"');
    expect(missing.hint).toContain('m.onnx_data');
  });

  it('does not follow a link out of the folder, but reads a download cache of links', async () => {
    await mkdir(at('in'));
    await saveModel(chainModel(2, 1000), at('in/m.onnx'), { externalData: 'always' });
    await rename(at('in/m.onnx_data'), at('secret'));
    await symlink(at('secret'), at('in/m.onnx_data'));
    expect((await refusal(openModel(at('in/m.onnx')))).message).toContain('leads out of the folder');

    await mkdir(at('blobs'));
    await rename(at('in/m.onnx'), at('blobs/1'));
    await rename(at('secret'), at('blobs/2'));
    await rm(at('in/m.onnx_data'));
    await symlink(at('blobs/1'), at('in/m.onnx'));
    await symlink(at('blobs/2'), at('in/m.onnx_data'));
    expect((await openModel(at('in/m.onnx'))).model.graph?.initializer[1].rawData.length).toBe(4000);
  });

  it('refuses a damaged file by name', async () => {
    await writeFile(at('m.onnx'), '<html>');
    expect(await refusal(openModel(at('m.onnx')))).toMatchObject({ code: 'bad-input', node: at('m.onnx') });
  });
});

describe('gzipBytes', () => {
  it('adds up the compressed files', async () => {
    await saveModel(chainModel(3, 5000), at('m.onnx'), { externalData: 'always' });
    await saveModel(chainModel(3, 5000), at('one.onnx'));
    const alone = async (name: string): Promise<number> => gzipSync(await readFile(at(name))).length;
    expect(await gzipBytes(at('m.onnx'))).toBe((await alone('m.onnx')) + (await alone('m.onnx_data')));
    expect(await gzipBytes(at('one.onnx'))).toBe(await alone('one.onnx'));
    expect((await refusal(gzipBytes(at('one.onnx'), { signal: AbortSignal.abort() }))).code).toBe('aborted');
  });
});
