/** How one array of a file enters one input of a model: fed as it is, converted, or through image preprocessing. */
import { FlowCompressError } from '../errors.js';
import type { HostTensor, HostType, ValueSignature } from '../runtime/engine.js';
import { convertElements, firstNonFinite, isFloatType, viewElements } from './elements.js';
import { channelsOf, planImageInput, type SourceShape } from './image-input.js';
import { valueTables, type PreprocessOptions } from './preprocess.js';

/** An array on disk: first axis = samples. */
export interface ArrayShape {
  /** File and array, as messages show it. */
  readonly name: string;
  readonly type: HostType;
  readonly dims: readonly number[];
}

/** Turns the bytes of some samples of an array (row-major, little-endian, in order) into the tensor for a model input. */
export type ToTensor = (bytes: Uint8Array, samples: ArrayLike<number>) => HostTensor;

const show = (dims: readonly (number | string)[]): string =>
  `[${dims.map((dim) => (dim === -1 ? '?' : dim)).join(', ')}]`;

function sampleFits(dims: readonly number[], input: ValueSignature): boolean {
  return (
    dims.length === input.dims.length &&
    dims.every(
      (dim, axis) =>
        axis === 0 || typeof input.dims[axis] === 'string' || input.dims[axis] === -1 || input.dims[axis] === dim,
    )
  );
}

/**
 * Decides how an array enters a model input.
 * - uint8 images (rank 3 [N, H, W], rank 4 with the channels second or last) go through preprocessing when the input is float,
 *   and are only resized and transposed as needed when it is not.
 * - other arrays must have the input's shape. Floats are rounded to the input's float type; integers become floats of the
 *   same value; integer widths change where every value fits; floats enter integer inputs where every value is an integer.
 * @throws FlowCompressError `bad-input` with the shape expected and found
 */
export function planArrayInput(array: ArrayShape, input: ValueSignature, options: PreprocessOptions): ToTensor {
  const rank = array.dims.length;
  const fits = sampleFits(array.dims, input);
  if (array.type === 'uint8' && (rank === 3 || rank === 4) && (isFloatType(input.type) || !fits)) {
    return planImages(array, input, options);
  }
  if (!fits) {
    const [, a, b, c] = array.dims;
    const swapped =
      rank === 4 &&
      (sampleFits([0, c, a, b], input) ? '0, 3, 1, 2' : sampleFits([0, b, c, a], input) ? '0, 2, 3, 1' : undefined);
    throw new FlowCompressError(
      'bad-input',
      `${array.name} has shape ${show(array.dims)}, input ${input.name} of the model expects ${show(input.dims)} (first axis = samples).`,
      {
        node: array.name,
        hint: swapped ? `Save it as array.transpose(${swapped}).` : 'Save the array with the shape the model expects.',
      },
    );
  }
  if (array.type === 'uint8' && isFloatType(input.type)) return planPlainPixels(array, input, options);
  return planNumbers(array, input);
}

/** An array of targets becomes float32 of the same values and shape. @throws FlowCompressError `bad-input` for NaN and infinities */
export function planTarget(array: ArrayShape): ToTensor {
  return planNumbers(array, { type: 'float32' });
}

function planNumbers(array: ArrayShape, input: Pick<ValueSignature, 'type'>): ToTensor {
  const perSample = array.dims.slice(1).reduce((product, dim) => product * dim, 1);
  return (bytes, samples) => {
    const sampleOf = (element: number): number => samples[Math.floor(element / perSample)];
    const data = convertElements(
      viewElements(array.type, bytes),
      array.type,
      input.type,
      (element) => `${array.name}: a value of sample ${sampleOf(element)}`,
    );
    const bad = firstNonFinite(data, input.type);
    if (bad >= 0) {
      throw new FlowCompressError(
        'bad-input',
        `${array.name}: sample ${sampleOf(bad)} holds NaN or an infinite value.`,
        {
          node: array.name,
          hint: 'Find such samples with np.isfinite(array).all(axis=...) and leave them out or repair them.',
        },
      );
    }
    return { type: input.type, dims: [samples.length, ...array.dims.slice(1)], data };
  };
}

/** uint8 values that are not laid out as images: only the user knows whether they are pixels or plain numbers. */
function planPlainPixels(array: ArrayShape, input: ValueSignature, options: PreprocessOptions): ToTensor {
  if (options.scale === undefined && options.mean === undefined && options.std === undefined) {
    throw new FlowCompressError(
      'bad-input',
      `${array.name} holds uint8 of shape ${show(array.dims)} for the ${input.type} input ${input.name}: pixels to be scaled, or plain numbers?`,
      {
        node: array.name,
        hint: 'Add --scale 1/255 for pixels or --scale none for plain numbers.',
      },
    );
  }
  const [table] = valueTables(options, 1);
  return (bytes, samples) => {
    const values = Float64Array.from(bytes, (pixel) => table[pixel]);
    const data = convertElements(values, 'float64', input.type, () => array.name);
    return { type: input.type, dims: [samples.length, ...array.dims.slice(1)], data };
  };
}

type Layout = 'nchw' | 'nhwc';

/**
 * Which axis of a uint8 array holds the channels: the one with the model's own channel count, else a count that images
 * usually have. The options decide where both axes qualify, or neither.
 */
function sourceLayout(array: ArrayShape, input: ValueSignature, options: PreprocessOptions): Layout {
  const [, first, , last] = array.dims;
  if (last === undefined) return 'nchw';
  const own = channelsOf(input, options);
  for (const counts of [own === undefined ? [] : [own], [1, 3], [4]]) {
    const [isFirst, isLast] = [counts.includes(first), counts.includes(last)];
    if (isFirst !== isLast) return isFirst ? 'nchw' : 'nhwc';
    if (isFirst && isLast) break;
  }
  if (options.layout) return options.layout;
  throw new FlowCompressError(
    'bad-input',
    `The shape ${show(array.dims)} of ${array.name} does not say which axis holds the channels.`,
    {
      node: array.name,
      hint: 'Add --layout nchw (channels second) or --layout nhwc (channels last).',
    },
  );
}

function planImages(array: ArrayShape, input: ValueSignature, options: PreprocessOptions): ToTensor {
  const layout = sourceLayout(array, input, options);
  const [, a, b, c = 1] = array.dims;
  const shape: SourceShape =
    array.dims.length === 3
      ? { channels: 1, height: a, width: b }
      : layout === 'nchw'
        ? { channels: a, height: b, width: c }
        : { channels: c, height: a, width: b };
  const target = planImageInput(input, options, shape);
  const perSample = shape.channels * shape.height * shape.width;
  const interleaved = layout === 'nhwc' || shape.channels === 1;
  const scratch = new Uint8Array(interleaved ? 0 : perSample);
  return (bytes, samples) => {
    const tensor = target.create(samples.length);
    for (let slot = 0; slot < samples.length; slot++) {
      const data = bytes.subarray(slot * perSample, (slot + 1) * perSample);
      if (!interleaved) interleave(data, scratch, shape.channels);
      target.put({ ...shape, data: interleaved ? data : scratch }, tensor, slot);
    }
    return tensor;
  };
}

/** Channel planes to interleaved channels. */
function interleave(planes: Uint8Array, out: Uint8Array, channels: number): void {
  const area = planes.length / channels;
  for (let c = 0, from = 0; c < channels; c++) {
    for (let i = 0, to = c; i < area; i++, to += channels) out[to] = planes[from++];
  }
}
