/** How images enter one input of a model: which axes mean what, the size they are brought to, and the conversion itself. */
import { FlowCompressError } from '../errors.js';
import { float32ToFloat16 } from '../onnx/float-formats.js';
import type { HostTensor, HostType, ValueSignature } from '../runtime/engine.js';
import { allocate, convertElements, isFloatType } from './elements.js';
import { valueTables, type PreprocessOptions } from './preprocess.js';
import { cropOrPad, resample, type Pixels, type Size } from './resample.js';

/** Shape of source images where all of them are alike (arrays); images in files differ from each other. */
export interface SourceShape extends Size {
  readonly channels: number;
}

/** Turns images into tensors of one model input. */
export interface ImageInput {
  /** Shape of the tensor of `count` images. */
  dims(count: number): number[];
  /** Elements per image. */
  readonly elements: number;
  /** A tensor for `count` images; fill it with `put`. */
  create(count: number): HostTensor;
  /**
   * Brings one image to the model's size, channels and values and writes it as image number `slot` of the tensor.
   * @throws FlowCompressError `bad-input` when its channels do not fit the model's
   */
  put(image: Pixels, tensor: HostTensor, slot: number): void;
}

const isFixed = (dim: number | string | undefined): dim is number => typeof dim === 'number' && dim >= 0;
const showDims = (dims: readonly (number | string)[]): string =>
  `[${dims.map((dim) => (dim === -1 ? '?' : dim)).join(', ')}]`;

interface Axes {
  readonly layout: 'nchw' | 'nhwc';
  /** Undefined where the model leaves it open. */
  readonly channels?: number;
  readonly height?: number;
  readonly width?: number;
}

/** Reads the axes of a model input off its shape, asking the options only where the shape is ambiguous. */
function findAxes({ name, dims }: ValueSignature, options: PreprocessOptions): Axes {
  const fixed = (axis: number): number | undefined => (isFixed(dims[axis]) ? dims[axis] : undefined);
  if (dims.length === 2) return { layout: options.layout ?? 'nchw' };
  if (dims.length === 3) return { layout: 'nchw', channels: 1, height: fixed(1), width: fixed(2) };
  if (dims.length !== 4) {
    throw new FlowCompressError('bad-input', `Input ${name} has shape ${showDims(dims)}, which does not take images.`, {
      node: name,
      hint: 'Give the inputs as float arrays in an .npz file.',
    });
  }
  const isColor = (dim: number | undefined): boolean => dim === 1 || dim === 3;
  const [first, last] = [fixed(1), fixed(3)];
  const shape = isColor(first) === isColor(last) ? undefined : isColor(first) ? 'nchw' : 'nhwc';
  const layout = shape ?? options.layout;
  if (layout === undefined) {
    throw new FlowCompressError(
      'bad-input',
      `The shape ${showDims(dims)} of input ${name} does not say which axis holds the channels.`,
      {
        node: name,
        hint: 'Add --layout nchw or --layout nhwc.',
      },
    );
  }
  return layout === 'nchw'
    ? { layout, channels: first, height: fixed(2), width: fixed(3) }
    : { layout, channels: last, height: fixed(1), width: fixed(2) };
}

/**
 * Channels of a model input that takes images, undefined where its shape leaves them open.
 * @throws FlowCompressError `bad-input` when the shape is not one of images
 */
export function channelsOf(signature: ValueSignature, options: PreprocessOptions): number | undefined {
  return findAxes(signature, options).channels;
}

const pair = (size: number | readonly [number, number]): Size =>
  typeof size === 'number' ? { height: size, width: size } : { height: size[0], width: size[1] };

/** Final size of the images, reached by a resize (to an exact size, or by the short side) and then a centre crop. */
interface Geometry extends Size {
  readonly resize: 'none' | Size | { readonly shortSide: number };
}

