/**
 * Milliseconds per run of our files (2.5, 3, 4 and 8 bits, execution chosen on this machine) against fp32 and onnxruntime's
 * 8-bit QDQ file, all sessions interleaved in one process.
 * Usage: node --import tsx bench/latency.ts --assets FOLDER --cifar FOLDER --peers-out FOLDER [--only resnet20,...]
 *   [--bits 2.5,3,4,8] [--batches 1,32] [--threads 2] [--rounds 50] [--execution auto] [--keep FOLDER] [--write README.md]
 * Files that --keep holds already are used again. --peers-out holds NAME.ort-static-minmax.onnx, and the MatMul network with
 * its inputs as bench/peers/make-matmul.py writes them.
 *
 * The ratio is to the faster of fp32 and QDQ, from times of the same round (medians of ratios), so that a busy machine
 * weighs on both alike. To reach: at most 1.03; the MatMul network at most half of fp32.
 */
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { z } from 'zod';
import { openWorkspace } from '../src/commands/workspace.js';
import { dataOptionsSchema } from '../src/commands/options.js';
import { parseOptions } from '../src/commands/parse-options.js';
import type { QuantizeInput } from '../src/commands/quantize/quantize.js';
import type { Session } from '../src/runtime/engine.js';
import { measureLatency, TIMED_TOGETHER } from '../src/runtime/latency.js';
import { CIFAR_PREPROCESS, existing, findPlaces, note, PLACE_FLAGS, type Places } from './lib/places.js';
import { quantizeFile } from './lib/quantize-file.js';
import { markdownTable, replaceBlock, type Row } from './lib/table.js';

const { values: flags } = parseArgs({
  options: {
    ...PLACE_FLAGS,
    only: { type: 'string' },
    bits: { type: 'string', default: '2.5,3,4,8' },
    batches: { type: 'string', default: '1,32' },
    threads: { type: 'string', default: '2' },
    rounds: { type: 'string', default: '50' },
    execution: { type: 'string', default: 'auto' },
    keep: { type: 'string' },
    write: { type: 'string' },
  },
});

/** Slower than the faster of fp32 and QDQ by at most 3 %. */
const LIMIT = 1.03;

interface LatencyCase {
  readonly name: string;
  readonly model: (places: Places) => string | undefined;
  /** Data to calibrate with; undefined where it is not there. */
  readonly data: (places: Places) => Pick<QuantizeInput, 'data' | 'preprocess' | 'calibSamples'> | undefined;
  /** Part of fp32's time at most, where one is set. */
  readonly ofFloat?: number;
}

const cifar: LatencyCase['data'] = (places) =>
  places.cifar && { data: places.cifar.train, preprocess: CIFAR_PREPROCESS, calibSamples: 512 };
const images =
  (preprocess: QuantizeInput['preprocess']): LatencyCase['data'] =>
  (places) => {
    const data = existing(places.assets, 'imagenet-sample-256', 'images');
    return data === undefined ? undefined : { data, calibSamples: 64, preprocess: { ...preprocess, crop: 224 } };
  };
const inAssets =
  (path: string): LatencyCase['model'] =>
  ({ assets }) =>
    existing(assets, path);

const CASES: readonly LatencyCase[] = [
  { name: 'resnet20', model: inAssets('resnet-cifar10/resnet20.onnx'), data: cifar },
  { name: 'resnet56', model: inAssets('resnet-cifar10/resnet56.onnx'), data: cifar },
  { name: 'squeezenet1.1', model: inAssets('squeezenet1.1/squeezenet1.1.onnx'), data: images(CIFAR_PREPROCESS) },
  {
    name: 'mobilenet_v1_0.75',
    model: inAssets('mobilenet_v1_0.75/mobilenet_v1_0.75_224.onnx'),
    data: images({ mean: [0.5], std: [0.5] }),
  },
  { name: 'cifar-vit', model: inAssets('cifar-vit/cifar-vit.onnx'), data: cifar },
  {
    name: 'matmul2048',
    model: ({ peersOut }) => existing(peersOut, 'matmul2048.onnx'),
    data: ({ peersOut }) => {
      const data = existing(peersOut, 'matmul2048.npz');
      return data === undefined ? undefined : { data, calibSamples: 256 };
    },
    ofFloat: 0.5,
  },
];

interface TimedFile {
  readonly label: string;
  readonly path: string;
  readonly execution: string;
}

