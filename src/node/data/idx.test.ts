import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { ValueSignature } from '../../runtime/engine.js';
import { openDataset } from './open.js';

let root = '';
beforeAll(() => {
  root = mkdtempSync(join(tmpdir(), 'idx-test-'));
});
afterAll(() => rmSync(root, { recursive: true, force: true }));

const inputs: ValueSignature[] = [{ name: 'x', type: 'float32', dims: ['N', 1, 3, 2] }];

function idx(dims: number[], value = (i: number): number => i % 256, type = 8): Buffer {
  const header = Buffer.alloc(4 + 4 * dims.length);
  header.set([0, 0, type, dims.length]);
  dims.forEach((dim, axis) => header.writeUInt32BE(dim, 4 + 4 * axis));
  return Buffer.concat([header, Uint8Array.from({ length: dims.reduce((a, b) => a * b, 1) }, (_, i) => value(i))]);
}

let counter = 0;
function folder(files: Record<string, Uint8Array>): string {
  const path = join(root, String(counter++));
  mkdirSync(path);
  for (const [name, content] of Object.entries(files)) writeFileSync(join(path, name), content);
  return path;
}

describe('IDX data', () => {
  it.each([
    ['train-images-idx3-ubyte', 'train-labels-idx1-ubyte'],
    ['train-images.idx3-ubyte.gz', 'train-labels.idx1-ubyte'],
    ['images-idx3-ubyte', 'labels-idx1-ubyte.gz'],
  ])('finds the labels beside %s', async (images, labels) => {
    const pack = (name: string, bytes: Buffer): Buffer => (name.endsWith('.gz') ? gzipSync(bytes) : bytes);
    const path = folder({
      [images]: pack(images, idx([4, 3, 2])),
      [labels]: pack(
        labels,
        idx([4], (i) => 3 - i),
      ),
    });
    for (const source of [path, join(path, images)]) {
      const data = await openDataset(source, inputs, { scale: 'none' });
      const batch = await data.all!.read([3, 0]);
      expect(batch.feeds.x).toEqual({
        type: 'float32',
        dims: [2, 1, 3, 2],
        data: Float32Array.from([18, 19, 20, 21, 22, 23, 0, 1, 2, 3, 4, 5]),
      });
      expect(Array.from(batch.labels!)).toEqual([0, 3]);
      expect(data).toMatchObject({ kind: 'idx', notes: [] });
      await data.close();
    }
  });

  it('takes train and t10k of a folder as splits', async () => {
    const path = folder({
      'train-images-idx3-ubyte': idx([5, 3, 2]),
      'train-images-idx3-ubyte.gz': gzipSync(idx([5, 3, 2])),
      'train-labels-idx1-ubyte': idx([5]),
      't10k-images-idx3-ubyte.gz': gzipSync(idx([2, 3, 2])),
      't10k-labels-idx1-ubyte.gz': gzipSync(idx([2])),
    });
    const data = await openDataset(path, inputs);
    expect([data.all, data.train?.size, data.val, data.test?.size]).toEqual([undefined, 5, undefined, 2]);
    await data.close();
  });

  it('works without labels and says so', async () => {
    const data = await openDataset(
      folder({ 'a-images-idx4-ubyte': idx([2, 2, 3, 3]) }),
      [{ name: 'x', type: 'float32', dims: ['N', 3, 2, 3] }],
      { layout: 'nhwc' },
    );
    expect(data.all?.labels).toBeUndefined();
    expect(data.notes.join()).toContain('without labels');
    await data.close();
  });

  it.each<[string, Record<string, Uint8Array>, string]>([
    ['a wrong element type', { 'images-idx3-ubyte': idx([1, 3, 2], () => 0, 0x0d) }, 'unsigned byte'],
    ['labels in place of images', { 'images-idx3-ubyte': idx([6]) }, 'axes'],
    ['other content', { 'images-idx3-ubyte': Buffer.from('some text') }, 'zero bytes'],
    ['a truncated file', { 'images-idx3-ubyte': idx([4, 3, 2]).subarray(0, 30) }, 'truncated'],
    ['an empty file', { 'images-idx3-ubyte': Buffer.alloc(0) }, '0 bytes'],
    ['no samples', { 'images-idx3-ubyte': idx([0, 3, 2]) }, 'empty'],
    ['a corrupt gzip', { 'images-idx3-ubyte.gz': Buffer.from('not gzip at all') }, 'corrupt'],
    [
      'labels that do not match',
      { 'images-idx3-ubyte': idx([4, 3, 2]), 'labels-idx1-ubyte': idx([3]) },
      '3 labels for 4',
    ],
    [
      'unclear names',
      { 'a-images-idx3-ubyte': idx([4, 3, 2]), 'b-images-idx3-ubyte': idx([4, 3, 2]) },
      'a-images-idx3-ubyte, b-images-idx3-ubyte',
    ],
  ])('refuses %s', async (_, files, message) => {
    await expect(openDataset(folder(files), inputs)).rejects.toMatchObject({
      code: 'bad-input',
      message: expect.stringContaining(message),
    });
  });
});
