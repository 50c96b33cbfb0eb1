import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { randomStream } from '../data/random.js';
import type { HostTensor } from '../runtime/engine.js';
import { augmented, mixed, mixShare, NO_AUGMENTATION, type AugmentOptions } from './augment.js';

const [CHANNELS, HEIGHT, WIDTH] = [2, 5, 6];
const SAMPLE = CHANNELS * HEIGHT * WIDTH;

/** Every element is another positive number. */
function images(count: number): Omit<HostTensor, 'data'> & { data: Float32Array } {
  const data = Float32Array.from({ length: count * SAMPLE }, (_, i) => i + 1);
  return { type: 'float32', dims: [count, CHANNELS, HEIGHT, WIDTH], data };
}

const samplesOf = ({ data }: HostTensor): number[][] =>
  Array.from({ length: data.length / SAMPLE }, (_, n) =>
    Array.from(data.subarray(n * SAMPLE, (n + 1) * SAMPLE) as Float32Array),
  );

/** The window that begins at (dy, dx) of a sample in a frame of zeros, mirrored or not. */
function view(sample: readonly number[], dy: number, dx: number, mirrored: boolean): number[] {
  const out: number[] = [];
  for (let c = 0; c < CHANNELS; c++)
    for (let y = 0; y < HEIGHT; y++)
      for (let x = 0; x < WIDTH; x++) {
        const [row, column] = [y + dy, (mirrored ? WIDTH - 1 - x : x) + dx];
        const inside = row >= 0 && row < HEIGHT && column >= 0 && column < WIDTH;
        out.push(inside ? sample[(c * HEIGHT + row) * WIDTH + column]! : 0);
      }
  return out;
}

const apply = (options: Partial<AugmentOptions>, count = 1, seed = 1, epoch = 0, first = 0): HostTensor =>
  augmented(
    images(count),
    Array.from({ length: count }, (_, n) => first + n),
    { ...NO_AUGMENTATION, ...options },
    seed,
    epoch,
  );

