/** Samples of models that make them, drawn by a seed: of a VAE's decoder, of a diffusion model. */
import type { ModelProto } from 'onnx-buf';
import { timeTensor, type NoisedInputs, type NoiseSchedule } from '../data/noised.js';
import { randomStream, seedOf } from '../data/random.js';
import { DataType } from '../onnx/dtypes.js';
import { Graph } from '../onnx/graph.js';
import { throwIfAborted } from '../errors.js';
import type { RunControl } from '../progress.js';
import type { HostTensor, Session } from '../runtime/engine.js';
import { exposeOnly } from '../runtime/trace.js';
import { tensorInfo } from '../onnx/value-info.js';

/** Samples per call of the engine. */
const BATCH = 64;
/** Keeps the draws of this file apart from others with the same seed. */
const STREAM = 2718;

/** Standard normal numbers of samples `first` to `first + count`, each by a seed of its own. */
function normals(seed: number, first: number, count: number, dims: readonly number[]): HostTensor {
  const width = dims.reduce((a, b) => a * b, 1);
  const data = new Float32Array(count * width);
  for (let n = 0; n < count; n++) {
    const random = randomStream(seedOf(STREAM, seed, first + n));
    for (let i = 0; i < width; i++) data[n * width + i] = random.normal();
  }
  return { type: 'float32', dims: [count, ...dims], data };
}

export interface DrawOptions {
  readonly count: number;
  readonly seed: number;
  /** Called with every batch of samples. */
  readonly take: (samples: HostTensor) => Promise<void>;
  readonly stage: string;
}

async function draw(
  { count, take, stage }: DrawOptions,
  make: (first: number, rows: number) => Promise<HostTensor>,
  { signal, onProgress }: RunControl,
): Promise<void> {
  onProgress?.({ stage, done: 0, total: count });
  for (let first = 0; first < count; first += BATCH) {
    throwIfAborted(signal);
    const rows = Math.min(BATCH, count - first);
    await take(await make(first, rows));
    onProgress?.({ stage, done: first + rows, total: count });
  }
}

/**
 * The part of a VAE that makes a reconstruction from the mean of its latent distribution.
 * @param latent length of the mean
 * @returns undefined where the reconstruction depends on more than that
 */
export function decoderOf(
  model: ModelProto,
  [reconstruction, mean]: readonly [string, string],
  latent: number,
): ModelProto | undefined {
  const graph = new Graph(model);
  const output = graph.mustGet(reconstruction);
  let from = graph.mustGet(mean);
  // Outputs may be copies of what the decoder reads.
  while (from.producer?.is('Identity') && from.uses.size === 0) from = from.producer.inputs[0]!;
  graph.feed(from, tensorInfo(from.name, DataType.FLOAT, ['N', latent]));
  exposeOnly(graph, [output]);
  const fed = graph.inputs.filter((value) => graph.isFed(value));
  return fed.length === 1 && fed[0] === from ? graph.toModel() : undefined;
}

/** Of a decoder or generator with one input of `dims`, fed with noise. */
export async function drawFromNoise(
  session: Session,
  dims: readonly number[],
  options: DrawOptions,
  control: RunControl = {},
): Promise<void> {
  const [input, output] = [session.inputs[0]!.name, session.outputs[0]!.name];
  const make = async (first: number, rows: number): Promise<HostTensor> =>
    (await session.run({ [input]: normals(options.seed, first, rows, dims) }))[output]!;
  await draw(options, make, control);
}

/**
 * DDIM without noise on the way (Song et al. 2021): from x_T of pure noise, x_0 = (x_t - sqrt(1 - a_t) e) / sqrt(a_t), held within `range`,
 * and x at the next of `steps` evenly spread steps = sqrt(a) x_0 + sqrt(1 - a) e, with e as x_0 leaves it.
 * @param dims of a sample
 */
export async function drawByDiffusion(
  session: Session,
  { sample, time, noise }: NoisedInputs,
  schedule: NoiseSchedule,
  {
    dims,
    steps,
    range,
  }: { readonly dims: readonly number[]; readonly steps: number; readonly range: readonly [number, number] },
  options: DrawOptions,
  control: RunControl = {},
): Promise<void> {
  const count = Math.min(steps, schedule.steps);
  const last = schedule.steps - 1;
  const visited = Array.from({ length: count }, (_, k) =>
    Math.round(count > 1 ? (last * (count - 1 - k)) / (count - 1) : last),
  );
  const [low, high] = [Math.min(...range), Math.max(...range)];
  const make = async (first: number, rows: number): Promise<HostTensor> => {
    const x = normals(options.seed, first, rows, dims);
    const data = x.data as Float32Array;
    for (const [k, t] of visited.entries()) {
      throwIfAborted(control.signal);
      const steps = new Array<number>(rows).fill(t);
      const results = await session.run({ [sample.name]: x, [time.name]: timeTensor(time, steps, schedule) });
      const told = results[noise]!.data as Float32Array;
      const kept = schedule.kept[t]!;
      const next = k + 1 < visited.length ? schedule.kept[visited[k + 1]!]! : 1;
      const [signal, spread] = [Math.sqrt(kept), Math.sqrt(1 - kept)];
      for (let i = 0; i < data.length; i++) {
        const clean = Math.min(high, Math.max(low, (data[i]! - spread * told[i]!) / signal));
        const left = (data[i]! - signal * clean) / spread;
        data[i] = Math.sqrt(next) * clean + Math.sqrt(1 - next) * left;
      }
    }
    return x;
  };
  await draw(options, make, control);
}