async function makeFiles(
  name: string,
  model: string,
  input: NonNullable<ReturnType<LatencyCase['data']>>,
  folder: string,
): Promise<TimedFile[]> {
  const files: TimedFile[] = [];
  const execution = z.enum(['auto', 'int8', 'float']).parse(flags.execution);
  for (const bits of flags.bits.split(',').map(Number)) {
    const path = join(folder, `${name}.${execution}.${bits}.onnx`);
    let chosen = 'kept file';
    if (!existsSync(path)) {
      const made = await quantizeFile(model, {
        ...{ ...input, output: path, bits, execution, threads: Number(flags.threads), force: true },
        minBits: Math.min(2, bits),
      });
      chosen = made.execution;
      note(`  made ${path}: ${made.bytes.toLocaleString('en-US')} B, ${made.execution}`);
    }
    files.push({ label: `${bits} bits`, path, execution: chosen });
  }
  return files;
}

async function timeCase(item: LatencyCase, places: Places, folder: string): Promise<Row[]> {
  const model = item.model(places);
  const input = item.data(places);
  if (model === undefined || input === undefined) {
    note(`${item.name}: its model or data is not there, skipped.`);
    return [];
  }
  note(item.name);
  const qdq = existing(places.peersOut, `${item.name}.ort-static-minmax.onnx`);
  if (qdq === undefined) note('  no QDQ file of onnxruntime: compared with fp32 only.');
  const ours = await makeFiles(item.name, model, input, folder);
  const files: TimedFile[] = [
    { label: 'fp32', path: model, execution: '' },
    ...(qdq === undefined ? [] : [{ label: 'QDQ', path: qdq, execution: '' }]),
    ...ours,
  ];
  const workspace = await openWorkspace(
    model,
    parseOptions(dataOptionsSchema, { ...input, threads: Number(flags.threads) }),
  );
  const sessions: Session[] = [];
  const rows: Row[] = [];
  try {
    for (const { path } of files) sessions.push(await workspace.engine.createSession(path, { config: TIMED_TOGETHER }));
    for (const batch of flags.batches.split(',').map(Number)) {
      const feeds = workspace.feedsFor(batch);
      const timed = await measureLatency(
        sessions.map((session) => ({ session, feeds })),
        { runs: Number(flags.rounds), minSeconds: 5 },
      );
      const peers = timed.slice(0, files.length - ours.length);
      const fastest = Math.min(...peers.map(({ ratioToFirst }) => ratioToFirst));
      files.forEach(({ label, execution }, i) => {
        const { medianMs, p90Ms, ratioToFirst } = timed[i];
        const isOurs = i >= peers.length;
        const ratio = ratioToFirst / fastest;
        const slow = ratio > LIMIT || (item.ofFloat !== undefined && ratioToFirst > item.ofFloat);
        const row = [
          ...[item.name, String(batch), label, execution, medianMs.toFixed(3), p90Ms.toFixed(3)],
          `${ratioToFirst.toFixed(2)}x`,
          isOurs ? `${ratio.toFixed(2)}x${slow ? ' (NO)' : ''}` : '',
        ];
        note(`  ${row.join(' | ')}`);
        rows.push(row);
      });
    }
  } finally {
    await Promise.all(sessions.map((session) => session.release()));
    await workspace.close();
  }
  return rows;
}

async function main(): Promise<void> {
  const places = findPlaces(flags);
  const only = flags.only?.split(',');
  const folder = flags.keep ?? mkdtempSync(join(tmpdir(), 'flow-compress-latency-'));
  mkdirSync(folder, { recursive: true });
  const rows: Row[] = [];
  try {
    for (const item of CASES) {
      if (!only || only.includes(item.name)) rows.push(...(await timeCase(item, places, folder)));
    }
  } finally {
    if (flags.keep === undefined) rmSync(folder, { recursive: true, force: true });
  }
  const text = markdownTable(
    ['model', 'batch', 'file', 'execution', 'median ms', 'p90 ms', 'of fp32', `of the faster peer, at most ${LIMIT}x`],
    rows,
    [0, 2, 3],
  );
  console.log(text);
  if (rows.some((row) => row.at(-1)?.includes('NO'))) process.exitCode = 1;
  if (flags.write !== undefined) {
    writeFileSync(flags.write, replaceBlock(readFileSync(flags.write, 'utf8'), 'latency', text));
  }
}

await main();
