/**
 * Makes the bundled demo data from Fashion-MNIST's IDX files (the Debian package dataset-fashion-mnist, or the upstream
 * repository's data folder): a seeded, class-balanced 10,000 of the 60,000 training images and all 10,000 test images.
 *
 *   npx tsc --noEmit false --outDir bench/out && node bench/out/bench/make-fashion.js IDX_FOLDER demo/data
 */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gunzipSync, gzipSync } from 'node:zlib';
import { randomStream, shuffle } from '../src/data/random.js';

const CLASSES = 10;
const PER_CLASS = 1000;
const SEED = 0;

interface Idx {
  readonly dims: readonly number[];
  readonly data: Uint8Array;
}

function readIdx(path: string): Idx {
  const bytes = gunzipSync(readFileSync(path));
  if (bytes.readUInt16BE(0) !== 0 || bytes[2] !== 0x08)
    throw new Error(`${path} is not an IDX file of unsigned bytes.`);
  const dims = Array.from({ length: bytes[3] }, (_, axis) => bytes.readUInt32BE(4 + 4 * axis));
  return { dims, data: bytes.subarray(4 + 4 * dims.length) };
}

function writeIdx(path: string, { dims, data }: Idx): void {
  const header = Buffer.alloc(4 + 4 * dims.length);
  header.set([0, 0, 0x08, dims.length]);
  dims.forEach((dim, axis) => header.writeUInt32BE(dim, 4 + 4 * axis));
  writeFileSync(path, gzipSync(Buffer.concat([header, data]), { level: 9 }));
}

function take({ dims, data }: Idx, rows: readonly number[]): Idx {
  const bytes = data.length / dims[0];
  return {
    dims: [rows.length, ...dims.slice(1)],
    data: Buffer.concat(rows.map((row) => data.subarray(row * bytes, (row + 1) * bytes))),
  };
}

const LICENSE = `Fashion-MNIST (https://github.com/zalandoresearch/fashion-mnist), the source of the images and labels in this folder:
10,000 of its 60,000 training images, ${PER_CLASS} of each class, and its 10,000 test images.

The MIT License (MIT)

Copyright © 2017 Zalando SE, https://tech.zalando.com

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
documentation files (the "Software"), to deal in the Software without restriction, including without limitation the
rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit
persons to whom the Software is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the
Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR
OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
`;

const [source, target] = process.argv.slice(2);
if (!source || !target) throw new Error('Usage: make-fashion IDX_FOLDER OUTPUT_FOLDER');
mkdirSync(target, { recursive: true });

const images = readIdx(join(source, 'train-images-idx3-ubyte.gz'));
const labels = readIdx(join(source, 'train-labels-idx1-ubyte.gz'));
const random = randomStream(SEED);
const rows: number[] = [];
for (let label = 0; label < CLASSES; label++) {
  const members = Array.from(labels.data.keys()).filter((row) => labels.data[row] === label);
  rows.push(...shuffle(members, random).slice(0, PER_CLASS));
}
rows.sort((a, b) => a - b);
writeIdx(join(target, 'train-images-idx3-ubyte.gz'), take(images, rows));
writeIdx(join(target, 'train-labels-idx1-ubyte.gz'), take(labels, rows));
for (const name of ['t10k-images-idx3-ubyte.gz', 't10k-labels-idx1-ubyte.gz']) {
  writeIdx(join(target, name), readIdx(join(source, name)));
}
writeFileSync(join(target, 'LICENSE'), LICENSE);
console.log(`${target}: ${rows.length} training images`);
