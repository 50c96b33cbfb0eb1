/**
 * How well models that make samples do it, on TEST: the error of what they give back or of the noise that they tell, and the Frechet
 * distance of their samples from real ones and from the teacher's.
 */
import type { Dataset } from '../../data/dataset.js';
import { noisedInputs } from '../../data/noised.js';
import { FlowCompressError, throwIfAborted } from '../../errors.js';
import { frechetDistance, gaussianOf, type Gaussian } from '../../generation/frechet.js';
import { openImageFeatures, type ImageFeatures } from '../../generation/image-features.js';
import { decoderOf, drawByDiffusion, drawFromNoise, type DrawOptions } from '../../generation/samples.js';
import type { GivenModel } from '../../node/model-input.js';
import { toBytes } from '../../onnx/to-bytes.js';
import type { RunControl } from '../../progress.js';
import type { SampleQuality } from '../../report/report.js';
import type { HostTensor, Session } from '../../runtime/engine.js';
import { namedFeeds } from '../../runtime/rows.js';
import { aimOf, diffusionOf, type Aim, type DistillTask } from './task.js';
import type { DistillOptions } from './options.js';
import { openCheckedModel, type Workspace } from '../workspace.js';

/** A model, its inputs under the names that the data has, and the outputs that are compared, as the task orders them. */
export interface SamplingModel {
  readonly opened: Pick<GivenModel, 'model' | 'name'>;
  readonly outputs: readonly string[];
}

export type QualityOptions = Pick<
  DistillOptions,
  'features' | 'sampleRange' | 'sampleSteps' | 'samples' | 'diffusion' | 'seed'
>;

interface QualityRequest {
  readonly workspace: Workspace;
  readonly task: Extract<DistillTask, { kind: 'values' }>;
  readonly teacher: SamplingModel;
  readonly students: readonly SamplingModel[];
  readonly dataset: Dataset;
  readonly settings: QualityOptions;
}

/** @throws FlowCompressError `bad-input` or `unsupported` for a classifier that cannot see the samples; `aborted` */
export async function measureSamples(
  request: QualityRequest,
  control: RunControl = {},
): Promise<{ qualities: SampleQuality[]; warnings: string[] }> {
  const { students, settings } = request;
  const errors = await errorsOf(request, control);
  const found = settings.features === undefined ? undefined : await distances(request, settings.features, control);
  const qualities = students.map((_, i): SampleQuality => ({
    ...(errors && { error: { of: errors.of, teacher: errors.values[0]!, student: errors.values[i + 1]! } }),
    ...(found?.qualities && { frechet: found.qualities[i]! }),
  }));
  return { qualities, warnings: found?.warnings ?? [] };
}

type ErrorKind = NonNullable<SampleQuality['error']>['of'];

/** Mean squared error of the main output to what it should be, by model. */
async function errorsOf(
  { workspace, task, teacher, students, dataset }: QualityRequest,
  { signal }: RunControl,
): Promise<{ of: ErrorKind; values: number[] } | undefined> {
  const { aim, generation } = task;
  if (!aim) return undefined;
  const of: ErrorKind =
    aim.kind === 'reconstruction' ? 'reconstruction' : generation?.kind === 'diffusion' ? 'noise' : 'target';
  const values: number[] = [];
  for (const { opened, outputs } of [teacher, ...students]) {
    const session = await workspace.engine.createSession(toBytes(opened.model));
    try {
      values.push(await errorOf(session, outputs[0]!, aim, workspace, dataset, signal));
    } finally {
      await session.release();
    }
  }
  return { of, values };
}

async function errorOf(
  session: Session,
  output: string,
  aim: Aim,
  workspace: Workspace,
  dataset: Dataset,
  signal: AbortSignal | undefined,
): Promise<number> {
  const taken = new Set(session.inputs.map(({ name }) => name));
  let [sum, count] = [0, 0];
  for await (const batch of workspace.batch(dataset)) {
    throwIfAborted(signal);
    const own = (await session.run(namedFeeds(batch.feeds, taken)))[output]!;
    const wanted = aimOf(aim, batch, own.dims);
    const size = (own.data.length / own.dims[0]!) * batch.size;
    for (let i = 0; i < size; i++) sum += (Number(own.data[i]) - Number(wanted.data[i])) ** 2;
    count += size;
  }
  return sum / count;
}

type Distances = NonNullable<SampleQuality['frechet']>;

