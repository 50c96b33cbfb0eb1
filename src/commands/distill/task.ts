/** What a distillation is about: the answers that are compared, what they should be beside the teacher's, how samples are made. */
import type { Batch } from '../../data/dataset.js';
import { noiseCount } from '../../data/noise.js';
import { parseSchedule, type NoiseSchedule } from '../../data/noised.js';
import type { Generation } from '../../distillation/lesson.js';
import type { Answering } from '../../distillation/side.js';
import { findVaeOutputs } from '../../distillation/vae-outputs.js';
import { FlowCompressError } from '../../errors.js';
import type { HostTensor } from '../../runtime/engine.js';
import type { DistillOptions } from './options.js';
import type { Workspace } from '../workspace.js';

/** What an output should be, beside what the teacher says: the array of its name, or an input, which is to be given back. */
export type Aim =
  | { readonly kind: 'targets'; readonly output: string }
  | { readonly kind: 'reconstruction'; readonly output: string; readonly input: string };

export type DistillTask =
  | { readonly kind: 'classes'; readonly answering: Answering; readonly labelled: boolean }
  | {
      readonly kind: 'values';
      readonly answering: Extract<Answering, { kind: 'values' }>;
      readonly aim: Aim | undefined;
      readonly generation: Generation | undefined;
    };

/**
 * Class scores where the student has some and nothing else is asked for, else its outputs: those that are named, those of a
 * variational autoencoder, or all.
 * @throws FlowCompressError `bad-input` for outputs that there are not, or data that does not fit them
 */
export function distillTask(
  workspace: Workspace,
  { outputs: named, diffusion, data }: Pick<DistillOptions, 'outputs' | 'diffusion' | 'data'>,
): DistillTask {
  const { scores, outputDims, working, feedsFor, opened } = workspace;
  const targeted = Object.keys(working.train.targets ?? {});
  const [output, ...further] = targeted;
  if (further.length > 0)
    throw new FlowCompressError('bad-input', `The data has targets for ${targeted.join(' and ')}; one is learned.`, {
      node: data,
      hint: 'Leave the array of one output in the file, or name the others differently.',
    });
  if (scores !== undefined && named === undefined && diffusion === undefined) {
    if (output !== undefined)
      throw new FlowCompressError('bad-input', `The data has an array ${output}, and the model class scores.`, {
        node: data,
        hint: `Class scores are learned from labels and the teacher: name the array differently, or give --outputs ${output} to learn its values.`,
      });
    const labelled = working.train.labels !== undefined;
    return { kind: 'classes', answering: { kind: 'classes', scores }, labelled };
  }
  const missing = named?.find((name) => !outputDims.has(name));
  if (missing !== undefined)
    throw new FlowCompressError(
      'bad-input',
      `${opened.name} has no output ${missing} with a row of floats per sample.`,
      {
        node: opened.name,
        hint: `It has ${[...outputDims.keys()].join(', ') || 'none'}.`,
      },
    );
  const found = [...(named ?? outputDims.keys())];
  if (found.length === 0)
    throw new FlowCompressError('unsupported', 'No output of the model has a row of floats per sample.', {
      node: opened.name,
    });
  const feeds = feedsFor(1);
  const vae = output === undefined ? findVaeOutputs(found, outputDims, feeds, named !== undefined) : undefined;
  const rest = found.filter((name) => name !== output);
  const outputs = vae ? vae.outputs : output === undefined ? rest : [output, ...rest];
  const drawn = noiseCount(data) !== undefined;
  const kind = diffusion !== undefined ? 'diffusion' : vae ? 'vae' : drawn ? 'generator' : undefined;
  const aim: Aim | undefined =
    output !== undefined
      ? { kind: 'targets', output }
      : vae && { kind: 'reconstruction', output: outputs[0]!, input: vae.input };
  return { kind: 'values', answering: { kind: 'values', outputs }, aim, generation: kind && { kind } };
}

/** How the samples are fed to diffusion models, where these are what is distilled. @throws FlowCompressError as `parseSchedule` */
export function diffusionOf({
  diffusion,
  draws,
}: Pick<DistillOptions, 'diffusion' | 'draws'>): { schedule: NoiseSchedule; draws: number } | undefined {
  return diffusion === undefined ? undefined : { schedule: parseSchedule(diffusion), draws };
}

/** What an output should be for a batch, in the shape of the output. @param dims of it for some number of samples */
export function aimOf(aim: Aim, { feeds, targets }: Batch, dims: readonly number[]): HostTensor {
  const tensor = aim.kind === 'targets' ? targets![aim.output]! : feeds[aim.input]!;
  return { ...tensor, dims: [tensor.dims[0]!, ...dims.slice(1)] };
}
