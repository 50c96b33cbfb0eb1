/** Clean samples as a diffusion model sees them: x_t = sqrt(a_t) x + sqrt(1 - a_t) e, with the step t and the noise e. */
import { FlowCompressError } from '../errors.js';
import type { HostTensor, ValueSignature } from '../runtime/engine.js';
import type { Dataset } from './dataset.js';
import { randomStream, seedOf } from './random.js';

/** The noise schedule of a diffusion (Ho et al. 2020): variances beta_t that grow linearly over `steps` steps. */
export interface NoiseSchedule {
  readonly steps: number;
  /** a_t = product of (1 - beta_i) over i <= t, by step from 0. */
  readonly kept: Float64Array;
}

/**
 * `linear:FIRST:LAST:STEPS`, such as linear:0.0001:0.02:1000.
 * @throws FlowCompressError `bad-input` for anything else
 */
export function parseSchedule(text: string): NoiseSchedule {
  const [kind, ...rest] = text.split(':');
  const [first, last, steps] = rest.map(Number) as [number?, number?, number?];
  const fits =
    kind === 'linear' && rest.length === 3 && first! > 0 && last! >= first! && last! < 1 && Number.isInteger(steps);
  if (!fits || steps! < 2)
    throw new FlowCompressError('bad-input', `${text} is no noise schedule.`, {
      hint: 'Write linear:FIRST:LAST:STEPS, for example linear:0.0001:0.02:1000.',
    });
  const kept = new Float64Array(steps!);
  let product = 1;
  for (let t = 0; t < steps!; t++) kept[t] = product *= 1 - (first! + ((last! - first!) * t) / (steps! - 1));
  return { steps: steps!, kept };
}

/** Inputs of a model that tells the noise in a sample. */
export interface NoisedInputs {
  readonly sample: ValueSignature;
  readonly time: ValueSignature;
  /** The output that is to be the noise. */
  readonly noise: string;
}

/**
 * The input with more than one number per sample is the noisy sample, the other one its step; the first output the noise.
 * @throws FlowCompressError `unsupported` for a model that is not of this form
 */
export function noisedInputs(inputs: readonly ValueSignature[], outputs: readonly ValueSignature[]): NoisedInputs {
  const isStep = ({ dims }: ValueSignature): boolean => dims.length < 2 || (dims.length === 2 && dims[1] === 1);
  const [sample, ...samples] = inputs.filter((input) => !isStep(input));
  const [time, ...times] = inputs.filter(isStep);
  const noise = outputs[0]?.name;
  if (sample?.type === 'float32' && time && samples.length + times.length === 0 && noise !== undefined)
    return { sample, time, noise };
  throw new FlowCompressError(
    'unsupported',
    'A diffusion model takes a noisy sample and its step, and gives the noise.',
    {
      hint: `This one takes ${inputs.map(({ name, type, dims }) => `${name} ${type} [${dims.join(', ')}]`).join(', ')}.`,
    },
  );
}

/** What the model is fed for steps 0 to T - 1: the step itself as an integer, or step / T as a float. */
export function timeTensor(
  { type, dims }: ValueSignature,
  steps: ArrayLike<number>,
  schedule: NoiseSchedule,
): HostTensor {
  const shape = [steps.length, ...dims.slice(1).map(() => 1)];
  if (type === 'int64')
    return { type, dims: shape, data: BigInt64Array.from({ length: steps.length }, (_, n) => BigInt(steps[n]!)) };
  if (type === 'int32') return { type, dims: shape, data: Int32Array.from(steps) };
  return {
    type: 'float32',
    dims: shape,
    data: Float32Array.from({ length: steps.length }, (_, n) => steps[n]! / schedule.steps),
  };
}

/** Keeps the draws of this file apart from others with the same seed. */
const STREAM = 6174;

/**
 * Every clean sample `draws` times, each time at another step and with other noise, which its number in the result decides; the
 * noise is the target. Closing it does nothing.
 * @param clean its only input is the sample
 */
export async function noised(
  clean: Dataset,
  { sample, time, noise }: NoisedInputs,
  schedule: NoiseSchedule,
  { draws, seed }: { readonly draws: number; readonly seed: number },
): Promise<Dataset> {
  const size = clean.size * draws;
  const { dims } = (await clean.read([0])).feeds[sample.name]!;
  const { labels, classNames, source } = clean;
  return {
    ...{ source, size },
    ...(labels && { labels: Int32Array.from({ length: size }, (_, i) => labels[i % clean.size]!) }),
    ...(classNames && { classNames }),
    targets: { [noise]: [size, ...dims.slice(1)] },
    async read(indices) {
      const numbers = Int32Array.from(indices);
      const batch = await clean.read(numbers.map((i) => i % clean.size));
      const x = batch.feeds[sample.name]!;
      const width = x.data.length / numbers.length;
      const [mixed, drawn] = [new Float32Array(x.data.length), new Float32Array(x.data.length)];
      const steps = numbers.map((index, n) => {
        const random = randomStream(seedOf(STREAM, seed, index));
        const t = random.int(schedule.steps);
        const [keep, add] = [Math.sqrt(schedule.kept[t]!), Math.sqrt(1 - schedule.kept[t]!)];
        for (let i = n * width; i < (n + 1) * width; i++) {
          drawn[i] = random.normal();
          mixed[i] = keep * Number(x.data[i]) + add * drawn[i]!;
        }
        return t;
      });
      return {
        ...batch,
        clean: x,
        feeds: { [sample.name]: { ...x, data: mixed }, [time.name]: timeTensor(time, steps, schedule) },
        targets: { [noise]: { type: 'float32', dims: x.dims, data: drawn } },
      };
    },
    close: () => Promise.resolve(),
  };
}