async function distances(
  request: QualityRequest,
  path: string,
  control: RunControl,
): Promise<{ qualities: Distances[] | undefined; warnings: string[] }> {
  const { workspace, teacher, students, settings, task } = request;
  if (!task.generation)
    throw new FlowCompressError('bad-input', 'Nothing says how the models make samples that --features could see.', {
      hint: 'A VAE has outputs named reconstruction, mean and log_variance, or --outputs names them in this order; a diffusion model needs --diffusion; a generator --data noise:N.',
    });
  const classifier = await openCheckedModel(path, { ...(control.signal && { signal: control.signal }) });
  const features = await openImageFeatures(workspace.engine, classifier.model, classifier.name, settings.sampleRange);
  try {
    const real = await realSamples(request, features, control);
    const count = real?.count ?? Math.min(settings.samples, request.dataset.size);
    const made: (Gaussian | undefined)[] = [];
    for (const [i, model] of [teacher, ...students].entries())
      made.push(
        await drawn(request, model, features, count, `samples of ${i === 0 ? 'the teacher' : 'the student'}`, control),
      );
    const [theirs, ...own] = made;
    if (!theirs || own.includes(undefined))
      return {
        qualities: undefined,
        warnings: [
          'No samples were drawn: the reconstruction depends on more than the mean of the latent distribution.',
        ],
      };
    const toReal = (made: Gaussian): number | undefined => real && frechetDistance(made, real.of);
    return {
      qualities: own.map((student) => ({
        ...{ features: path, samples: count, studentToTeacher: frechetDistance(student!, theirs) },
        ...(real && { teacherToReal: toReal(theirs)!, studentToReal: toReal(student!)! }),
      })),
      warnings: [],
    };
  } finally {
    await features.release();
  }
}

/** Collects features of images. */
function gathering(features: ImageFeatures): { take: (images: HostTensor) => Promise<void>; gaussian: () => Gaussian } {
  const parts: Float32Array[] = [];
  let width = 0;
  return {
    async take(images) {
      const found = await features.of(images);
      width = found.width;
      parts.push(found.values);
    },
    gaussian() {
      const all = new Float32Array(parts.reduce((sum, { length }) => sum + length, 0));
      let at = 0;
      for (const part of parts) {
        all.set(part, at);
        at += part.length;
      }
      return gaussianOf(all, width);
    },
  };
}

/** The samples of TEST themselves, where they are what the models make. */
async function realSamples(
  { workspace, task, dataset, settings }: QualityRequest,
  features: ImageFeatures,
  { signal }: RunControl,
): Promise<{ of: Gaussian; count: number } | undefined> {
  if (task.generation?.kind === 'generator') return undefined;
  const { aim } = task;
  const gathered = gathering(features);
  let count = 0;
  for await (const batch of workspace.batch(dataset)) {
    throwIfAborted(signal);
    const images =
      batch.clean ?? batch.feeds[aim?.kind === 'reconstruction' ? aim.input : Object.keys(batch.feeds)[0]!]!;
    const rows = Math.min(batch.size, settings.samples - count);
    if (rows <= 0) break;
    await gathered.take(firstRows(images, rows));
    count += rows;
  }
  return { of: gathered.gaussian(), count };
}

function firstRows({ dims: [all = 1, ...dims], data }: HostTensor, rows: number): HostTensor {
  return {
    type: 'float32',
    dims: [rows, ...dims],
    data: (data as Float32Array).subarray(0, (data.length / all) * rows),
  };
}

/** Of one model; undefined where it has no part that makes samples from noise. */
async function drawn(
  { workspace, task, dataset, settings }: QualityRequest,
  { opened, outputs }: SamplingModel,
  features: ImageFeatures,
  count: number,
  stage: string,
  control: RunControl,
): Promise<Gaussian | undefined> {
  const { engine } = workspace;
  const gathered = gathering(features);
  const options: DrawOptions = { count, seed: settings.seed, take: gathered.take, stage };
  const { kind } = task.generation!;
  const latent = kind === 'vae' ? workspace.outputDims.get(task.answering.outputs[1]!)![1]! : 0;
  const model = kind === 'vae' ? decoderOf(opened.model, [outputs[0]!, outputs[1]!], latent) : opened.model;
  if (!model) return undefined;
  const session = await engine.createSession(toBytes(model));
  try {
    if (kind === 'vae') await drawFromNoise(session, [latent], options, control);
    else if (kind === 'diffusion') {
      const { schedule } = diffusionOf({ diffusion: settings.diffusion, draws: 1 })!;
      const inputs = noisedInputs(session.inputs, session.outputs);
      const dims = workspace.feedsFor(1)[inputs.sample.name]!.dims.slice(1);
      const how = { dims, steps: settings.sampleSteps, range: settings.sampleRange };
      await drawByDiffusion(session, inputs, schedule, how, options, control);
    } else {
      let done = 0;
      const taken = new Set(session.inputs.map(({ name }) => name));
      for await (const batch of workspace.batch(dataset)) {
        throwIfAborted(control.signal);
        if (done >= count) break;
        const images = (await session.run(namedFeeds(batch.feeds, taken)))[outputs[0]!]!;
        const rows = Math.min(batch.size, count - done);
        await gathered.take(firstRows(images, rows));
        done += rows;
        control.onProgress?.({ stage, done, total: count });
      }
    }
  } finally {
    await session.release();
  }
  return gathered.gaussian();
}
