/**
 * Milliseconds of a training step (forward, backward, AdamW) against PyTorch's on this machine, in alternating runs.
 * Usage: node --import tsx bench/train-step.ts [--peers ENVIRONMENT] [--only resnet20,...] [--rounds 3] [--steps 12]
 *   [--threads 2] [--profile]
 * Random images of 32x32; the ViT has six layers of width 192 on 64 patches (and here a class token beside them). PyTorch is timed in its default
 * layout and in channels_last; the ratio is to the faster one. --profile lists the operators that take the time.
 */
import { parseArgs } from 'node:util';
import { join } from 'node:path';
import { nodeProfiler } from '../src/node/profiler.js';
import { toBytes } from '../src/onnx/to-bytes.js';
import type { Feeds } from '../src/runtime/engine.js';
import { note, PLACE_FLAGS } from './lib/places.js';
import { markdownTable, median } from './lib/table.js';
import { openStep, STEP_CASES, torchStep, type StepSetup } from './lib/train-cases.js';

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

async function timed({ stepper, feeds, target }: StepSetup): Promise<number> {
  const times: number[] = [];
  for (let i = 0; i < Number(flags.steps) + 3; i++) {
    const start = performance.now();
    await stepper.step([{ feeds, target }], 1e-4);
    times.push(performance.now() - start);
  }
  return median(times.slice(3));
}

/** Milliseconds by operator type, from the engine's profile of whole steps. */
async function profile({ graph, feeds, target }: StepSetup): Promise<string> {
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
for (const item of STEP_CASES) {
  if (flags.only && !flags.only.split(',').includes(item.name)) continue;
  const mine = await openStep(item, Number(flags.threads));
  const times: number[] = [];
  const theirs: number[] = [];
  const last: number[] = [];
  for (let round = 0; round < Number(flags.rounds); round++) {
    times.push(await timed(mine));
    if (!python) continue;
    const options = { threads: Number(flags.threads), steps: Number(flags.steps) };
    theirs.push(torchStep(python, item, options).medianMs);
    last.push(torchStep(python, item, { ...options, channelsLast: true }).medianMs);
  }
  if (flags.profile) note(`${item.name}: ${await profile(mine)}`);
  await mine.stepper.release();
  const ms = (list: readonly number[]): string => (list.length > 0 ? median(list).toFixed(0) : '');
  const best = theirs.map((ms, i) => Math.min(ms, last[i]!));
  const ratio = best.length > 0 ? `${median(times.map((ms, i) => ms / best[i]!)).toFixed(2)}x` : '';
  rows.push([item.name, String(item.batch), ms(times), ms(theirs), ms(last), ratio]);
}
console.log(
  markdownTable(['model', 'batch', 'ms a step', 'PyTorch', 'PyTorch channels_last', 'ratio, to reach 1x'], rows, [0]),
);
