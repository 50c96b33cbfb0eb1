/** How 8-bit images become model inputs: the options behind --mean, --std, --scale, --size, --crop, --layout and --color. */
import { z } from 'zod';
import { FlowCompressError } from '../errors.js';
import { interpolations } from './resample.js';

/** A number, or a fraction as people write it: `1/255`. */
const numeric = z.union([
  z.number(),
  z.string().transform((text, context) => {
    const match = /^\s*([-+]?[\d.]+(?:e[-+]?\d+)?)\s*(?:\/\s*([\d.]+(?:e[-+]?\d+)?))?\s*$/i.exec(text);
    const value = match ? Number(match[1]) / Number(match[2] ?? 1) : NaN;
    if (Number.isFinite(value)) return value;
    context.addIssue({ code: 'custom', message: `"${text}" is not a number` });
    return z.NEVER;
  }),
]);

/** Numbers separated by commas, one number, or a list. */
const numericList = z.preprocess(
  (value) => (typeof value === 'string' ? value.split(',') : typeof value === 'number' ? [value] : value),
  z.array(numeric).min(1),
);

const side = z.number().int().min(1).max(16384);

/** `256`, `256x192` (height x width), or `[256, 192]`. */
const imageSize = z.preprocess(
  (value) => {
    if (typeof value !== 'string') return value;
    const sides = value.split(/[x,]/i).map(Number);
    return sides.length === 1 ? sides[0] : sides;
  },
  z.union([side, z.tuple([side, side])]),
);

/**
 * value = (pixel * scale - mean) / std, per channel of the model's input (so in BGR order for `color: 'bgr'`).
 * Everything is optional; what the shape of the model's input says is not needed here. Models with a uint8 input get the
 * raw pixels: mean, std and scale do not apply to them.
 */
export const preprocessOptionsSchema = z.strictObject({
  /** One value, or one per channel, in units of the scaled pixel. Default 0. */
  mean: numericList.optional(),
  /** One value, or one per channel, in units of the scaled pixel. Default 1. */
  std: numericList.refine((list) => list.every((value) => value > 0), 'must be above 0').optional(),
  /** Factor on the pixel value 0..255; `none` is 1. Default 1/255. */
  scale: z.union([z.literal('none'), numeric.refine((value) => value > 0, 'must be above 0')]).optional(),
  /** With a crop (`crop`, or a smaller model input): the length the short side is resized to. Otherwise the exact size, `[height, width]` or square. */
  size: imageSize.optional(),
  /** Centre crop after resizing: square or `[height, width]`. */
  crop: imageSize.optional(),
  /** Where the channel axis is, wherever the shape of the model's input (or of a uint8 array) does not say. */
  layout: z.enum(['nchw', 'nhwc']).optional(),
  /** Channel order of the model's input. Default: gray with one channel, rgb with three. */
  color: z.enum(['rgb', 'bgr', 'gray']).optional(),
  /** Resampling filter, with Pillow's definitions. Default bilinear. */
  interpolation: z.enum(interpolations).optional(),
});

export type PreprocessOptions = z.output<typeof preprocessOptionsSchema>;

/**
 * Checks options that came from flags (strings) or a configuration file (numbers and lists).
 * @param input an object with some of the keys of PreprocessOptions
 * @param source names where they came from in messages
 * @throws FlowCompressError `bad-input` naming the option and what it should look like
 */
export function parsePreprocessOptions(input: unknown, source = 'preprocessing options'): PreprocessOptions {
  const result = preprocessOptionsSchema.safeParse(input);
  if (!result.success) {
    const [issue] = result.error.issues;
    const option = issue.path.length > 0 ? ` ${String(issue.path[0])}` : '';
    throw new FlowCompressError('bad-input', `Invalid${option} in ${source}: ${issue.message}.`, {
      hint: 'For example: --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225 --scale 1/255 --size 256 --crop 224 --layout nchw --color rgb.',
    });
  }
  checkUnits(result.data, source);
  return result.data;
}

/** A mean far outside 0..1 with the default scale of 1/255 is a mean in pixel units: silently wrong if it were used. */
function checkUnits({ mean, std, scale }: PreprocessOptions, source: string): void {
  if (scale !== undefined) return;
  const suspect = [...(mean ?? []), ...(std ?? [])].find((value) => Math.abs(value) > 2);
  if (suspect === undefined) return;
  throw new FlowCompressError(
    'bad-input',
    `The mean or std ${suspect} in ${source} is in pixel units (0..255), but pixels are scaled by 1/255 first.`,
    {
      hint: 'Add --scale none if mean and std are in pixel units, or --scale 1/255 if the values are meant as they are.',
    },
  );
}

/** The factor on pixel values that the options ask for. */
export function pixelScale({ scale }: PreprocessOptions): number {
  return scale === 'none' ? 1 : (scale ?? 1 / 255);
}

/**
 * What each pixel value 0..255 becomes, one table of 256 per channel of the model's input.
 * @throws FlowCompressError `bad-input` when mean or std have neither one value nor one per channel
 */
export function valueTables(options: PreprocessOptions, channels: number): Float64Array[] {
  const scale = pixelScale(options);
  const pick = (list: readonly number[] | undefined, channel: number, fallback: number, name: string): number => {
    if (list === undefined) return fallback;
    if (list.length === 1) return list[0];
    if (list.length === channels) return list[channel];
    throw new FlowCompressError(
      'bad-input',
      `${name} has ${list.length} values, the model's input has ${channels} channel${channels === 1 ? '' : 's'}.`,
      {
        hint: `Give --${name} one value, or one per channel.`,
      },
    );
  };
  return Array.from({ length: channels }, (_, channel) => {
    const mean = pick(options.mean, channel, 0, 'mean');
    const std = pick(options.std, channel, 1, 'std');
    return Float64Array.from({ length: 256 }, (__, pixel) => (pixel * scale - mean) / std);
  });
}
