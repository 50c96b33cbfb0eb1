/**
 * Milliseconds of a training step (forward, backward, AdamW) against PyTorch's on this machine, in alternating runs.
 * Usage: node --import tsx bench/train-step.ts [--peers ENVIRONMENT] [--only resnet20,...] [--rounds 3] [--steps 12]
 *   [--threads 2] [--profile]
 * Random images of 32x32; the ViT has six layers of width 192 on 64 patches (and here a class token beside them). PyTorch is timed in its default
 * layout and in channels_last; the ratio is to the faster one. --profile lists the operators that take the time.
 */
import { parseArgs } from 'node:util';
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { z } from 'zod';
import { nodeEngine } from '../src/node/onnxruntime.js';
import { nodeProfiler } from '../src/node/profiler.js';
import { Graph } from '../src/onnx/graph.js';
import { toBytes } from '../src/onnx/to-bytes.js';
import type { Feeds, HostTensor } from '../src/runtime/engine.js';
import { OPTIMIZER_DEFAULTS } from '../src/training/optimizers.js';
import { readParameters, trainableParameters } from '../src/training/parameters.js';
import { openStepper } from '../src/training/stepper.js';
import { classTargets } from '../src/training/targets.js';
import { trainedModel } from '../src/training/trained-model.js';
import { buildTrainingGraph, type TrainingGraph } from '../src/training/training-graph.js';
import { randomStream } from '../src/data/random.js';
import { buildNetwork } from '../src/zoo/build.js';
import type { ZooOptions } from '../src/zoo/options.js';
import { findArchitecture } from '../src/zoo/registry.js';
import { note, PLACE_FLAGS } from './lib/places.js';
import { markdownTable, median } from './lib/table.js';

const { values: flags } = parseArgs({
  options: {
    ...PLACE_FLAGS,
    only: { type: 'string' },
    rounds: { type: 'string', default: '3' },
    steps: { type: 'string', default: '12' },
    threads: { type: 'string', default: '2' },
    profile: { type: 'boolean', default: false },
  },
});

interface StepCase {
  /** As bench/peers/train_step.py calls it. */
  readonly name: string;
  readonly architecture: string;
  readonly options: ZooOptions;
  readonly batch: number;
}

const CASES: readonly StepCase[] = [
  { name: 'resnet20', architecture: 'resnet20', options: {}, batch: 128 },
  { name: 'resnet56', architecture: 'resnet56', options: {}, batch: 128 },
  { name: 'mobilenetv2', architecture: 'mobilenet-v2', options: { classes: 10, inputSize: 32, dropout: 0 }, batch: 64 },
  {
    name: 'vit',
    architecture: 'vit-ti',
    options: { classes: 10, inputSize: 32, patchSize: 4, depth: 6, dropout: 0 },
    batch: 64,
  },
];

const peerSchema = z.object({ version: z.string(), medianMs: z.number(), bytesAbove: z.number() });

function peer(python: string, { name, batch }: StepCase, channelsLast: boolean): z.infer<typeof peerSchema> {
  const script = fileURLToPath(new URL('peers/train_step.py', import.meta.url));
  const result = spawnSync(
    python,
    [
      ...[script, '--model', name, '--batch', String(batch), '--threads', flags.threads, '--steps', flags.steps],
      ...(channelsLast ? ['--channels-last'] : []),
    ],
    { encoding: 'utf8' },
  );
  if (result.status !== 0) throw new Error(result.stderr);
  return peerSchema.parse(JSON.parse(result.stdout));
}

interface Ours {
  readonly graph: TrainingGraph;
  readonly feeds: Feeds;
  readonly target: HostTensor;
  run(): Promise<number>;
  release(): Promise<void>;
}

