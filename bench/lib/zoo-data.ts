/** Inputs for models that take no plain images: latents, digits, byte sequences, labelled image arrays, as .npz files. */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import sharp from 'sharp';
import { z } from 'zod';
import { randomStream } from '../../src/data/random.js';
import { writeNpz } from '../../src/data/npz-write.js';
import { nodeEngine } from '../../src/node/onnxruntime.js';
import type { HostTensor } from '../../src/runtime/engine.js';

/** Writes arrays under a folder and returns the file's path. */
export function saveArrays(folder: string, name: string, arrays: Readonly<Record<string, HostTensor>>): string {
  const path = join(folder, `${name}.npz`);
  writeFileSync(path, writeNpz(arrays));
  return path;
}

const floats = (dims: readonly number[], data: Float32Array): HostTensor => ({ type: 'float32', dims, data });

/** Standard normal values. */
export function normals(dims: readonly number[], seed: number): HostTensor {
  const random = randomStream(seed);
  const count = dims.reduce((product, dim) => product * dim, 1);
  return floats(
    dims,
    Float32Array.from({ length: count }, () => random.normal()),
  );
}

/** Digits in 0..1, [count, 784], that a variational autoencoder's decoder draws from latents `z` [N, 20]. */
export async function digits(decoder: string, count: number): Promise<Float32Array> {
  const session = await nodeEngine().createSession(decoder);
  try {
    const { image } = await session.run({ z: normals([count, 20], 3) });
    return Float32Array.from(image.data, Number);
  } finally {
    await session.release();
  }
}

/** Gray squares of side `from`, resized to side `to`, bilinear with pixel centres. */
export function resizeSquares(images: Float32Array, from: number, to: number): HostTensor {
  const count = images.length / (from * from);
  const data = new Float32Array(count * to * to);
  const at = Array.from({ length: to }, (_, i) => {
    const centre = Math.min(from - 1, Math.max(0, ((i + 0.5) * from) / to - 0.5));
    const low = Math.min(from - 2, Math.floor(centre));
    return { low, high: centre - low };
  });
  for (let n = 0; n < count; n++) {
    const base = n * from * from;
    for (const [y, { low: top, high: down }] of at.entries()) {
      for (const [x, { low: left, high: right }] of at.entries()) {
        const pixel = (dy: number, dx: number): number => images[base + (top + dy) * from + left + dx];
        const upper = pixel(0, 0) * (1 - right) + pixel(0, 1) * right;
        const lower = pixel(1, 0) * (1 - right) + pixel(1, 1) * right;
        data[(n * to + y) * to + x] = upper * (1 - down) + lower * down;
      }
    }
  }
  return floats([count, 1, to, to], data);
}

/** Noised digits as a diffusion model sees them in training: x [N, 1, 28, 28] about -0.5..0.5, t [N] = step / 1000. */
export function noised(images: Float32Array): { x: HostTensor; t: HostTensor } {
  const random = randomStream(4);
  const pixels = 784;
  const count = images.length / pixels;
  const x = new Float32Array(images.length);
  const t = new Float32Array(count);
  for (let n = 0; n < count; n++) {
    const step = random.int(1000);
    t[n] = step / 1000;
    // Product of 1 - beta for a linear schedule from 1e-4 to 0.02.
    let kept = 1;
    for (let i = 0; i <= step; i++) kept *= 1 - (1e-4 + ((0.02 - 1e-4) * i) / 999);
    for (let i = n * pixels; i < (n + 1) * pixels; i++) {
      x[i] = Math.sqrt(kept) * (images[i] - 0.5) + Math.sqrt(1 - kept) * random.normal();
    }
  }
  return { x: floats([count, 1, 28, 28], x), t: floats([count], t) };
}

const magikaConfig = z.object({
  beg_size: z.number(),
  end_size: z.number(),
  padding_token: z.number(),
  target_labels_space: z.array(z.string()),
});

/** Beginning and end of every file below `folder`, labelled by the name of the folder it is in. */
export function byteSequences(
  folder: string,
  configFile: string,
): { bytes: HostTensor; labels: HostTensor; names: readonly string[] } {
  const config = magikaConfig.parse(JSON.parse(readFileSync(configFile, 'utf8')));
  const files = readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name))
    .filter((path) => config.target_labels_space.includes(basename(dirname(path))))
    .sort();
  const width = config.beg_size + config.end_size;
  const data = new Int32Array(files.length * width).fill(config.padding_token);
  const isSpace = (byte: number): boolean => byte === 32 || (byte >= 9 && byte <= 13);
  files.forEach((file, row) => {
    const content = readFileSync(file);
    let from = 0;
    let to = content.length;
    while (from < to && isSpace(content[from])) from++;
    while (to > from && isSpace(content[to - 1])) to--;
    data.set(content.subarray(from, Math.min(content.length, from + config.beg_size)), row * width);
    const end = content.subarray(Math.max(0, to - config.end_size), to);
    data.set(end, (row + 1) * width - end.length);
  });
  const labels = Int32Array.from(files, (file) => config.target_labels_space.indexOf(basename(dirname(file))));
  return {
    bytes: { type: 'int32', dims: [files.length, width], data },
    labels: { type: 'int32', dims: [files.length], data: labels },
    names: files,
  };
}

const manifest = z.array(z.object({ file: z.string(), label: z.number().int() }));

/** Centre crops of labelled images as uint8 [N, side, side, 3]; the manifest names files and labels. */
export async function croppedImages(
  folder: string,
  side: number,
  count: number,
): Promise<{ images: HostTensor; labels: HostTensor }> {
  const all = manifest.parse(JSON.parse(readFileSync(join(folder, 'manifest.json'), 'utf8')));
  // Evenly over the list, which is sorted by class.
  const chosen = Array.from(
    { length: Math.min(count, all.length) },
    (_, i) => all[Math.floor((i * all.length) / Math.min(count, all.length))],
  );
  const size = side * side * 3;
  const data = new Uint8Array(chosen.length * size);
  for (const [row, { file }] of chosen.entries()) {
    const image = sharp(join(folder, 'images', file))
      .removeAlpha()
      .toColourspace('srgb');
    const { width, height } = await image.metadata();
    const left = Math.floor((width - side) / 2);
    const top = Math.floor((height - side) / 2);
    data.set(await image.extract({ left, top, width: side, height: side }).raw().toBuffer(), row * size);
  }
  return {
    images: { type: 'uint8', dims: [chosen.length, side, side, 3], data },
    labels: { type: 'int32', dims: [chosen.length], data: Int32Array.from(chosen, ({ label }) => label) },
  };
}
