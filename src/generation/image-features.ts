/** Features of images in front of the last layer of a classifier: what samples are compared by. */
import type { ModelProto } from 'onnx-buf';
import { openFeatureReader } from '../distillation/cka-features.js';
import { featuresBefore } from '../distillation/fidelity-features.js';
import { FlowCompressError } from '../errors.js';
import type { Engine, HostTensor } from '../runtime/engine.js';
import { headOfRun } from '../runtime/head-of-run.js';
import { toBytes } from '../onnx/to-bytes.js';

export interface ImageFeatures {
  /** Row-major [samples, width]. @param images [N, pixels] or [N, C, H, W] */
  of(images: HostTensor): Promise<{ readonly values: Float32Array; readonly width: number }>;
  release(): Promise<void>;
}

/**
 * Pixels are brought from `range` to 0..1 and, bilinearly, to the size that the classifier takes.
 * @param name of the classifier, for messages
 * @throws FlowCompressError `bad-input` or `unsupported` for a model that is no classifier of images of a known size
 */
export async function openImageFeatures(
  engine: Engine,
  classifier: ModelProto,
  name: string,
  range: readonly [number, number],
): Promise<ImageFeatures> {
  const session = await engine.createSession(toBytes(classifier));
  const refuse = (): FlowCompressError =>
    new FlowCompressError('unsupported', `${name} is no classifier of float images [N, C, H, W] of a fixed size.`, {
      node: name,
      hint: 'Give --features a classifier with one image input and an output with a score per class.',
    });
  const [input, ...others] = session.inputs;
  const dims = input?.dims.slice(1) ?? [];
  const found = async (): Promise<string | undefined> => {
    if (!input || others.length > 0 || input.type !== 'float32' || dims.length !== 3) return undefined;
    if (!dims.every((dim) => typeof dim === 'number' && dim > 0)) return undefined;
    const shape = [2, ...(dims as number[])];
    const data = new Float32Array(shape.reduce((a, b) => a * b, 1));
    return (await headOfRun(session, { [input.name]: { type: 'float32', dims: shape, data } }, false)).scores;
  };
  let scores: string | undefined;
  try {
    scores = await found();
  } finally {
    await session.release();
  }
  const features = scores === undefined ? undefined : featuresBefore(classifier, scores);
  if (!input || !features) throw refuse();
  const reader = await openFeatureReader(engine, features.model, [features.value]);
  return {
    async of(images) {
      const fitted = fitImages(images, dims as [number, number, number], range, name);
      const [result] = await reader.read({ feeds: { [input.name]: fitted }, size: fitted.dims[0]! });
      if (!result) throw refuse();
      return { values: result.values, width: result.width };
    },
    release: () => reader.release(),
  };
}

/**
 * Images as a classifier of [C, H, W] takes them: from `range` to 0..1, resized bilinearly with pixel centres at halves.
 * @throws FlowCompressError `bad-input` for images of other channels, or flat ones that are not square
 */
export function fitImages(
  { dims, data }: HostTensor,
  [channels, height, width]: readonly [number, number, number],
  [black, white]: readonly [number, number],
  name: string,
): HostTensor {
  const [samples = 0, ...own] = dims;
  const side = Math.sqrt(own.reduce((a, b) => a * b, 1) / channels);
  const [c, h, w] = own.length === 3 ? (own as [number, number, number]) : [channels, side, side];
  if (c !== channels || !Number.isInteger(h))
    throw new FlowCompressError(
      'bad-input',
      `Samples of [${own.join(', ')}] are no images of ${String(channels)} channels, which ${name} takes.`,
      { node: name, hint: 'Give --features a classifier of such images.' },
    );
  const [rows, columns] = [taps(h, height), taps(w, width)];
  const out = new Float32Array(samples * channels * height * width);
  const scale = 1 / (white - black);
  for (let plane = 0; plane < samples * channels; plane++) {
    const from = plane * h * w;
    const pixel = (y: number, x: number): number => Number(data[from + y * w + x]);
    for (const [y, row] of rows.entries())
      for (const [x, column] of columns.entries()) {
        const upper = pixel(row.low, column.low) * (1 - column.share) + pixel(row.low, column.high) * column.share;
        const lower = pixel(row.high, column.low) * (1 - column.share) + pixel(row.high, column.high) * column.share;
        const value = upper * (1 - row.share) + lower * row.share;
        out[(plane * height + y) * width + x] = (value - black) * scale;
      }
  }
  return { type: 'float32', dims: [samples, channels, height, width], data: out };
}

interface Tap {
  readonly low: number;
  readonly high: number;
  /** Of `high`. */
  readonly share: number;
}

function taps(from: number, to: number): Tap[] {
  return Array.from({ length: to }, (_, i) => {
    const at = Math.min(from - 1, Math.max(0, ((i + 0.5) * from) / to - 0.5));
    const low = Math.floor(at);
    return { low, high: Math.min(from - 1, low + 1), share: at - low };
  });
}
