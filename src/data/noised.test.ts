import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { ValueSignature } from '../runtime/engine.js';
import type { Dataset } from './dataset.js';
import { noiseCount, noiseDataset } from './noise.js';
import { noised, noisedInputs, parseSchedule, timeTensor } from './noised.js';

const x: ValueSignature = { name: 'x', type: 'float32', dims: ['N', 2, 2] };
const t: ValueSignature = { name: 't', type: 'float32', dims: ['N'] };
const of = { sample: x, time: t, noise: 'eps' };

/** Sample i is full of i. */
const clean: Dataset = {
  ...{ source: 'clean', size: 3, labels: Int32Array.of(0, 1, 2) },
  read: (indices) => {
    const data = Float32Array.from({ length: indices.length * 4 }, (_, at) => indices[Math.floor(at / 4)]!);
    return Promise.resolve({
      feeds: { x: { type: 'float32', dims: [indices.length, 2, 2], data } },
      size: indices.length,
    });
  },
  close: () => Promise.resolve(),
};

describe('parseSchedule', () => {
  it('keeps the product of 1 - beta', () => {
    const { steps, kept } = parseSchedule('linear:0.1:0.3:3');
    expect(steps).toBe(3);
    [0.9, 0.9 * 0.8, 0.9 * 0.8 * 0.7].forEach((v, i) => {
      expect(kept[i]).toBeCloseTo(v, 12);
    });
  });

  it.each([
    '',
    'cosine:0.1:0.2:10',
    'linear:0.1:0.2',
    'linear:0.2:0.1:10',
    'linear:0:0.1:10',
    'linear:0.1:1:10',
    'linear:a:b:c',
    'linear:0.1:0.2:2.5',
    'linear:0.1:0.2:1',
  ])('refuses %j', (text) => {
    expect(() => parseSchedule(text)).toThrow(/is no noise schedule/);
  });
});

describe('noised', () => {
  const schedule = parseSchedule('linear:0.001:0.2:50');

  it('is sqrt(a) x + sqrt(1 - a) e at the step that it says, with e as the target and x beside it', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(fc.nat(11), { minLength: 1, maxLength: 6 }), fc.nat(9), async (indices, seed) => {
        const {
          feeds,
          targets,
          clean: before,
        } = await (await noised(clean, of, schedule, { draws: 4, seed })).read(indices);
        const [mixed, noise] = [feeds.x!.data as Float32Array, targets!.eps!.data as Float32Array];
        indices.forEach((index, n) => {
          const kept = schedule.kept[Math.round(Number(feeds.t!.data[n]) * 50)]!;
          for (let i = 4 * n; i < 4 * n + 4; i++) {
            expect(before!.data[i]).toBe(index % 3);
            expect(mixed[i]).toBeCloseTo(Math.sqrt(kept) * (index % 3) + Math.sqrt(1 - kept) * noise[i]!, 5);
          }
        });
      }),
      { numRuns: 20 },
    );
  });

  it('draws anew for every repetition, the same whenever it is read, and by its seed', async () => {
    const dataset = await noised(clean, of, schedule, { draws: 4, seed: 1 });
    expect([dataset.size, [...dataset.labels!], dataset.targets]).toEqual([
      12,
      [0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2],
      { eps: [12, 2, 2] },
    ]);
    const noise = async (from: Dataset, index: number): Promise<number[]> => [
      ...((await from.read([index])).targets!.eps!.data as Float32Array),
    ];
    expect(await noise(dataset, 1)).toEqual([
      ...((await dataset.read([5, 1])).targets!.eps!.data as Float32Array).subarray(4),
    ]);
    expect(await noise(dataset, 1)).not.toEqual(await noise(dataset, 4));
    expect(await noise(dataset, 1)).not.toEqual(
      await noise(await noised(clean, of, schedule, { draws: 4, seed: 2 }), 1),
    );
  });
});

describe('noisedInputs', () => {
  it('tells sample and step apart by their shapes', () => {
    const column: ValueSignature = { name: 's', type: 'int64', dims: ['N', 1] };
    expect(noisedInputs([column, x], [{ ...x, name: 'eps' }])).toEqual({ sample: x, time: column, noise: 'eps' });
    expect(timeTensor(column, [3, 4], parseSchedule('linear:0.1:0.2:10'))).toEqual({
      ...{ type: 'int64', dims: [2, 1], data: BigInt64Array.of(3n, 4n) },
    });
  });

  it.each([[[x]], [[x, x]], [[t]], [[x, t, t]]])('refuses other inputs', (inputs) => {
    expect(() => noisedInputs(inputs, [x])).toThrow(/takes a noisy sample and its step/);
  });
});

describe('noise:N', () => {
  const z: ValueSignature = { name: 'z', type: 'float32', dims: ['N', 50] };

  it('is standard normal, the same whenever it is read, and of other samples for another N', async () => {
    expect([noiseCount('noise:20'), noiseCount('noise'), noiseCount('a/noise:20')]).toEqual([20, undefined, undefined]);
    const read = async (source: string, indices: number[]): Promise<Float32Array> =>
      (await noiseDataset(source, [z]).read(indices)).feeds.z!.data as Float32Array;
    const all = await read(
      'noise:20',
      Array.from({ length: 20 }, (_, i) => i),
    );
    expect(await read('noise:20', [7])).toEqual(all.slice(350, 400));
    expect(await read('noise:21', [7])).not.toEqual(all.slice(350, 400));
    const mean = all.reduce((a, v) => a + v, 0) / 1000;
    expect(Math.abs(mean)).toBeLessThan(0.1);
    expect(all.reduce((a, v) => a + (v - mean) ** 2, 0) / 1000).toBeCloseTo(1, 0);
  });

  it('refuses inputs that it cannot draw', () => {
    expect(() => noiseDataset('noise:5', [{ ...z, type: 'int64' }])).toThrow(/z, int64 .* cannot be drawn/);
    expect(() => noiseDataset('noise:5', [{ ...z, dims: ['N', 'L'] }])).toThrow(/cannot be drawn/);
    expect(() => noiseDataset('noise:0', [z])).toThrow(/no samples/);
  });
});
