import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import sharp, { type Sharp } from 'sharp';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { OpenedData } from '../../data/dataset.js';
import type { PreprocessOptions } from '../../data/preprocess.js';
import type { ValueSignature } from '../../runtime/engine.js';
import { openDataset } from './open.js';

let root = '';
const images: Record<'png' | 'jpg' | 'webp' | 'gray' | 'alpha', Buffer> = {
  png: Buffer.alloc(0),
  jpg: Buffer.alloc(0),
  webp: Buffer.alloc(0),
  gray: Buffer.alloc(0),
  alpha: Buffer.alloc(0),
};
const solid = (channels: 3 | 4, alpha = 1): Sharp =>
  sharp({ create: { width: 4, height: 4, channels, background: { r: 200, g: 100, b: 50, alpha } } });

beforeAll(async () => {
  root = mkdtempSync(join(tmpdir(), 'images-test-'));
  images.png = await solid(3).png().toBuffer();
  images.jpg = await solid(3).jpeg({ quality: 100, chromaSubsampling: '4:4:4' }).toBuffer();
  images.webp = await solid(3).webp({ lossless: true }).toBuffer();
  images.gray = await sharp(Buffer.alloc(16, 77), { raw: { width: 4, height: 4, channels: 1 } })
    .toColourspace('b-w')
    .png()
    .toBuffer();
  images.alpha = await solid(4, 0.5).png().toBuffer();
});
afterAll(() => rmSync(root, { recursive: true, force: true }));

const inputs: ValueSignature[] = [{ name: 'x', type: 'float32', dims: ['N', 3, 4, 4] }];
const raw: PreprocessOptions = { scale: 'none' };

let counter = 0;
function folder(files: Record<string, Uint8Array | string>): string {
  const path = join(root, String(counter++));
  mkdirSync(path);
  for (const [name, content] of Object.entries(files)) {
    if (name.endsWith('/')) mkdirSync(join(path, name), { recursive: true });
    else {
      mkdirSync(dirname(join(path, name)), { recursive: true });
      writeFileSync(join(path, name), content);
    }
  }
  return path;
}
const open = (path: string, options = raw): Promise<OpenedData> => openDataset(path, inputs, options);

