/**
 * Image resizing, bit for bit what Pillow 11 and before do in Image.resize, and therefore what torchvision and Hugging Face image
 * processors did when the model was trained. Image libraries differ here (box pre-shrinking, half-pixel shifts when
 * enlarging) by several grey levels, which costs measurable accuracy on small images.
 */

/** Row-major interleaved 8-bit pixels: `data` holds height * width * channels values. */
export interface Pixels {
  readonly data: Uint8Array;
  readonly height: number;
  readonly width: number;
  readonly channels: number;
}

export const interpolations = ['nearest', 'bilinear', 'bicubic', 'lanczos'] as const;
export type Interpolation = (typeof interpolations)[number];

interface Kernel {
  readonly support: number;
  weight(x: number): number;
}

function sinc(x: number): number {
  return x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x);
}

const CUBIC_A = -0.5;
const kernels: Readonly<Record<Exclude<Interpolation, 'nearest'>, Kernel>> = {
  bilinear: { support: 1, weight: (x) => Math.max(0, 1 - Math.abs(x)) },
  bicubic: {
    support: 2,
    weight(signed) {
      const x = Math.abs(signed);
      if (x < 1) return ((CUBIC_A + 2) * x - (CUBIC_A + 3)) * x * x + 1;
      return x < 2 ? (((x - 5) * x + 8) * x - 4) * CUBIC_A : 0;
    },
  },
  lanczos: { support: 3, weight: (x) => (x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0) },
};

const PRECISION = 22;

/** For each output position, the first source position it reads, how many, and their fixed-point weights. */
interface Taps {
  readonly first: Int32Array;
  readonly count: Int32Array;
  readonly weights: Int32Array;
  /** Weights kept per output position. */
  readonly stride: number;
}

/** Taps of the output positions [from, from + length) of an axis resized from `source` to `target` positions. */
function computeTaps(source: number, target: number, from: number, length: number, kernel: Kernel): Taps {
  const scale = source / target;
  const filterScale = Math.max(scale, 1);
  const support = kernel.support * filterScale;
  const stride = Math.ceil(support) * 2 + 1;
  const taps = {
    first: new Int32Array(length),
    count: new Int32Array(length),
    weights: new Int32Array(length * stride),
    stride,
  };
  const weights = new Float64Array(stride);
  for (let i = 0; i < length; i++) {
    const center = (from + i + 0.5) * scale;
    const first = Math.max(0, Math.trunc(center - support + 0.5));
    const count = Math.min(source, Math.trunc(center + support + 0.5)) - first;
    let sum = 0;
    for (let k = 0; k < count; k++) sum += weights[k] = kernel.weight((k + first - center + 0.5) * (1 / filterScale));
    for (let k = 0; k < count; k++) {
      const weight = (sum === 0 ? weights[k] : weights[k] / sum) * 2 ** PRECISION;
      taps.weights[i * stride + k] = Math.trunc(weight < 0 ? weight - 0.5 : weight + 0.5);
    }
    taps.first[i] = first;
    taps.count[i] = count;
  }
  return taps;
}

function toByte(sum: number): number {
  const value = sum >> PRECISION;
  return value < 0 ? 0 : value > 255 ? 255 : value;
}

/** Resizes along the width: rows [rowFrom, rowFrom + rows) of the image. */
function resizeRows({ data, width, channels }: Pixels, rowFrom: number, rows: number, taps: Taps): Pixels {
  const target = taps.first.length;
  const out = new Uint8Array(rows * target * channels);
  let to = 0;
  for (let y = 0; y < rows; y++) {
    const row = (rowFrom + y) * width * channels;
    for (let x = 0; x < target; x++) {
      const start = row + taps.first[x] * channels;
      const weight = x * taps.stride;
      const count = taps.count[x];
      for (let c = 0; c < channels; c++) {
        let sum = 1 << (PRECISION - 1);
        for (let k = 0, at = start + c; k < count; k++, at += channels) sum += data[at] * taps.weights[weight + k];
        out[to++] = toByte(sum);
      }
    }
  }
  return { data: out, height: rows, width: target, channels };
}