async function ours({ architecture, options, batch }: StepCase): Promise<Ours> {
  const engine = nodeEngine({ threads: Number(flags.threads) });
  const found = findArchitecture(architecture);
  if (!found) throw new Error(`no architecture ${architecture}`);
  const { model } = buildNetwork(found, options);
  const trainable = trainedModel(model, 'logits', 'cross-entropy');
  const parameters = trainableParameters(new Graph(trainable.model));
  const random = randomStream(1);
  const images = (rows: number): Feeds => ({
    input: {
      type: 'float32',
      dims: [rows, 3, 32, 32],
      data: Float32Array.from({ length: rows * 3072 }, () => random.normal()),
    },
  });
  const graph = await buildTrainingGraph(
    engine,
    trainable.model,
    {
      ...{ loss: 'cross-entropy', output: trainable.output, batchSize: batch, parameters, optimizer: 'adamw' },
      ...{ optimizerSettings: OPTIMIZER_DEFAULTS, weightDecay: 0.01, accumulate: 1, temperature: 1 },
      ...{ batchNorm: 'updated', seed: 1 },
    },
    images,
  );
  const size = parameters.reduce((sum, parameter) => sum + parameter.size, 0);
  const stepper = await openStepper(
    engine,
    graph,
    { name: 'adamw', settings: OPTIMIZER_DEFAULTS },
    {
      parameters: readParameters(trainable.model, parameters),
      buffers: readParameters(trainable.model, graph.buffers),
      states: [new Float32Array(size), new Float32Array(size)],
    },
  );
  const feeds = images(batch);
  const labels = Int32Array.from({ length: batch }, () => random.int(10));
  const target = classTargets(labels, 10);
  return {
    graph,
    feeds,
    target,
    async run() {
      const times: number[] = [];
      for (let i = 0; i < Number(flags.steps) + 3; i++) {
        const start = performance.now();
        await stepper.step([{ feeds, target }], 1e-4);
        times.push(performance.now() - start);
      }
      return median(times.slice(3));
    },
    release: () => stepper.release(),
  };
}

/** Milliseconds by operator type, from the engine's profile of whole steps. */
async function profile({ graph, feeds, target }: Ours): Promise<string> {
  const all: Feeds = { ...feeds, [graph.names.target]: target };
  for (const { input, size } of graph.names.vectors)
    all[input] = { type: 'float32', dims: [size], data: new Float32Array(size) };
  for (const name of graph.names.scalars) all[name] = { type: 'float32', dims: [], data: Float32Array.of(1e-4) };
  const [runs] = await nodeProfiler(Number(flags.threads)).profile(toBytes(graph.update), [all], 3);
  const totals = new Map<string, { ms: number; count: number }>();
  for (const { op, micros } of runs!.at(-1)!) {
    const entry = totals.get(op) ?? { ms: 0, count: 0 };
    totals.set(op, { ms: entry.ms + micros / 1000, count: entry.count + 1 });
  }
  const sorted = [...totals].sort((a, b) => b[1].ms - a[1].ms).slice(0, 14);
  return sorted.map(([op, { ms, count }]) => `${op} ${ms.toFixed(1)} (${String(count)})`).join(', ');
}

const rows: string[][] = [];
const python = flags.peers === undefined ? undefined : join(flags.peers, 'bin', 'python');
for (const item of CASES) {
  if (flags.only && !flags.only.split(',').includes(item.name)) continue;
  const mine = await ours(item);
  const times: number[] = [];
  const theirs: number[] = [];
  const last: number[] = [];
  for (let round = 0; round < Number(flags.rounds); round++) {
    times.push(await mine.run());
    if (!python) continue;
    theirs.push(peer(python, item, false).medianMs);
    last.push(peer(python, item, true).medianMs);
  }
  if (flags.profile) note(`${item.name}: ${await profile(mine)}`);
  await mine.release();
  const ms = (list: readonly number[]): string => (list.length > 0 ? median(list).toFixed(0) : '');
  const best = theirs.map((ms, i) => Math.min(ms, last[i]!));
  const ratio = best.length > 0 ? `${median(times.map((ms, i) => ms / best[i]!)).toFixed(2)}x` : '';
  rows.push([item.name, String(item.batch), ms(times), ms(theirs), ms(last), ratio]);
}
console.log(
  markdownTable(['model', 'batch', 'ms a step', 'PyTorch', 'PyTorch channels_last', 'ratio, to reach 1x'], rows, [0]),
);
