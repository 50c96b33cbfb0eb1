/**
 * Peak resident memory of training steps (forward, backward, AdamW) above that of the process before them, against PyTorch's.
 * Usage: node --import tsx bench/train-memory.ts [--peers ENVIRONMENT] [--only resnet56,vit] [--steps 3] [--threads 2]
 * Every figure is of a fresh process. Before the first step the model, the session and the data are there, and the peak is reset
 * where the system allows it.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { z } from 'zod';
import { note, PLACE_FLAGS } from './lib/places.js';
import { peakRss } from './lib/memory.js';
import { markdownTable } from './lib/table.js';
import { openStep, STEP_CASES, torchStep, type StepCase } from './lib/train-cases.js';

const { values: flags } = parseArgs({
  options: {
    ...PLACE_FLAGS,
    only: { type: 'string', default: 'resnet56,vit' },
    steps: { type: 'string', default: '3' },
    threads: { type: 'string', default: '2' },
    child: { type: 'string' },
    checkpoint: { type: 'boolean', default: false },
  },
});

const resultSchema = z.object({ bytesAbove: z.number(), loss: z.number(), ms: z.number() });
type Result = z.infer<typeof resultSchema>;

const CLEAR = '/proc/self/clear_refs';

async function measure(item: StepCase): Promise<Result> {
  const { stepper, feeds, target } = await openStep(item, Number(flags.threads), {
    checkpointActivations: flags.checkpoint,
  });
  if (existsSync(CLEAR)) writeFileSync(CLEAR, '5');
  const before = peakRss();
  let [loss, ms] = [0, 0];
  for (let i = 0; i < Number(flags.steps); i++) {
    const start = performance.now();
    ({ loss } = await stepper.step([{ feeds, target }], 1e-4));
    ms = performance.now() - start;
  }
  return { bytesAbove: peakRss() - before, loss, ms };
}

function inChild(item: StepCase, checkpoint: boolean): Result {
  const script = fileURLToPath(import.meta.url);
  const args = ['--import', 'tsx', script, '--child', item.name, '--steps', flags.steps, '--threads', flags.threads];
  if (checkpoint) args.push('--checkpoint');
  const result = spawnSync(process.execPath, args, { encoding: 'utf8' });
  if (result.status !== 0) throw new Error(result.stderr);
  return resultSchema.parse(JSON.parse(result.stdout));
}

if (flags.child !== undefined) {
  const item = STEP_CASES.find(({ name }) => name === flags.child);
  if (!item) throw new Error(`no case ${flags.child}`);
  console.log(JSON.stringify(await measure(item)));
} else {
  const megabytes = (bytes: number): string => (bytes / 1e6).toFixed(0);
  const rows: string[][] = [];
  for (const item of STEP_CASES) {
    if (!flags.only.split(',').includes(item.name)) continue;
    const [mine, less] = [inChild(item, false), inChild(item, true)];
    for (const { bytesAbove, loss, ms } of [mine, less])
      note(`${item.name}: ${megabytes(bytesAbove)} MB, loss ${String(loss)}, ${ms.toFixed(0)} ms`);
    const options = { threads: Number(flags.threads), steps: Number(flags.steps) };
    const peer = flags.peers === undefined ? undefined : torchStep(join(flags.peers, 'bin', 'python'), item, options);
    rows.push([
      ...[item.name, String(item.batch), megabytes(mine.bytesAbove), megabytes(less.bytesAbove)],
      ...(peer ? [megabytes(peer.bytesAbove), `${(mine.bytesAbove / peer.bytesAbove).toFixed(2)}x`] : ['', '']),
    ]);
  }
  console.log(
    markdownTable(['model', 'batch', 'MB above', 'checkpointed', 'PyTorch', 'ratio, to reach 1.3x'], rows, [0]),
  );
}