function planGeometry(signature: ValueSignature, axes: Axes, options: PreprocessOptions, source?: Size): Geometry {
  const { size, crop } = options;
  const { height, width } = axes;
  const model = height !== undefined && width !== undefined ? { height, width } : undefined;
  const fits = (target: Size): boolean =>
    (height ?? target.height) === target.height && (width ?? target.width) === target.width;
  const checked = (geometry: Geometry): Geometry => {
    if (fits(geometry)) return geometry;
    throw new FlowCompressError(
      'bad-input',
      `Input ${signature.name} expects images of ${height ?? '?'}x${width ?? '?'} (${showDims(signature.dims)}), the options give ${geometry.height}x${geometry.width}.`,
      {
        node: signature.name,
        hint: 'Change --size or --crop, or leave them out: images are then resized to what the model expects.',
      },
    );
  };
  if (crop !== undefined) {
    const resize = size === undefined ? 'none' : typeof size === 'number' ? { shortSide: size } : pair(size);
    return checked({ ...pair(crop), resize });
  }
  if (size !== undefined) {
    if (typeof size === 'number' && model && !fits(pair(size)) && Math.max(model.height, model.width) <= size) {
      return { ...model, resize: { shortSide: size } };
    }
    return checked({ ...pair(size), resize: pair(size) });
  }
  if (model) return { ...model, resize: model };
  if (source) return checked({ height: source.height, width: source.width, resize: 'none' });
  throw new FlowCompressError(
    'bad-input',
    `Input ${signature.name} ${showDims(signature.dims)} does not say the size of the images.`,
    {
      node: signature.name,
      hint: 'Add --size, for example --size 224.',
    },
  );
}

function applyGeometry(image: Pixels, { resize, height, width }: Geometry, options: PreprocessOptions): Pixels {
  const filter = options.interpolation ?? 'bilinear';
  const target = resizedSize(image, resize);
  const window = { top: cropStart(target.height, height), left: cropStart(target.width, width), height, width };
  if (target.height === image.height && target.width === image.width) return cropOrPad(image, window);
  const inside = window.top >= 0 && window.left >= 0;
  return inside ? resample(image, target, filter, window) : cropOrPad(resample(image, target, filter), window);
}

function resizedSize(image: Size, resize: Geometry['resize']): Size {
  if (resize === 'none') return image;
  if (!('shortSide' in resize)) return resize;
  const short = Math.min(image.height, image.width);
  const scaled = (length: number): number =>
    length === short ? resize.shortSide : Math.trunc((resize.shortSide * length) / short);
  return { height: scaled(image.height), width: scaled(image.width) };
}

/** First position of a centre crop, rounded as torchvision rounds: halves to even, and down where it pads (negative). */
function cropStart(from: number, to: number): number {
  const half = (from - to) / 2;
  if (half < 0) return -Math.floor(-half);
  return Number.isInteger(half) ? half : 2 * Math.round(half / 2);
}

/** One-channel luma of RGB pixels, with the integer weights Pillow uses for mode L (ITU-R 601). */
function toGray({ data, height, width, channels }: Pixels): Pixels {
  const out = new Uint8Array(height * width);
  for (let i = 0, at = 0; i < out.length; i++, at += channels) {
    out[i] = (data[at] * 19595 + data[at + 1] * 38470 + data[at + 2] * 7471 + 0x8000) >> 16;
  }
  return { data: out, height, width, channels: 1 };
}

type Values = Float32Array | Float64Array | Uint16Array | Uint8Array;

/** The hot loop: interleaved pixels to the model's channel order and layout through one table of 256 values per channel. */
function writeChannels(
  pixels: Pixels,
  out: Values,
  start: number,
  layout: Axes['layout'],
  tables: readonly Values[],
  sourceChannel: readonly number[],
): void {
  const area = pixels.height * pixels.width;
  const { data, channels } = pixels;
  const [channelStep, pixelStep] = layout === 'nchw' ? [area, 1] : [1, tables.length];
  for (let c = 0; c < tables.length; c++) {
    const table = tables[c];
    let from = sourceChannel[c];
    let to = start + c * channelStep;
    for (let i = 0; i < area; i++) {
      out[to] = table[data[from]];
      from += channels;
      to += pixelStep;
    }
  }
}

/** Element types that are written directly; others go through uint8 and a checked conversion. */
function buildTables(type: HostType, options: PreprocessOptions, channels: number): Values[] {
  const values = isFloatType(type)
    ? valueTables(options, channels)
    : Array.from({ length: channels }, () => Float64Array.from({ length: 256 }, (_, pixel) => pixel));
  switch (type) {
    case 'float32':
      return values.map((table) => Float32Array.from(table));
    case 'float16':
      return values.map((table) => float32ToFloat16(Float32Array.from(table)));
    case 'float64':
      return values;
    default:
      return values.map((table) => Uint8Array.from(table));
  }
}

