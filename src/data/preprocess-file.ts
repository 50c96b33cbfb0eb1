/** Reads preprocessing from the text of a file: a Hugging Face preprocessor_config.json, or YAML/JSON with the keys of the flags. */
import { parse } from 'yaml';
import { z } from 'zod';
import { FlowCompressError, messageOf } from '../errors.js';
import { parsePreprocessOptions, type PreprocessOptions } from './preprocess.js';
import type { Interpolation } from './resample.js';

const sizeObject = z.looseObject({
  shortest_edge: z.number().optional(),
  longest_edge: z.number().optional(),
  height: z.number().optional(),
  width: z.number().optional(),
});

/** The fields of an image processor that decide pixel values; others (padding for detectors, class names) are ignored. */
const huggingFaceSchema = z.looseObject({
  do_resize: z.boolean().nullish(),
  size: z.union([z.number(), sizeObject]).nullish(),
  resample: z.number().nullish(),
  crop_pct: z.number().positive().nullish(),
  do_center_crop: z.boolean().nullish(),
  crop_size: z.union([z.number(), sizeObject]).nullish(),
  do_rescale: z.boolean().nullish(),
  rescale_factor: z.number().nullish(),
  do_normalize: z.boolean().nullish(),
  image_mean: z.union([z.number(), z.array(z.number())]).nullish(),
  image_std: z.union([z.number(), z.array(z.number())]).nullish(),
  do_flip_channel_order: z.boolean().nullish(),
  do_convert_grayscale: z.boolean().nullish(),
});
type HuggingFaceConfig = z.output<typeof huggingFaceSchema>;

const HUGGING_FACE_KEY = /^(do_|image_(mean|std|processor_type)$|feature_extractor_type$|crop_size$|rescale_factor$)/;

/** Pillow's filter numbers, as the field `resample` holds them. */
const FILTERS: Readonly<Record<number, Interpolation>> = { 0: 'nearest', 1: 'lanczos', 2: 'bilinear', 3: 'bicubic' };

/**
 * @param text content of the file
 * @param name names the file in messages
 * @throws FlowCompressError `bad-input` when it is neither kind of file or a value is invalid, `unsupported` for a step that
 * cannot be reproduced (such as a resize to a longest edge)
 */
export function parsePreprocessFile(text: string, name: string): PreprocessOptions {
  let content: unknown;
  try {
    content = parse(text);
  } catch (error) {
    throw new FlowCompressError('bad-input', `${name} is neither JSON nor YAML: ${messageOf(error)}`, {
      node: name,
      cause: error,
    });
  }
  if (typeof content !== 'object' || content === null || Array.isArray(content)) {
    throw new FlowCompressError('bad-input', `${name} holds no preprocessing options.`, {
      node: name,
      hint: 'Give a preprocessor_config.json, or a YAML file with keys such as mean, std, size and crop.',
    });
  }
  if (!Object.keys(content).some((key) => HUGGING_FACE_KEY.test(key))) return parsePreprocessOptions(content, name);
  const config = huggingFaceSchema.safeParse(content);
  if (!config.success) {
    const [issue] = config.error.issues;
    throw new FlowCompressError('bad-input', `${name}: ${issue.path.join('.')}: ${issue.message}.`, { node: name });
  }
  return parsePreprocessOptions(fromHuggingFace(config.data, name), name);
}

function fromHuggingFace(config: HuggingFaceConfig, name: string): PreprocessOptions {
  const options: PreprocessOptions = {};
  const size = config.size ?? undefined;
  const crop = config.crop_size ?? undefined;
  const refuse = (what: string): FlowCompressError =>
    new FlowCompressError('unsupported', `${name}: ${what}`, {
      node: name,
      hint: 'Prepare the inputs yourself and pass them as float arrays in an .npz file.',
    });

  if (config.do_resize !== false && size !== undefined) {
    if (typeof size === 'number') options.size = size;
    else if (size.height !== undefined && size.width !== undefined) {
      options.size = [size.height, size.width];
    } else if (size.shortest_edge !== undefined && size.longest_edge === undefined) {
      // An image processor without a crop leaves images of different shapes, which no batch can hold: they are cropped square.
      options.crop = size.shortest_edge;
      options.size =
        config.crop_pct && size.shortest_edge < 384
          ? Math.trunc(size.shortest_edge / config.crop_pct)
          : size.shortest_edge;
      if (config.crop_pct && size.shortest_edge >= 384) delete options.crop; // ConvNeXT resizes large inputs without a crop
    } else throw refuse(`resizing to ${JSON.stringify(size)} cannot be reproduced.`);
    if (config.resample !== undefined && config.resample !== null) {
      const filter = FILTERS[config.resample];
      if (filter === undefined) throw refuse(`the resampling filter ${config.resample} is not supported.`);
      options.interpolation = filter;
    }
  }
  if ((config.do_center_crop ?? crop !== undefined) && crop !== undefined) {
    if (typeof crop === 'number') options.crop = crop;
    else if (crop.height !== undefined && crop.width !== undefined) options.crop = [crop.height, crop.width];
    else throw refuse(`cropping to ${JSON.stringify(crop)} cannot be reproduced.`);
  }
  options.scale = config.do_rescale === false ? 'none' : (config.rescale_factor ?? 1 / 255);
  if (config.do_normalize !== false) {
    if (config.image_mean !== undefined && config.image_mean !== null) options.mean = [config.image_mean].flat();
    if (config.image_std !== undefined && config.image_std !== null) options.std = [config.image_std].flat();
  }
  if (config.do_flip_channel_order) {
    options.color = 'bgr';
    // The processor normalises before it flips; our mean and std are in the order of the model's channels.
    options.mean = options.mean?.toReversed();
    options.std = options.std?.toReversed();
  }
  if (config.do_convert_grayscale) options.color = 'gray';
  return options;
}