describe('image folders', () => {
  it('decode PNG, JPEG and WebP, gray and transparent images', async () => {
    const data = await open(
      folder({
        'a/1.png': images.png,
        'a/2.JPG': images.jpg,
        'a/3.webp': images.webp,
        'b/1.jpeg': images.jpg,
        'b/2.png': images.gray,
        'b/3.png': images.alpha,
      }),
    );
    const batch = await data.all!.read([0, 1, 2, 3, 4, 5]);
    expect(batch.feeds.x.dims).toEqual([6, 3, 4, 4]);
    expect(Array.from(batch.labels!)).toEqual([0, 0, 0, 1, 1, 1]);
    const expected = [200, 100, 50];
    for (let image = 0; image < 6; image++)
      for (let c = 0; c < 3; c++)
        for (let p = 0; p < 16; p++) {
          const value = Number(batch.feeds.x.data[(image * 3 + c) * 16 + p]);
          expect(Math.abs(value - (image === 4 ? 77 : expected[c]))).toBeLessThanOrEqual(
            image === 1 || image === 3 ? 3 : 0,
          );
        }
    expect(data).toMatchObject({ kind: 'images', notes: [] });
    expect(data.all!.classNames).toEqual(['a', 'b']);
  });

  it('label classes by name, and by value where all names are numbers', async () => {
    const byName = await open(folder({ 'dog/1.png': images.png, 'ant/1.png': images.png, '10/1.png': images.png }));
    expect(byName.all!.classNames).toEqual(['10', 'ant', 'dog']);
    const byValue = await open(folder({ '10/1.png': images.png, '2/1.png': images.png, '0/1.png': images.png }));
    expect(byValue.all!.classNames).toEqual(['0', '2', '10']);
  });

  it('take train, val and test folders as splits with one list of classes', async () => {
    for (const [val, test] of [
      ['val', 'test'],
      ['validation', 'test'],
      ['valid', 'Test'],
    ]) {
      const data = await open(
        folder({
          'train/a/1.png': images.png,
          'train/b/1.png': images.png,
          'train/b/2.png': images.png,
          [`${val}/b/1.png`]: images.png,
          [`${test}/b/1.png`]: images.png,
          [`${test}/a/1.png`]: images.png,
        }),
      );
      expect([data.train!.size, data.val!.size, data.test!.size, data.all]).toEqual([3, 1, 2, undefined]);
      expect(Array.from(data.val!.labels!)).toEqual([1]);
      expect(Array.from(data.test!.labels!)).toEqual([0, 1]);
    }
  });

  it('take a class that happens to be called train as a class', async () => {
    const data = await open(folder({ 'train/1.png': images.png, 'bus/1.png': images.png }));
    expect(data.all!.classNames).toEqual(['bus', 'train']);
  });

  it('read images without class folders as data without labels', async () => {
    const data = await open(folder({ '2.png': images.png, '1.jpg': images.jpg, 'empty/': '' }));
    expect(data.all!.size).toBe(2);
    expect(data.all!.labels).toBeUndefined();
    expect((await data.all!.read([1])).labels).toBeUndefined();
  });

  it('leave out other files with a note, look into nested folders, and follow links', async () => {
    const path = folder({
      'a/1.png': images.png,
      'a/images/2.png': images.png,
      'a/notes.txt': 'hi',
      '.cache/x.png': images.png,
      'b/.DS_Store': '',
      'readme.md': '',
    });
    mkdirSync(join(path, 'b'), { recursive: true });
    symlinkSync(join(path, 'a', '1.png'), join(path, 'b', 'link.png'));
    symlinkSync(join(path, 'gone'), join(path, 'b', 'broken.png'));
    const data = await open(path);
    expect(data.all!.classNames).toEqual(['a', 'b']);
    expect(Array.from(data.all!.labels!)).toEqual([0, 0, 1]);
    expect(data.notes.join('\n')).toMatch(/3 files .*notes\.txt/);
  });

  it('refuse class folders without images', async () => {
    const path = folder({ 'a/1.png': images.png, 'b/notes.txt': 'hi', 'c/': '' });
    await expect(open(path)).rejects.toMatchObject({
      code: 'bad-input',
      message: `Class folder ${join(path, 'b')} holds no PNG, JPEG or WebP images (2 such folders).`,
    });
  });

  it('name a corrupt file among good ones when it is read', async () => {
    const path = folder({
      'a/1.png': images.png,
      'a/2.png': images.png.subarray(0, images.png.length - 30),
      'a/3.png': 'text',
      'a/4.png': '',
    });
    const data = await open(path);
    expect((await data.all!.read([0])).size).toBe(1);
    for (const index of [1, 2, 3]) {
      await expect(data.all!.read([0, index])).rejects.toMatchObject({
        code: 'bad-input',
        node: join(path, 'a', `${index + 1}.png`),
      });
    }
  });

  it('refuse a folder without images, and splits with different classes', async () => {
    await expect(open(folder({ 'a/': '', 'b/x.txt': 'x' }))).rejects.toMatchObject({
      code: 'bad-input',
      message: expect.stringContaining('no PNG'),
    });
    await expect(open(folder({}))).rejects.toMatchObject({ code: 'bad-input' });
    await expect(open(folder({ 'train/a/1.png': images.png, 'test/c/1.png': images.png }))).rejects.toThrow('Class c');
    await expect(open(folder({ 'train/a/1.png': images.png, 'test/1.png': images.png }))).rejects.toThrow(
      'no class folders',
    );
    await expect(open(folder({ 'val/a/1.png': images.png, 'valid/a/1.png': images.png }))).rejects.toThrow(
      'two folders for val',
    );
  });

  it('ask for the size where the model leaves it open', async () => {
    const path = folder({ 'a/1.png': images.png });
    const dynamic: ValueSignature[] = [{ name: 'x', type: 'float32', dims: ['N', 3, 'h', 'w'] }];
    await expect(openDataset(path, dynamic)).rejects.toMatchObject({ hint: expect.stringContaining('--size') });
    const data = await openDataset(path, dynamic, { size: 6 });
    expect((await data.all!.read([0])).feeds.x.dims).toEqual([1, 3, 6, 6]);
    await expect(openDataset(path, [...inputs, { ...inputs[0], name: 'y' }])).rejects.toThrow('the model has 2');
  });
});