/**
 * Plans the conversion of images into one model input.
 *
 * Size: `crop` if given (after resizing the short side to `size`, if given); else a `size` larger than the model's fixed input
 * is the short side and the model's size the crop; else images are resized to exactly `size`, or to the model's height and
 * width. Inputs of rank 4 take images as [N, C, H, W] or [N, H, W, C], of rank 3 gray images as [N, H, W], of rank 2 the
 * flattened image.
 * @param source shape of the images where all are alike
 * @throws FlowCompressError `bad-input` when the shape leaves something open that the options do not say, or contradicts them
 */
export function planImageInput(
  signature: ValueSignature,
  options: PreprocessOptions,
  source?: SourceShape,
): ImageInput {
  const { name, type } = signature;
  const axes = findAxes(signature, options);
  const channels = axes.channels ?? (options.color === 'gray' ? 1 : options.color ? 3 : (source?.channels ?? 3));
  const color = options.color ?? (channels === 1 ? 'gray' : 'rgb');
  if ((color === 'gray') !== (channels === 1) || (color === 'bgr' && channels !== 3)) {
    throw new FlowCompressError(
      'bad-input',
      `Input ${name} ${showDims(signature.dims)} has ${channels} channel${channels === 1 ? '' : 's'}, which --color ${color} contradicts.`,
      {
        node: name,
        hint: 'Leave --color out, or choose one that fits the model.',
      },
    );
  }
  const geometry = planGeometry(signature, axes, options, source);
  const elements = channels * geometry.height * geometry.width;
  const flat = signature.dims.length === 2 ? signature.dims[1] : undefined;
  if (isFixed(flat) && flat !== elements) {
    throw new FlowCompressError(
      'bad-input',
      `Input ${name} expects ${flat} values per sample, the images have ${geometry.height}x${geometry.width}x${channels} = ${elements}.`,
      {
        node: name,
        hint: 'Add --size (and --color gray) so that height x width x channels is what the model expects.',
      },
    );
  }
  const tables = buildTables(type, options, channels);
  const dims = (count: number): number[] => {
    if (signature.dims.length === 2) return [count, elements];
    if (signature.dims.length === 3) return [count, geometry.height, geometry.width];
    return axes.layout === 'nchw'
      ? [count, channels, geometry.height, geometry.width]
      : [count, geometry.height, geometry.width, channels];
  };
  const direct = isFloatType(type) || type === 'uint8';

  return {
    dims,
    elements,
    create: (count) => ({ type, dims: dims(count), data: allocate(type, count * elements) }),
    put(image, tensor, slot) {
      let pixels = image;
      if (channels === 1 && (pixels.channels === 3 || pixels.channels === 4)) pixels = toGray(pixels);
      const replicate = pixels.channels <= 2 && channels === 3;
      const dropAlpha = pixels.channels === channels + 1 && (channels === 1 || channels === 3);
      if (pixels.channels !== channels && !replicate && !dropAlpha) {
        throw new FlowCompressError(
          'bad-input',
          `The images have ${pixels.channels} channels, input ${name} ${showDims(signature.dims)} takes ${channels}.`,
          { node: name },
        );
      }
      pixels = applyGeometry(pixels, geometry, options);
      const sourceChannel = Array.from({ length: channels }, (_, c) => (replicate ? 0 : color === 'bgr' ? 2 - c : c));
      const { data } = tensor;
      if (direct && !(data instanceof BigInt64Array || data instanceof BigUint64Array)) {
        writeChannels(pixels, data as Values, slot * elements, axes.layout, tables, sourceChannel);
        return;
      }
      const raw = new Uint8Array(elements);
      writeChannels(pixels, raw, 0, axes.layout, tables, sourceChannel);
      const converted = convertElements(raw, 'uint8', type, (i) => `Pixel value ${i}`);
      for (let i = 0; i < elements; i++) data[slot * elements + i] = converted[i];
    },
  };
}
