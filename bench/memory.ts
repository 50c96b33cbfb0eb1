/**
 * Peak memory of calibration above the engine's own, for 512 and for 10,000 samples: it should be a small multiple of the
 * model's size and not grow with the samples.
 * Usage: node --import tsx bench/memory.ts --assets FOLDER --cifar FOLDER [--samples 512,10000] [--only resnet20,...]
 *   [--methods static-int8,faaq] [--repeat 3] [--batch-size 32]
 *
 * Every figure is the peak of a fresh process with the same imports. The engine's own is the peak of a process that reads and
 * preprocesses the same samples and runs them through a session of the same model, with the same batch size, and nothing else;
 * `calibration` is the peak of a process that quantizes up to the written file. Medians over the repeats.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { z } from 'zod';
import { openWorkspace } from '../src/commands/workspace.js';
import { dataOptionsSchema } from '../src/commands/options.js';
import { parseOptions } from '../src/commands/parse-options.js';
import { modelBytes } from '../src/node/model-file.js';
import { FIGURE_MODELS } from './lib/figure-targets.js';
import { CIFAR_PREPROCESS, existing, findPlaces, note, PLACE_FLAGS } from './lib/places.js';
import { peakRss } from './lib/memory.js';
import { quantizeFile } from './lib/quantize-file.js';
import { markdownTable, median, type Row } from './lib/table.js';

const { values: flags } = parseArgs({
  options: {
    ...PLACE_FLAGS,
    samples: { type: 'string', default: '512,10000' },
    only: { type: 'string' },
    methods: { type: 'string', default: 'static-int8,faaq' },
    repeat: { type: 'string', default: '3' },
    'batch-size': { type: 'string', default: '32' },
    child: { type: 'string' },
    job: { type: 'string', default: '{}' },
  },
});

/** Times the model's size. */
const TARGET = 2;

const jobSchema = z.object({
  model: z.string(),
  data: z.string(),
  test: z.string(),
  output: z.string(),
  samples: z.number(),
  batchSize: z.number(),
});
type Job = z.infer<typeof jobSchema>;

async function child(kind: string, job: Job): Promise<void> {
  const options = {
    ...{ data: job.data, test: job.test, calibSamples: job.samples, batchSize: job.batchSize, threads: 2 },
    preprocess: CIFAR_PREPROCESS,
  };
  if (kind === 'engine') {
    const workspace = await openWorkspace(job.model, parseOptions(dataOptionsSchema, options));
    const session = await workspace.engine.createSession(job.model);
    for await (const batch of workspace.batch(workspace.working.calib)) await session.run(batch.feeds);
    await session.release();
    await workspace.close();
  } else {
    await quantizeFile(job.model, {
      ...options,
      ...{ output: job.output, force: true, method: kind, execution: 'int8', bits: 4 },
    });
  }
  console.log(JSON.stringify({ peak: peakRss() }));
}

function run(kind: string, job: Job): number {
  const result = spawnSync(
    process.execPath,
    [...process.execArgv, fileURLToPath(import.meta.url), '--child', kind, '--job', JSON.stringify(job)],
    { encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] },
  );
  if (result.status !== 0) throw new Error(`The process that measures ${kind} failed.`);
  return z.object({ peak: z.number() }).parse(JSON.parse(result.stdout)).peak;
}

async function main(): Promise<void> {
  const { assets, cifar } = findPlaces(flags);
  if (assets === undefined || cifar === undefined) {
    process.exitCode = 2;
    return;
  }
  const only = flags.only?.split(',');
  const folder = mkdtempSync(join(tmpdir(), 'flow-compress-memory-'));
  const rows: Row[] = [];
  const mb = (bytes: number): string => `${(bytes / 1e6).toFixed(1)} MB`;
  try {
    for (const item of FIGURE_MODELS) {
      const model = existing(assets, item.model);
      if (model === undefined || (only && !only.includes(item.name))) continue;
      const bytes = await modelBytes(model);
      for (const samples of flags.samples.split(',').map(Number)) {
        const job = { ...cifar, data: cifar.train, model, samples, batchSize: Number(flags['batch-size']) };
        const peaks = new Map<string, number[]>();
        for (let i = 0; i < Number(flags.repeat); i++) {
          for (const kind of ['engine', ...flags.methods.split(',')]) {
            const peak = run(kind, { ...job, output: join(folder, 'out.onnx') });
            peaks.set(kind, [...(peaks.get(kind) ?? []), peak]);
          }
        }
        const engine = median(peaks.get('engine') ?? []);
        for (const [kind, list] of peaks) {
          if (kind === 'engine') continue;
          const above = median(list) - engine;
          const ratio = above / bytes;
          const row = [
            ...[item.name, kind, samples.toLocaleString('en-US'), mb(bytes), mb(engine), mb(median(list)), mb(above)],
            `${ratio.toFixed(1)}x${ratio > TARGET ? ' (NO)' : ''}`,
          ];
          note(row.join(' | '));
          rows.push(row);
        }
      }
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
  const header = ['model', 'method', 'samples', 'file', "engine's own", 'calibration', 'above'];
  console.log(markdownTable([...header, `of the file, to reach ${TARGET}x`], rows, [0, 1]));
}

await (flags.child === undefined ? main() : child(flags.child, jobSchema.parse(JSON.parse(flags.job))));
