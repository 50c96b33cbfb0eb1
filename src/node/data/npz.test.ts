import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { zipSync } from 'fflate';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Dataset } from '../../data/dataset.js';
import { writeNpy } from '../../data/npy.js';
import { writeNpz } from '../../data/npz-write.js';
import type { PreprocessOptions } from '../../data/preprocess.js';
import type { HostTensor, HostType, ValueSignature } from '../../runtime/engine.js';
import { openNpz } from './npz.js';

let folder = '';
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'npz-test-'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const input = (name: string, dims: (number | string)[], type: HostType = 'float32'): ValueSignature => ({
  name,
  type,
  dims,
});
const floats = (dims: number[], value = (i: number): number => i): HostTensor => ({
  type: 'float32',
  dims,
  data: Float32Array.from({ length: dims.reduce((a, b) => a * b, 1) }, (_, i) => value(i)),
});
const bytes = (dims: number[], value = (i: number): number => i % 256): HostTensor => ({
  type: 'uint8',
  dims,
  data: Uint8Array.from({ length: dims.reduce((a, b) => a * b, 1) }, (_, i) => value(i)),
});
const labels = (...values: number[]): HostTensor => ({
  type: 'int64',
  dims: [values.length],
  data: BigInt64Array.from(values, BigInt),
});

let counter = 0;
async function open(
  content: Record<string, HostTensor> | Uint8Array,
  inputs: ValueSignature[],
  options: PreprocessOptions = {},
  compress = false,
): Promise<Dataset> {
  const path = join(folder, `data-${counter++}.npz`);
  writeFileSync(path, content instanceof Uint8Array ? content : writeNpz(content, { compress }));
  return openNpz(path, inputs, options);
}
const values = async (dataset: Dataset, rows: number[], name = 'x'): Promise<number[]> =>
  Array.from((await dataset.read(rows)).feeds[name].data, Number);

