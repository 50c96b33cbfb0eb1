import { mkdtemp, readdir, readFile, rm, symlink, truncate, writeFile } from 'node:fs/promises';
import { platform, tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { openAnswerFiles } from './answer-file.js';

const WIDTH = 3;
let folder: string;
beforeEach(async () => (folder = await mkdtemp(join(tmpdir(), 'answers-'))));
afterEach(() => rm(folder, { recursive: true }));

const open = (key = 'one', samples = 10, width = WIDTH) => openAnswerFiles(join(folder, 'kept'), key, samples, width);
const rowsOf = (indices: readonly number[], round: number): Float32Array =>
  Float32Array.from(indices.flatMap((i) => [i, round, NaN]));

async function holds(indices: readonly number[], round: number): Promise<boolean> {
  const store = await open();
  const rows = new Float32Array(indices.length * WIDTH);
  const found = await store.read(round, indices, rows);
  if (found) expect(rows).toEqual(rowsOf(indices, round));
  await store.close();
  return found;
}

describe('openAnswerFiles', () => {
  it('gives back what was written, by round and sample, in this run and the next', async () => {
    const store = await open();
    await store.write(0, [4, 0, 9], rowsOf([4, 0, 9], 0));
    await store.write(3, [4], rowsOf([4], 3));
    const rows = new Float32Array(6);
    expect(await store.read(0, [9, 4], rows)).toBe(true);
    expect(rows).toEqual(rowsOf([9, 4], 0));
    expect(await store.read(0, [4, 5], rows)).toBe(false);
    expect(await store.read(3, [0], rows)).toBe(false);
    await store.close();
    expect(await holds([0, 9, 4], 0)).toBe(true);
    expect(await holds([4], 3)).toBe(true);
    expect(await holds([1], 0)).toBe(false);
    expect(await holds([4], 1)).toBe(false);
  });

  it('does not take a row for complete whose writing was cut off at any place', async () => {
    const path = join(folder, 'kept', 'round-0.f32');
    const store = await open();
    await store.write(0, [0, 1], rowsOf([0, 1], 0));
    await store.close();
    const whole = await readFile(path);
    for (let length = whole.length - 1; length >= whole.length / 2; length--) {
      await truncate(path, length);
      // What lies behind, written later, leaves zeros in the gap.
      const after = await open();
      await after.write(0, [2], rowsOf([2], 0));
      await after.close();
      expect(await holds([1], 0)).toBe(false);
      expect(await holds([0, 2], 0)).toBe(true);
    }
  });

  it.each([
    ['key', 'two', 10, WIDTH],
    ['number of samples', 'one', 11, WIDTH],
    ['width', 'one', 10, 4],
  ])('refuses a folder of another %s, and leaves it alone', async (_, key, samples, width) => {
    const store = await open();
    await store.write(0, [1], rowsOf([1], 0));
    await store.close();
    await expect(open(key, samples, width)).rejects.toMatchObject({
      code: 'bad-input',
      message: expect.stringContaining('another teacher, other data or other options') as string,
      hint: expect.stringContaining('--cache-teacher') as string,
    });
    expect(await holds([1], 0)).toBe(true);
  });

  it('names the folder that cannot be one', async () => {
    await writeFile(join(folder, 'kept'), 'a file');
    await expect(open()).rejects.toMatchObject({ code: 'io', node: join(folder, 'kept') });
    expect(await readdir(folder)).toEqual(['kept']);
  });

  // The device that is always full.
  it.runIf(platform() === 'linux')('says that the disk is full', async () => {
    await (await open()).close();
    await symlink('/dev/full', join(folder, 'kept', 'round-0.f32'));
    const store = await open();
    await expect(store.write(0, [1], rowsOf([1], 0))).rejects.toMatchObject({
      code: 'io',
      message: expect.stringMatching(/cannot be kept in .*ENOSPC/) as string,
      hint: expect.stringContaining('Free some space') as string,
    });
    await store.close();
  });
});