describe('augmented', () => {
  it('changes nothing when all is off, nor other tensors', () => {
    const given = images(2);
    expect(augmented(given, [0, 1], NO_AUGMENTATION, 1, 0)).toBe(given);
    const tokens: HostTensor = { type: 'int64', dims: [1, 1, 1, 2], data: BigInt64Array.of(1n, 2n) };
    expect(augmented(tokens, [0], { ...NO_AUGMENTATION, flip: true }, 1, 0)).toBe(tokens);
    const rows: HostTensor = { type: 'float32', dims: [1, 2], data: Float32Array.of(1, 2) };
    expect(augmented(rows, [0], { ...NO_AUGMENTATION, flip: true }, 1, 0)).toBe(rows);
  });

  it('is a shifted window, mirrored or not, the same for all channels', () => {
    fc.assert(
      fc.property(fc.nat(), fc.nat(8), fc.boolean(), (seed, crop, flip) => {
        const given = images(3);
        const kept = given.data.slice();
        const offsets = Array.from({ length: 2 * crop + 1 }, (_, i) => i - crop);
        const candidates = (sample: readonly number[]): string[] =>
          offsets.flatMap((dy) =>
            offsets.flatMap((dx) => (flip ? [false, true] : [false]).map((m) => view(sample, dy, dx, m).join())),
          );
        const found = augmented(given, [4, 9, 2], { ...NO_AUGMENTATION, crop, flip }, seed, 3);
        samplesOf(found).forEach((sample, n) => {
          expect(candidates(samplesOf(given)[n]!)).toContain(sample.join());
        });
        expect(given.data).toEqual(kept);
      }),
      { numRuns: 50 },
    );
  });

  it('takes all offsets and mirrors half', () => {
    const original = samplesOf(images(1))[0]!;
    const counts = new Map<string, number>();
    for (let index = 0; index < 1800; index++) {
      const key = samplesOf(apply({ crop: 1, flip: true }, 1, 5, 0, index))[0]!.join();
      counts.set(key, (counts.get(key) ?? 0) + 1);
    }
    let flipped = 0;
    for (const dy of [-1, 0, 1])
      for (const dx of [-1, 0, 1])
        for (const mirrored of [false, true]) {
          const count = counts.get(view(original, dy, dx, mirrored).join()) ?? 0;
          if (mirrored) flipped += count;
          // 100 expected, with a deviation of 10.
          expect(count).toBeGreaterThan(55);
          expect(count).toBeLessThan(150);
        }
    expect(Math.abs(flipped - 900)).toBeLessThan(100);
  });

  it('cuts out one square, whole or cut off at the border, from every channel', () => {
    fc.assert(
      fc.property(fc.nat(), fc.integer({ min: 1, max: 5 }), (seed, cutout) => {
        const [sample] = samplesOf(apply({ cutout }, 1, seed));
        const [first, second] = [sample!.slice(0, SAMPLE / 2), sample!.slice(SAMPLE / 2)];
        const zeros = first.flatMap((v, i) => (v === 0 ? [i] : []));
        expect(second.flatMap((v, i) => (v === 0 ? [i] : []))).toEqual(zeros);
        const [ys, xs] = [zeros.map((i) => Math.floor(i / WIDTH)), zeros.map((i) => i % WIDTH)];
        const extent = (v: readonly number[]): number => Math.max(...v) - Math.min(...v) + 1;
        expect(zeros.length).toBe(extent(ys) * extent(xs));
        for (const [side, values, size] of [
          [extent(ys), ys, HEIGHT],
          [extent(xs), xs, WIDTH],
        ] as const) {
          expect(side).toBeGreaterThan(0);
          expect(side).toBeLessThanOrEqual(cutout);
          if (Math.min(...values) > 0 && Math.max(...values) < size - 1) expect(side).toBe(cutout);
        }
        // What is left is as it was.
        const original = images(1).data;
        sample!.forEach((v, i) => {
          if (v !== 0) expect(v).toBe(original[i]);
        });
      }),
    );
  });

  it('depends on the seed, the epoch and the sample, not on its place in the batch', () => {
    const options = { crop: 2, flip: true, cutout: 2 };
    expect(apply(options)).toEqual(apply(options));
    const given = images(1);
    const twice = {
      ...given,
      dims: [2, CHANNELS, HEIGHT, WIDTH],
      data: Float32Array.from([...given.data, ...given.data]),
    };
    const all = { ...NO_AUGMENTATION, ...options };
    const [a, b] = samplesOf(augmented(twice, [7, 8], all, 1, 0));
    expect(samplesOf(augmented(twice, [8, 7], all, 1, 0))).toEqual([b, a]);
    const outcomes = (change: (k: number) => HostTensor): number =>
      new Set(Array.from({ length: 20 }, (_, k) => samplesOf(change(k)).join())).size;
    expect(outcomes((k) => apply(options, 1, k))).toBeGreaterThan(10);
    expect(outcomes((k) => apply(options, 1, 1, k))).toBeGreaterThan(10);
    expect(outcomes((k) => apply(options, 1, 1, 0, k))).toBeGreaterThan(10);
  });
});

describe('mixing', () => {
  it.each([0.2, 1, 3])(
    'shares of beta(%s, same) lie in [0, 1] with the mean and the variance of that distribution',
    (a) => {
      const random = randomStream(3);
      const shares = Array.from({ length: 20_000 }, () => mixShare(random, a));
      expect(shares.every((share) => share >= 0 && share <= 1)).toBe(true);
      const mean = shares.reduce((x, y) => x + y, 0) / shares.length;
      expect(mean).toBeCloseTo(0.5, 1.5);
      const variance = shares.reduce((sum, x) => sum + (x - mean) ** 2, 0) / shares.length;
      expect(variance).toBeCloseTo(1 / (4 * (2 * a + 1)), 2);
    },
  );

  it('weighs two arrays', () => {
    expect([...mixed(Float32Array.of(1, 2), Float32Array.of(3, 10), 0.25)]).toEqual([2.5, 8]);
  });
});