/** Resizes along the height; `rowFrom` is the source row that the image's first row is. */
function resizeColumns({ data, width, channels }: Pixels, rowFrom: number, taps: Taps): Pixels {
  const height = taps.first.length;
  const line = width * channels;
  const out = new Uint8Array(height * line);
  const sums = new Int32Array(line);
  for (let y = 0; y < height; y++) {
    sums.fill(1 << (PRECISION - 1));
    for (let k = 0; k < taps.count[y]; k++) {
      const weight = taps.weights[y * taps.stride + k];
      const start = (taps.first[y] + k - rowFrom) * line;
      for (let i = 0; i < line; i++) sums[i] += data[start + i] * weight;
    }
    for (let i = 0; i < line; i++) out[y * line + i] = toByte(sums[i]);
  }
  return { data: out, height, width, channels };
}

/** Source position of the output positions [from, from + length), summed up step by step as Pillow does: ties depend on it. */
function nearestPositions(source: number, target: number, from: number, length: number): Int32Array {
  const positions = new Int32Array(length);
  const scale = source / target;
  let position = scale * 0.5;
  for (let i = 0; i < from + length; i++, position += scale) if (i >= from) positions[i - from] = Math.trunc(position);
  return positions;
}

function resizeNearest({ data, height, width, channels }: Pixels, target: Size, window: Window): Pixels {
  const rows = nearestPositions(height, target.height, window.top, window.height);
  const columns = nearestPositions(width, target.width, window.left, window.width);
  const out = new Uint8Array(window.height * window.width * channels);
  let to = 0;
  for (const row of rows) {
    for (const column of columns) {
      const from = (row * width + column) * channels;
      for (let c = 0; c < channels; c++) out[to++] = data[from + c];
    }
  }
  return { data: out, height: window.height, width: window.width, channels };
}

export interface Size {
  readonly height: number;
  readonly width: number;
}

/** A rectangle of an image. */
export interface Window extends Size {
  readonly top: number;
  readonly left: number;
}

/**
 * The image resized to `target`, or only the `window` of that result (which must lie inside it): the pixels outside it are
 * never computed. Shrinking averages over the area that a pixel covers.
 */
export function resample(
  image: Pixels,
  target: Size,
  interpolation: Interpolation,
  window: Window = { top: 0, left: 0, ...target },
): Pixels {
  if (interpolation === 'nearest') return resizeNearest(image, target, window);
  const kernel = kernels[interpolation];
  // An axis whose size stays the same is copied: its taps are a single weight of one.
  const identity: Kernel = { support: 0.5, weight: (x) => (Math.abs(x) < 0.5 ? 1 : 0) };
  const columns = computeTaps(
    image.width,
    target.width,
    window.left,
    window.width,
    image.width === target.width ? identity : kernel,
  );
  const rows = computeTaps(
    image.height,
    target.height,
    window.top,
    window.height,
    image.height === target.height ? identity : kernel,
  );
  const last = window.height - 1;
  const rowFrom = rows.first[0];
  const rowEnd = rows.first[last] + rows.count[last];
  return resizeColumns(resizeRows(image, rowFrom, rowEnd - rowFrom, columns), rowFrom, rows);
}

/** A rectangle of the image; what lies outside the image is black, as torchvision's CenterCrop pads. */
export function cropOrPad(image: Pixels, window: Window): Pixels {
  if (window.top === 0 && window.left === 0 && window.height === image.height && window.width === image.width)
    return image;
  const { channels } = image;
  const data = new Uint8Array(window.height * window.width * channels);
  const from = Math.max(0, window.left);
  const end = Math.min(image.width, window.left + window.width);
  for (let y = 0; y < window.height && end > from; y++) {
    const row = window.top + y;
    if (row < 0 || row >= image.height) continue;
    const pixels = image.data.subarray((row * image.width + from) * channels, (row * image.width + end) * channels);
    data.set(pixels, (y * window.width + from - window.left) * channels);
  }
  return { data, height: window.height, width: window.width, channels };
}
