/** Which outputs of a model are those of a variational autoencoder. */
import type { Feeds } from '../runtime/engine.js';

export interface VaeOutputs {
  /** Reconstruction, mean and logarithm of the variance. */
  readonly outputs: readonly [string, string, string];
  /** The input that is reconstructed. */
  readonly input: string;
}

const MEAN = /(^|[_./-])(mu|mean)([_./-]|$)/i;
const LOG_VARIANCE = /log_?(var|sigma)/i;

/**
 * The output with as many elements as an input, and two vectors of one length that are called mean (or mu) and log-variance.
 * @param names outputs that may be these; with `ordered` reconstruction, mean and log-variance, whatever they are called
 * @param dims by output, and feeds of one sample
 */
export function findVaeOutputs(
  names: readonly string[],
  dims: ReadonlyMap<string, readonly number[]>,
  feeds: Feeds,
  ordered: boolean,
): VaeOutputs | undefined {
  if (names.length !== 3) return undefined;
  const log = names.find((name) => LOG_VARIANCE.test(name));
  const mean = names.find((name) => name !== log && MEAN.test(name));
  const image = names.find((name) => name !== log && name !== mean);
  const [reconstruction, center, spread] = ordered ? names : [image, mean, log];
  if (reconstruction === undefined || center === undefined || spread === undefined) return undefined;
  const long = (shape: readonly number[]): number => shape.slice(1).reduce((a, b) => a * b, 1);
  const [own, others] = [dims.get(reconstruction)!, [dims.get(center)!, dims.get(spread)!] as const];
  const given = Object.entries(feeds).find(
    ([, { type, dims: shape }]) => type === 'float32' && long(shape) === long(own),
  );
  if (!given || others.some((shape) => shape.length !== 2) || others[0].join() !== others[1].join()) return undefined;
  return { outputs: [reconstruction, center, spread], input: given[0] };
}
