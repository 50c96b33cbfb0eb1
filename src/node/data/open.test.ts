import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { writeNpy } from '../../data/npy.js';
import { writeNpz } from '../../data/npz-write.js';
import type { HostTensor, ValueSignature } from '../../runtime/engine.js';
import { openDataset } from './open.js';
import { readPreprocessFile } from './preprocess-file.js';

let root = '';
const tensor: HostTensor = { type: 'float32', dims: [2, 2], data: new Float32Array(4) };
const inputs: ValueSignature[] = [{ name: 'x', type: 'float32', dims: ['N', 2] }];

beforeAll(() => {
  root = mkdtempSync(join(tmpdir(), 'open-test-'));
  writeFileSync(join(root, 'data.npz'), writeNpz({ x: tensor }));
  writeFileSync(join(root, 'unnamed'), writeNpz({ x: tensor }));
  writeFileSync(join(root, 'data.npy'), writeNpy(tensor));
  writeFileSync(join(root, 'data.csv'), 'a,b\n1,2\n');
  writeFileSync(join(root, 'one.png'), 'png');
  writeFileSync(join(root, 'empty.npz'), '');
  mkdirSync(join(root, 'arrays'));
  writeFileSync(join(root, 'arrays', 'train.npz'), writeNpz({ x: tensor }));
});
afterAll(() => rmSync(root, { recursive: true, force: true }));

describe('openDataset', () => {
  it.each(['data.npz', 'unnamed'])('recognises %s', async (name) => {
    const data = await openDataset(join(root, name), inputs);
    expect(data.kind).toBe('npz');
    expect(data.all?.size).toBe(2);
    await data.close();
  });

  it.each([
    ['gone.npz', /does not exist/],
    ['data.npy', /single \.npy/],
    ['data.csv', /not a kind of data/],
    ['one.png', /single image/],
    ['empty.npz', /is empty/],
    ['arrays', /folder of \.npz files \(train\.npz\)/],
  ])('refuses %s with a remedy', async (name, message) => {
    const path = join(root, name);
    await expect(openDataset(path, inputs)).rejects.toMatchObject({
      code: 'bad-input',
      message: expect.stringMatching(message),
      node: path,
      hint: expect.stringMatching(/./),
    });
  });
});

describe('readPreprocessFile', () => {
  it('reads a file and names it in errors', async () => {
    writeFileSync(join(root, 'p.json'), '{"do_resize": true, "size": 32}');
    expect(await readPreprocessFile(join(root, 'p.json'))).toMatchObject({ size: 32 });
    await expect(readPreprocessFile(join(root, 'gone.json'))).rejects.toMatchObject({
      code: 'io',
      node: join(root, 'gone.json'),
    });
  });
});
