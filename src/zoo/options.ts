/** The options of all architectures, as one zod schema, and what an architecture makes of them. */
import { z } from 'zod';
import { FlowCompressError } from '../errors.js';

const count = z.number().int().min(1);

export const zooOptionsSchema = z.object({
  /** Classes of the head; of a segmentation model, per pixel. */
  classes: count.max(1_000_000).optional(),
  /** Multiplier of the channel counts (transformers: of the heads, whose width stays). */
  width: z.number().positive().max(16).optional(),
  /** Height and width of images in pixels; of text models the length of the sequence in tokens. */
  inputSize: count.max(8192).optional(),
  /** Channels of the images. */
  channels: count.max(4096).optional(),
  /** Rate of the Dropout layers; 0 leaves them out. */
  dropout: z.number().min(0).lt(1).optional(),
  /** How residual blocks that change the shape pass their input on: zero padding (option A) or a 1x1 convolution. */
  shortcut: z.enum(['pad', 'conv']).optional(),
  /** Side of the square patches of a vision transformer, in pixels. */
  patchSize: count.max(1024).optional(),
  /** Transformer layers. */
  depth: count.max(1000).optional(),
  /** Different tokens of a text model. */
  vocabulary: count.max(10_000_000).optional(),
  /** Length of the latent vector of a generative model. */
  latent: count.max(1_000_000).optional(),
  /** Seed of the initial weights: the same seed gives the same bytes. */
  seed: z.number().int().min(0).max(0xffffffff).default(0),
});

/** Options as a caller gives them; what is absent is as the architecture has it by default. */
export type ZooOptions = z.input<typeof zooOptionsSchema>;

/** Every option with a value; those that the architecture does not have are meaningless. */
export type ZooSettings = Required<z.output<typeof zooOptionsSchema>>;

export type OptionName = keyof ZooSettings;

/** An option that an architecture cannot have, why, and what to give instead. */
export interface OptionProblem {
  readonly option: OptionName;
  readonly reason: string;
  readonly remedy: string;
}

const FALLBACK: ZooSettings = {
  classes: 1000,
  width: 1,
  inputSize: 224,
  channels: 3,
  dropout: 0,
  shortcut: 'pad',
  patchSize: 16,
  depth: 12,
  vocabulary: 50257,
  latent: 100,
  seed: 0,
};

/** What `resolveSettings` must know of an architecture. */
export interface OptionRules {
  readonly name: string;
  /** Its options with their values when they are not given; it has no others. */
  readonly defaults: Readonly<Partial<ZooSettings>>;
  readonly check?: (settings: ZooSettings) => OptionProblem | undefined;
}

/**
 * The settings to build with.
 * @param options of `zooOptionsSchema`
 * @param nameOf how messages call an option, for example `--input-size` for `inputSize`
 * @throws FlowCompressError `bad-input` naming the option that the architecture does not have or cannot have so
 */
export function resolveSettings(
  rules: OptionRules,
  options: ZooOptions,
  nameOf: (option: string) => string = (option) => option,
): ZooSettings {
  const known = [...Object.keys(rules.defaults), 'seed'];
  const given = Object.entries(checked(options, nameOf)).filter(([, value]) => value !== undefined);
  const foreign = given.find(([option]) => !known.includes(option));
  if (foreign) {
    throw new FlowCompressError('bad-input', `${nameOf(foreign[0])}: ${rules.name} has no such option.`, {
      hint: `Leave it out; ${rules.name} has ${known.map(nameOf).join(', ')}.`,
    });
  }
  const settings: ZooSettings = { ...FALLBACK, ...rules.defaults, ...Object.fromEntries(given) };
  const problem = rules.check?.(settings);
  if (problem) {
    throw new FlowCompressError('bad-input', `${nameOf(problem.option)}: ${problem.reason}.`, { hint: problem.remedy });
  }
  return settings;
}

function checked(options: ZooOptions, nameOf: (option: string) => string): z.output<typeof zooOptionsSchema> {
  const result = zooOptionsSchema.loose().safeParse(options);
  if (result.success) return result.data;
  const [issue] = result.error.issues;
  const option = String(issue!.path[0]);
  const given = String(Object.entries(options).find(([key]) => key === option)?.[1]);
  throw new FlowCompressError('bad-input', `${nameOf(option)}: ${issue!.message} (given: ${given}).`, {
    hint: `Give ${nameOf(option)} another value, or leave it out.`,
  });
}

/** A check that the input has a size which the stages of the network can halve. */
export function sizeAtLeast(least: number, multipleOf = 1): (settings: ZooSettings) => OptionProblem | undefined {
  return ({ inputSize }) => {
    if (inputSize >= least && inputSize % multipleOf === 0) return undefined;
    const nearest = Math.max(least, Math.round(inputSize / multipleOf) * multipleOf);
    return {
      option: 'inputSize',
      reason:
        inputSize < least
          ? `${String(inputSize)} is too small, nothing would be left after the strides; the smallest is ${String(least)}`
          : `${String(inputSize)} is not a multiple of ${String(multipleOf)}`,
      remedy: `Give ${String(nearest)}.`,
    };
  };
}

/** Channels times the width multiplier, at least one. */
export function scaled(channels: number, width: number): number {
  return Math.max(1, Math.round(channels * width));
}

/** The nearest multiple of `divisor`, never more than 10% below `channels` (MobileNet's rule for channel counts). */
export function divisible(channels: number, divisor = 8): number {
  const rounded = Math.max(divisor, Math.floor((channels + divisor / 2) / divisor) * divisor);
  return rounded < 0.9 * channels ? rounded + divisor : rounded;
}
