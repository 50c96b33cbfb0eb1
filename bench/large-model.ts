/**
 * Seconds and peak memory of opening and saving a large model, against reading and writing the same bytes.
 * Usage: node --import tsx bench/large-model.ts [--mb 440] [--runs 3]
 * Every measurement runs in a fresh process; memory is the peak above that of a bare process with the same imports.
 */
import { spawnSync } from 'node:child_process';
import { createWriteStream } from 'node:fs';
import { mkdtemp, open, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { create, toBinary } from '@bufbuild/protobuf';
import { BinaryWriter, WireType } from '@bufbuild/protobuf/wire';
import {
  GraphProtoSchema,
  ModelProtoSchema,
  NodeProtoSchema,
  TensorProtoSchema,
  TypeProtoSchema,
  ValueInfoProtoSchema,
} from 'onnx-buf';
import { openModel, saveModel } from '../src/node/model-file.js';

const { values } = parseArgs({
  options: {
    mb: { type: 'string', default: '440' },
    runs: { type: 'string', default: '3' },
    child: { type: 'string' },
    file: { type: 'string', default: '' },
  },
});

const SIDE = 1024;
const MATRIX_BYTES = SIDE * SIDE * 4;

/** A chain of MatMuls, written field by field so that this process never holds it. */
async function writeModel(path: string, bytes: number): Promise<void> {
  const layers = Math.round(bytes / MATRIX_BYTES);
  const type = create(TypeProtoSchema, {
    value: {
      case: 'tensorType',
      value: {
        elemType: 1,
        shape: {
          dim: [{ value: { case: 'dimParam', value: 'N' } }, { value: { case: 'dimValue', value: BigInt(SIDE) } }],
        },
      },
    },
  });
  const nodes = Array.from({ length: layers }, (_, i) =>
    create(NodeProtoSchema, { opType: 'MatMul', name: `layer${i}`, input: [`x${i}`, `w${i}`], output: [`x${i + 1}`] }),
  );
  const ends = {
    input: [create(ValueInfoProtoSchema, { name: 'x0', type })],
    output: [create(ValueInfoProtoSchema, { name: `x${layers}`, type })],
  };
  const light = toBinary(GraphProtoSchema, create(GraphProtoSchema, { name: 'chain', node: nodes, ...ends }));
  const heads = nodes.map((_, i) => {
    const tensor = toBinary(
      TensorProtoSchema,
      create(TensorProtoSchema, { name: `w${i}`, dataType: 1, dims: [BigInt(SIDE), BigInt(SIDE)] }),
    );
    const raw = new BinaryWriter().tag(9, WireType.LengthDelimited).uint32(MATRIX_BYTES).finish();
    const size = tensor.length + raw.length + MATRIX_BYTES;
    return Buffer.concat([new BinaryWriter().tag(5, WireType.LengthDelimited).uint32(size).finish(), tensor, raw]);
  });
  const graphBytes = light.length + heads.reduce((sum, head) => sum + head.length + MATRIX_BYTES, 0);
  const model = toBinary(
    ModelProtoSchema,
    create(ModelProtoSchema, { irVersion: 8n, opsetImport: [{ domain: '', version: 17n }] }),
  );
  const out = createWriteStream(path);
  const write = async (chunk: Uint8Array): Promise<void> => {
    if (!out.write(chunk)) await once(out, 'drain');
  };
  await write(model);
  await write(new BinaryWriter().tag(7, WireType.LengthDelimited).uint32(graphBytes).finish());
  await write(light);
  let state = 1;
  for (const head of heads) {
    const weights = new Float32Array(SIDE * SIDE);
    for (let i = 0; i < weights.length; i++) {
      state = (Math.imul(state, 1664525) + 1013904223) | 0;
      weights[i] = state / 2 ** 31 / 32;
    }
    await write(head);
    await write(new Uint8Array(weights.buffer));
  }
  out.end();
  await once(out, 'close');
}

/** The same bytes read into one buffer and written from it, flushed to disk as `saveModel` does. */
async function copyPlainly(from: string, to: string): Promise<void> {
  const input = await open(from, 'r');
  const { size } = await input.stat();
  const buffer = Buffer.allocUnsafeSlow(size);
  for (let at = 0; at < size;) at += (await input.read(buffer, at, size - at, at)).bytesRead;
  await input.close();
  const output = await open(to, 'w');
  for (let at = 0; at < size;) at += (await output.write(buffer, at, size - at, at)).bytesWritten;
  await output.sync();
  await output.close();
}

interface Measured {
  openSeconds: number;
  seconds: number;
  /** Peak resident memory of the process. */
  rssBytes: number;
}

async function child(kind: string, file: string): Promise<void> {
  const begin = performance.now();
  let openSeconds = 0;
  if (kind === 'flow') {
    const { model, path } = await openModel(file);
    openSeconds = (performance.now() - begin) / 1000;
    await saveModel(model, `${file}.out.onnx`, { inputs: [path] });
  } else if (kind === 'plain') {
    await copyPlainly(file, `${file}.out.onnx`);
  }
  const result: Measured = {
    openSeconds,
    seconds: (performance.now() - begin) / 1000,
    rssBytes: process.resourceUsage().maxRSS * 1024,
  };
  console.log(JSON.stringify(result));
}

function run(kind: string, file: string): Measured {
  const script = fileURLToPath(import.meta.url);
  const result = spawnSync(process.execPath, [...process.execArgv, script, '--child', kind, '--file', file], {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  if (result.status !== 0) throw new Error(`The ${kind} measurement failed.`);
  return JSON.parse(result.stdout);
}

function median(numbers: number[]): number {
  return [...numbers].sort((a, b) => a - b)[Math.floor(numbers.length / 2)];
}

async function main(): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), 'flow-compress-large-'));
  try {
    const file = join(folder, 'large.onnx');
    const bytes = Number(values.mb) * 1e6;
    await writeModel(file, bytes);
    const bare = run('bare', file);
    console.log(`model: ${values.mb} MB; bare process: ${(bare.rssBytes / 1e6).toFixed(0)} MB`);
    const results: Record<string, Measured[]> = { plain: [], flow: [] };
    for (let i = 0; i < Number(values.runs); i++) {
      for (const kind of ['plain', 'flow']) {
        results[kind].push(run(kind, file));
        await rm(`${file}.out.onnx`);
      }
    }
    for (const [kind, name] of [
      ['plain', 'read + write + sync'],
      ['flow', 'openModel + saveModel'],
    ]) {
      const seconds = median(results[kind].map((result) => result.seconds));
      const opened = median(results[kind].map((result) => result.openSeconds));
      const ratio = (Math.max(...results[kind].map((result) => result.rssBytes)) - bare.rssBytes) / bytes;
      const detail = kind === 'flow' ? ` (of which open ${opened.toFixed(2)} s)` : '';
      console.log(
        `${name}: median ${seconds.toFixed(2)} s${detail}, peak memory above bare ${ratio.toFixed(2)} x the file`,
      );
    }
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

await (values.child === undefined ? main() : child(values.child, values.file));
