/**
 * Seeded augmentation of image batches [N, C, H, W] in place. What happens to a sample depends on the seed, the epoch and the sample
 * alone, so a resumed training sees what it would have seen.
 */
import { randomStream, seedOf, type RandomStream } from '../data/random.js';
import type { HostTensor } from '../runtime/engine.js';

export interface AugmentOptions {
  /** Pixels of zero padding from which a window of the original size is cut at random. */
  readonly crop: number;
  /** Mirror left and right in half of the cases. */
  readonly flip: boolean;
  /** Side of a square that is set to zero, in pixels; 0 for none (DeVries and Taylor 2017). */
  readonly cutout: number;
  /** Parameter of the beta distribution of mixed pairs; 0 for none (Zhang et al. 2018). */
  readonly mixup: number;
}

export const NO_AUGMENTATION: AugmentOptions = { crop: 0, flip: false, cutout: 0, mixup: 0 };

/**
 * Returns the images changed by crop, flip and cutout.
 * @param images float32 [N, C, H, W]; tensors of other ranks and types come back as they are
 * @param indices the samples' numbers in the dataset
 */
export function augmented(
  images: HostTensor,
  indices: ArrayLike<number>,
  options: AugmentOptions,
  seed: number,
  epoch: number,
): HostTensor {
  const { crop, flip, cutout } = options;
  if (images.dims.length !== 4 || !(images.data instanceof Float32Array)) return images;
  if (crop === 0 && !flip && cutout === 0) return images;
  const [count, channels, height, width] = images.dims as [number, number, number, number];
  const source = images.data;
  const data = new Float32Array(source.length);
  const plane = height * width;
  for (let n = 0; n < count; n++) {
    const random = randomStream(seedOf(seed, epoch, indices[n]!));
    const [dy, dx] = [offset(random, crop), offset(random, crop)];
    const mirrored = flip && random.float() < 0.5;
    const [top, left] = [random.int(height), random.int(width)];
    for (let c = 0; c < channels; c++) {
      const base = (n * channels + c) * plane;
      for (let y = Math.max(0, -dy); y < Math.min(height, height - dy); y++) {
        const [to, from] = [base + y * width, base + (y + dy) * width];
        for (let x = Math.max(0, -dx); x < Math.min(width, width - dx); x++)
          data[to + (mirrored ? width - 1 - x : x)] = source[from + x + dx]!;
      }
      if (cutout > 0) {
        const half = cutout >> 1;
        for (let y = Math.max(0, top - half); y < Math.min(height, top - half + cutout); y++) {
          const [first, last] = [Math.max(0, left - half), Math.min(width, left - half + cutout)];
          data.fill(0, base + y * width + first, base + y * width + last);
        }
      }
    }
  }
  return { type: 'float32', dims: images.dims, data };
}

/** -reach to reach. */
function offset(random: RandomStream, reach: number): number {
  return reach === 0 ? 0 : random.int(2 * reach + 1) - reach;
}

/** Share of the first sample in a mixed pair: beta(a, a), by the ratio of two gamma deviates. */
export function mixShare(random: RandomStream, a: number): number {
  const [x, y] = [gamma(random, a), gamma(random, a)];
  return x + y > 0 ? x / (x + y) : 0.5;
}

/** Gamma deviate of shape a (Marsaglia and Tsang 2000). */
function gamma(random: RandomStream, a: number): number {
  if (a < 1) return gamma(random, a + 1) * random.float() ** (1 / a);
  const d = a - 1 / 3;
  for (;;) {
    const x = random.normal();
    const v = (1 + x / Math.sqrt(9 * d)) ** 3;
    if (v > 0 && Math.log(1 - random.float()) < 0.5 * x * x + d - d * v + d * Math.log(v)) return d * v;
  }
}

/** first * share + second * (1 - share) */
export function mixed(first: Float32Array, second: Float32Array, share: number): Float32Array {
  const out = new Float32Array(first.length);
  for (let i = 0; i < out.length; i++) out[i] = share * first[i]! + (1 - share) * second[i]!;
  return out;
}
