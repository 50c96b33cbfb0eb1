/** `noise:N`: N samples that are drawn from the standard normal distribution, for generators, whose inputs nobody collects. */
import { FlowCompressError } from '../errors.js';
import type { Feeds, ValueSignature } from '../runtime/engine.js';
import type { Dataset } from './dataset.js';
import { randomStream, seedOf } from './random.js';

/** How many samples a source of this form has; undefined for every other source. */
export function noiseCount(source: string): number | undefined {
  const found = /^noise:(\d+)$/.exec(source);
  return found ? Number(found[1]) : undefined;
}

/** Keeps the draws of this file apart from others with the same seed. */
const STREAM = 90210;

/**
 * Every sample is drawn by a seed of its own, so it is the same whenever it is read. Sources of different sizes share no sample.
 * @throws FlowCompressError `bad-input` for no samples, or inputs that are not float32 of known sizes
 */
export function noiseDataset(source: string, inputs: readonly ValueSignature[]): Dataset {
  const size = noiseCount(source) ?? 0;
  if (size < 1)
    throw new FlowCompressError('bad-input', `${source} has no samples.`, {
      node: source,
      hint: 'Write noise:10000 for ten thousand.',
    });
  const shapes = inputs.map(({ name, type, dims }) => {
    const own = dims.slice(1);
    if (type === 'float32' && dims.length > 0 && own.every((dim) => typeof dim === 'number' && dim > 0))
      return { name, dims: own as number[] };
    throw new FlowCompressError(
      'bad-input',
      `The input ${name}, ${type} [${dims.join(', ')}], cannot be drawn from a normal distribution.`,
      { node: source, hint: 'noise:N is for models whose inputs are float32 with all sizes but the first fixed.' },
    );
  });
  const read = (indices: ArrayLike<number>): Feeds =>
    Object.fromEntries(
      shapes.map(({ name, dims }, at) => {
        const width = dims.reduce((a, b) => a * b, 1);
        const data = new Float32Array(indices.length * width);
        for (let n = 0; n < indices.length; n++) {
          const random = randomStream(seedOf(STREAM, size, at, indices[n]!));
          for (let i = 0; i < width; i++) data[n * width + i] = random.normal();
        }
        return [name, { type: 'float32', dims: [indices.length, ...dims], data }];
      }),
    );
  return {
    ...{ source, size },
    read: (indices) => Promise.resolve({ feeds: read(indices), size: indices.length }),
    close: () => Promise.resolve(),
  };
}
