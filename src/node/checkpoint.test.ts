import { mkdtemp, open, readdir, readFile, rm, writeFile, type FileHandle } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { normals } from '../testing/tiny-models.js';
import type { TrainingVectors } from '../training/stepper.js';
import { NOT_BEGUN } from '../training/trainer.js';
import { readCheckpoint, writeCheckpoint, type Checkpoint } from './checkpoint.js';

let folder: string;
let path: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'flow-checkpoint-'));
  path = join(folder, 'checkpoint.npz');
});
afterEach(async () => {
  vi.restoreAllMocks();
  await rm(folder, { recursive: true });
});

function vectors(seed: number, states: number, average = true, buffers = 3): TrainingVectors {
  return {
    parameters: normals(5, seed),
    buffers: normals(buffers, seed + 1),
    states: Array.from({ length: states }, (_, i) => normals(5, seed + 2 + i)),
    ...(average && { average: normals(5, seed + 9) }),
  };
}

const LAYOUT = 'w:4 b:1';
const CHECKPOINT: Checkpoint = {
  progress: {
    ...{ epoch: 2, stepInEpoch: 1, unevaluated: 1, lossSum: 0.1 + 0.2, steps: 7, seconds: 1.25 },
    plateau: { best: 0.5, waited: 1, factor: 0.3 },
    learningRate: 0.01,
    best: { score: 0.75, epoch: 1, step: 4 },
  },
  vectors: vectors(1, 2),
  best: vectors(50, 0),
};

describe('a checkpoint', () => {
  it.each<[string, Checkpoint]>([
    ['with everything', CHECKPOINT],
    ['at the very start', { progress: NOT_BEGUN, vectors: vectors(3, 1, false, 0), best: undefined }],
    [
      'of special numbers',
      { ...CHECKPOINT, vectors: { ...vectors(1, 1), parameters: Float32Array.of(NaN, -0, Infinity, 1e-45) } },
    ],
  ])('comes back as it was: %s', async (_, checkpoint) => {
    await writeCheckpoint(path, LAYOUT, checkpoint);
    expect(await readCheckpoint(path, LAYOUT)).toEqual(checkpoint);
    expect(await readdir(folder)).toEqual(['checkpoint.npz']);
  });

  it('is undefined where there is none', async () => {
    expect(await readCheckpoint(path, LAYOUT)).toBeUndefined();
  });

  it('is not read for another model', async () => {
    await writeCheckpoint(path, LAYOUT, CHECKPOINT);
    await expect(readCheckpoint(path, 'w:5')).rejects.toMatchObject({
      code: 'bad-input',
      message: expect.stringContaining('another model') as string,
      node: path,
    });
  });

  it('is an io error where it cannot be read', async () => {
    await expect(readCheckpoint(folder, LAYOUT)).rejects.toMatchObject({ code: 'io', node: folder });
  });

  it('is refused when it is cut short anywhere', async () => {
    await writeCheckpoint(path, LAYOUT, CHECKPOINT);
    const whole = await readFile(path);
    for (let length = 0; length < whole.length; length += 37) {
      await writeFile(path, whole.subarray(0, length));
      await expect(readCheckpoint(path, LAYOUT)).rejects.toMatchObject({ code: 'bad-input' });
    }
  });

  it('with any flipped bit is refused or comes back as it was', async () => {
    const checkpoint = { ...CHECKPOINT, vectors: { ...CHECKPOINT.vectors, parameters: normals(2000, 4) } };
    await writeCheckpoint(path, LAYOUT, checkpoint);
    const whole = await readFile(path);
    let refused = 0;
    await fc.assert(
      fc.asyncProperty(fc.nat(whole.length * 8 - 1), async (bit) => {
        const changed = Buffer.from(whole);
        changed[bit >> 3]! ^= 1 << (bit & 7);
        await writeFile(path, changed);
        try {
          expect(await readCheckpoint(path, LAYOUT)).toEqual(checkpoint);
        } catch (error) {
          expect(error).toMatchObject({ code: 'bad-input' });
          refused++;
        }
      }),
      { numRuns: 200 },
    );
    expect(refused).toBeGreaterThan(50);
  });

  it('that cannot be written leaves the one before', async () => {
    await writeCheckpoint(path, LAYOUT, CHECKPOINT);
    const before = await readFile(path);
    const handle = await open(path);
    const kind = Object.getPrototypeOf(handle) as FileHandle;
    await handle.close();
    vi.spyOn(kind, 'writev').mockRejectedValueOnce(Object.assign(new Error('no space left'), { code: 'ENOSPC' }));
    const next = { ...CHECKPOINT, vectors: vectors(99, 2) };
    await expect(writeCheckpoint(path, LAYOUT, next)).rejects.toMatchObject({ code: 'io' });
    expect(await readFile(path)).toEqual(before);
    expect(await readdir(folder)).toEqual(['checkpoint.npz']);
    await writeCheckpoint(path, LAYOUT, next);
    expect((await readCheckpoint(path, LAYOUT))!.vectors).toEqual(next.vectors);
  });
});
