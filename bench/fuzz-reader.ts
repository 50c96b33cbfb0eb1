/**
 * Feeds damaged models to the reader: each must be read or refused with a FlowCompressError, quickly.
 * Usage: node --import tsx bench/fuzz-reader.ts [--count 10000] [--seed 1] [MODEL...]
 * Without models a small one with every kind of content is used. Exits 1 when anything else happened.
 */
import { readFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { FlowCompressError, messageOf } from '../src/errors.js';
import { decodeModel } from '../src/onnx/read.js';
import { validateModel } from '../src/onnx/validate.js';
import { encodeModel } from '../src/onnx/write.js';
import { concat, mutate, randomInts } from '../src/testing/mutations.js';
import { richModel } from '../src/testing/rich-model.js';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { count: { type: 'string', default: '10000' }, seed: { type: 'string', default: '1' } },
});

const originals =
  positionals.length > 0
    ? positionals.map((path) => new Uint8Array(readFileSync(path)))
    : [concat(encodeModel(richModel(2)))];
const random = randomInts(Number(values.seed));
const outcomes = new Map<string, number>();
const crashes: string[] = [];
let slowest = 0;

function outcomeOf(bytes: Uint8Array): string {
  let stage = 'decode';
  try {
    const model = decodeModel(bytes, 'model.onnx');
    stage = 'validate';
    validateModel(model);
    stage = 'encode';
    for (const chunk of encodeModel(model)) void chunk;
    return 'accepted';
  } catch (error) {
    if (error instanceof FlowCompressError) return `refused by ${stage} (${error.code})`;
    crashes.push(`${stage}: ${error instanceof Error ? error.stack : messageOf(error)}`);
    return `CRASH in ${stage}`;
  }
}

const begin = performance.now();
for (let i = 0; i < Number(values.count); i++) {
  const { kind, bytes } = mutate(originals[i % originals.length], random);
  const start = performance.now();
  const key = `${kind}: ${outcomeOf(bytes)}`;
  slowest = Math.max(slowest, performance.now() - start);
  outcomes.set(key, (outcomes.get(key) ?? 0) + 1);
}
for (const key of [...outcomes.keys()].sort()) console.log(`${String(outcomes.get(key)).padStart(7)}  ${key}`);
const seconds = ((performance.now() - begin) / 1000).toFixed(1);
console.log(`${values.count} files in ${seconds} s, the slowest ${slowest.toFixed(1)} ms, ${crashes.length} crashes`);
for (const crash of crashes.slice(0, 5)) console.log(crash);
process.exitCode = crashes.length > 0 ? 1 : 0;