describe('npz data', () => {
  it.each([false, true])('reads any samples in any order (compressed: %s)', async (compress) => {
    const dataset = await open(
      { x: floats([50, 4]), labels: labels(...Array.from({ length: 50 }, (_, i) => i % 7)) },
      [input('x', ['N', 4])],
      {},
      compress,
    );
    expect(dataset.size).toBe(50);
    const batch = await dataset.read([49, 3, 4, 5, 3]);
    expect(batch.feeds.x.dims).toEqual([5, 4]);
    expect(Array.from(batch.feeds.x.data, Number)).toEqual(
      [49, 3, 4, 5, 3].flatMap((row) => [0, 1, 2, 3].map((column) => row * 4 + column)),
    );
    expect(Array.from(batch.labels!)).toEqual([0, 3, 4, 5, 3]);
    await expect(dataset.read([50])).rejects.toThrow('outside');
    await dataset.close();
    await dataset.close();
  });

  it('leaves no temporary file behind', async () => {
    const count = (): number => readdirSync(tmpdir()).filter((name) => name.startsWith('flow-compress-')).length;
    const before = count();
    const dataset = await open({ x: floats([50, 4]) }, [input('x', ['N', 4])], {}, true);
    expect(await values(dataset, [2])).toEqual([8, 9, 10, 11]);
    await dataset.close();
    expect(count()).toBe(before);
  });

  it('takes the only array for a model with one input, whatever its name', async () => {
    const dataset = await open({ images: floats([3, 2]), labels: labels(0, 1, 2) }, [input('x', [-1, 2])]);
    expect(await values(dataset, [1])).toEqual([2, 3]);
    await dataset.close();
  });

  it('feeds several inputs by name and converts types', async () => {
    const ids: HostTensor = { type: 'int32', dims: [2, 3], data: Int32Array.from([1, 2, 3, 4, 5, 6]) };
    const mask: HostTensor = { type: 'float64', dims: [2], data: Float64Array.from([0.5, 2]) };
    const dataset = await open({ ids, mask, extra: floats([9]) }, [
      input('ids', ['N', 'length'], 'int64'),
      input('mask', ['N']),
    ]);
    const { feeds } = await dataset.read([1, 0]);
    expect(feeds.ids).toEqual({ type: 'int64', dims: [2, 3], data: BigInt64Array.from([4n, 5n, 6n, 1n, 2n, 3n]) });
    expect(feeds.mask).toEqual({ type: 'float32', dims: [2], data: Float32Array.from([2, 0.5]) });
    await dataset.close();
  });

  it('sends uint8 images through the preprocessing, in both layouts', async () => {
    const options = { mean: [0.5, 0.25, 0], std: [0.5] };
    const expected = (row: number): number[] =>
      [0, 1, 2].flatMap((c) =>
        Array.from({ length: 8 }, (_, p) => ((row * 24 + p * 3 + c) / 255 - options.mean[c]) / 0.5),
      );
    const last = await open({ x: bytes([4, 2, 4, 3]) }, [input('x', ['N', 3, 2, 4])], options);
    const second = await open(
      { x: bytes([4, 3, 2, 4], (i) => Math.floor(i / 24) * 24 + (i % 8) * 3 + (Math.floor(i / 8) % 3)) },
      [input('x', ['N', 3, 2, 4])],
      options,
    );
    for (const dataset of [last, second]) {
      (await values(dataset, [2])).forEach((value, i) => expect(value).toBeCloseTo(expected(2)[i], 5));
      await dataset.close();
    }
    const gray = await open({ x: bytes([4, 2, 4]) }, [input('x', ['N', 1, 2, 4])]);
    expect(await values(gray, [1])).toEqual(Array.from({ length: 8 }, (_, i) => Math.fround((8 + i) / 255)));
    await gray.close();
  });

  it('feeds uint8 as it is to a uint8 input, and resizes and transposes where shapes differ', async () => {
    const raw = await open({ x: bytes([2, 2, 4, 3]) }, [input('x', ['N', 2, 4, 3], 'uint8')], { mean: [0.5] });
    expect(await values(raw, [1])).toEqual(Array.from({ length: 24 }, (_, i) => 24 + i));
    await raw.close();
    const turned = await open({ x: bytes([2, 2, 4, 3]) }, [input('x', ['N', 3, 2, 4], 'uint8')]);
    expect((await values(turned, [0])).slice(0, 8)).toEqual([0, 3, 6, 9, 12, 15, 18, 21]);
    await turned.close();
  });

  it('asks for the layout of an ambiguous array', async () => {
    const ambiguous = { x: bytes([2, 3, 8, 3]) };
    await expect(open(ambiguous, [input('x', ['N', 3, 8, 8])])).rejects.toMatchObject({
      code: 'bad-input',
      hint: expect.stringContaining('--layout'),
    });
    const dataset = await open(ambiguous, [input('x', ['N', 3, 8, 8])], { layout: 'nhwc' });
    expect((await dataset.read([0])).feeds.x.dims).toEqual([1, 3, 8, 8]);
    await dataset.close();
    await expect(open({ x: bytes([2, 16]) }, [input('x', ['N', 16])])).rejects.toMatchObject({
      hint: expect.stringContaining('--scale'),
    });
    const scaled = await open({ x: bytes([2, 16]) }, [input('x', ['N', 16])], { scale: 'none' });
    expect((await values(scaled, [1]))[0]).toBe(16);
    await scaled.close();
  });

  it('names the first sample that holds NaN or infinity', async () => {
    const dataset = await open({ x: floats([10, 3], (i) => (i === 20 ? NaN : i)) }, [input('x', ['N', 3])]);
    await dataset.read([0, 1, 2, 3, 4, 5]);
    await expect(dataset.read([9, 6, 0])).rejects.toThrow(/x in .*sample 6 holds NaN/);
    await dataset.close();
    const huge: HostTensor = { type: 'float64', dims: [1, 1], data: Float64Array.from([1e300]) };
    const wide = await open({ x: huge }, [input('x', ['N', 1])]);
    await expect(wide.read([0])).rejects.toThrow('sample 0');
    await wide.close();
  });

  it.each<[string, Record<string, HostTensor>, RegExp]>([
    ['a wrong shape', { x: floats([2, 5]) }, /\[2, 5\].*\[N, 3, 4, 4\]/],
    ['the other layout', { x: floats([2, 4, 4, 3]) }, /\[2, 4, 4, 3\].*\[N, 3, 4, 4\]/],
    ['no samples', { x: floats([0, 3, 4, 4]) }, /empty/],
    ['no array', { labels: labels(1) }, /no array for the model's input x; arrays found: labels/],
    ['several candidates', { a: floats([1]), b: floats([1]) }, /arrays found: a, b/],
    ['too few labels', { x: floats([2, 3, 4, 4]), labels: labels(1) }, /1 labels for 2 samples/],
    ['negative labels', { x: floats([2, 3, 4, 4]), labels: labels(1, -1) }, /label -1 of sample 1/],
    ['float labels', { x: floats([2, 3, 4, 4]), labels: floats([2]) }, /must be integers, found float32/],
    ['one-hot labels', { x: floats([2, 3, 4, 4]), labels: bytes([2, 10]) }, /\[2, 10\]/],
  ])('refuses %s', async (_, arrays, message) => {
    await expect(open(arrays, [input('x', ['N', 3, 4, 4])])).rejects.toMatchObject({
      code: 'bad-input',
      message: expect.stringMatching(message),
    });
  });

  it('refuses inputs whose first axes differ', async () => {
    await expect(
      open({ a: floats([3, 1]), b: floats([4, 1]) }, [input('a', ['N', 1]), input('b', ['N', 1])]),
    ).rejects.toThrow(/4 samples.*3/);
  });

  it('tells how to transpose floats in the other layout', async () => {
    await expect(open({ x: floats([2, 4, 4, 3]) }, [input('x', ['N', 3, 4, 4])])).rejects.toMatchObject({
      hint: expect.stringContaining('transpose(0, 3, 1, 2)'),
    });
  });

  it('refuses what is no .npz, or a broken one', async () => {
    const whole = writeNpz({ x: floats([8, 4]) });
    await expect(
      open(new TextEncoder().encode('hello, this is not a zip file'), [input('x', ['N', 4])]),
    ).rejects.toMatchObject({ code: 'bad-input' });
    await expect(open(whole.slice(0, whole.length - 30), [input('x', ['N', 4])])).rejects.toMatchObject({
      code: 'bad-input',
    });
    await expect(open(whole.slice(0, 0), [input('x', ['N', 4])])).rejects.toMatchObject({ code: 'bad-input' });
    const short = writeNpy(floats([8, 4]));
    await expect(
      open(zipSync({ 'x.npy': short.slice(0, short.length - 8) }, { level: 0 }), [input('x', ['N', 4])]),
    ).rejects.toThrow('truncated');
    const squeezed = writeNpz({ x: floats([800, 4]) }, { compress: true });
    squeezed.fill(0xff, 200, 600);
    await expect(open(squeezed, [input('x', ['N', 4])])).rejects.toMatchObject({
      code: 'bad-input',
      message: expect.stringContaining('corrupt'),
    });
  });

  it('survives any damage with an error of its own', async () => {
    const whole = writeNpz({ x: floats([6, 4]), labels: labels(0, 1, 2, 3, 4, 5) });
    for (let at = 0; at < whole.length; at += 3) {
      const damaged = whole.slice();
      damaged[at] ^= 0x55;
      const outcome = await open(damaged, [input('x', ['N', 4])])
        .then(async (dataset) => {
          await dataset.read([0, 5]).finally(() => dataset.close());
          return 'read';
        })
        .catch((error: unknown) => (error instanceof Error ? error.name : 'other'));
      expect(['read', 'FlowCompressError']).toContain(outcome);
    }
  });
});
