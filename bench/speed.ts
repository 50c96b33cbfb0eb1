/**
 * Seconds of plain 8-bit quantization and of full FAAQ at 4 bits against onnxruntime's Python quantizer (static, min-max,
 * with its recommended preprocessing), in alternating runs on the same model and the same number of samples.
 * Usage: node --import tsx bench/speed.ts --assets FOLDER --cifar FOLDER --peers ENVIRONMENT [--pairs 3] [--only resnet20,...]
 *   [--execution auto] [--samples 512] [--write README.md]
 *
 * Included on both sides: opening the model, calibration, quantization, writing the file. Excluded on both sides: starting the
 * process, imports, and reading and preprocessing the samples, which are in memory when the clock starts. FAAQ includes
 * everything up to the written file: sensitivities, allocation, rounding, the choice of the execution (which times
 * candidates on this machine) and the check of the file against a simulation; plain 8-bit is the static-int8 method with
 * int8 execution and without that check, which the peer does not make either; the column `checked` adds it.
 * One untimed run of each comes first, so that neither side pays for cold caches. FAAQ gets another seed, hence other
 * codes, in every run: an execution that is remembered from an earlier one would not be chosen anew.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { z } from 'zod';
import { FIGURE_MODELS } from './lib/figure-targets.js';
import { runPeer } from './lib/peers.js';
import { CIFAR_PREPROCESS, existing, findPlaces, note, PLACE_FLAGS } from './lib/places.js';
import { quantizeFile, secondsOf, type QuantizedFile } from './lib/quantize-file.js';
import { markdownTable, median, replaceBlock, type Row } from './lib/table.js';

const { values: flags } = parseArgs({
  options: {
    ...PLACE_FLAGS,
    pairs: { type: 'string', default: '3' },
    only: { type: 'string' },
    execution: { type: 'string', default: 'auto' },
    samples: { type: 'string', default: '512' },
    write: { type: 'string' },
  },
});

/** Parts of the peer's time at most. */
const TARGETS = { plain: 0.5, faaq: 4 } as const;

interface Runs {
  readonly theirs: number[];
  readonly plain: number[];
  readonly checked: number[];
  readonly faaq: number[];
}

async function timeModel(
  model: string,
  data: { train: string; test: string },
  python: string,
  folder: string,
): Promise<Runs> {
  const runs: Runs = { theirs: [], plain: [], checked: [], faaq: [] };
  const samples = Number(flags.samples);
  const output = join(folder, 'quantized.onnx');
  const execution = z.enum(['auto', 'int8', 'float']).parse(flags.execution);
  const common = { data: data.train, test: data.test, output, calibSamples: samples, preprocess: CIFAR_PREPROCESS };
  const ours = (method: string, pair: number): Promise<QuantizedFile> =>
    quantizeFile(model, {
      ...common,
      ...{ threads: 2, force: true, preload: true, method },
      ...(method === 'faaq' ? { bits: 4, execution, seed: pair + 2 } : { execution: 'int8' }),
    });
  for (let pair = -1; pair < Number(flags.pairs); pair++) {
    const plain = await ours('static-int8', pair);
    const peer = runPeer(python, {
      ...{ method: 'ort-static-minmax', model, output: join(folder, 'peer.onnx') },
      ...{ data: data.train, samples, ...CIFAR_PREPROCESS },
    });
    const faaq = await ours('faaq', pair);
    if (pair < 0) {
      note(`  stages of FAAQ: ${stagesText(faaq)}`);
      note(`  stages of static-int8: ${stagesText(plain)}`);
      continue;
    }
    runs.theirs.push(peer.secondsWithPreprocess ?? peer.seconds);
    runs.plain.push(secondsOf(plain, 'verify'));
    runs.checked.push(secondsOf(plain));
    runs.faaq.push(secondsOf(faaq));
    const last = (list: readonly number[]): string => (list.at(-1) ?? NaN).toFixed(2);
    note(
      `  pair ${pair + 1}: onnxruntime ${last(runs.theirs)} s, plain ${last(runs.plain)} s, FAAQ ${last(runs.faaq)} s`,
    );
  }
  return runs;
}

function stagesText({ stages }: QuantizedFile): string {
  return Object.entries(stages)
    .map(([name, seconds]) => `${name} ${seconds.toFixed(2)} s`)
    .join(', ');
}

async function main(): Promise<void> {
  const { assets, cifar, python } = findPlaces(flags);
  if (assets === undefined || cifar === undefined || python === undefined) {
    process.exitCode = 2;
    return;
  }
  const only = flags.only?.split(',');
  const rows: Row[] = [];
  const folder = mkdtempSync(join(tmpdir(), 'flow-compress-speed-'));
  try {
    for (const item of FIGURE_MODELS) {
      const model = existing(assets, item.model);
      if (model === undefined || (only && !only.includes(item.name))) continue;
      note(item.name);
      const runs = await timeModel(model, cifar, python, folder);
      const theirs = median(runs.theirs);
      const cell = (list: readonly number[]): string => `${median(list).toFixed(2)} s`;
      const ratio = (list: readonly number[], limit: number): string => {
        const value = median(list.map((seconds, i) => seconds / runs.theirs[i]));
        return `${value.toFixed(2)}x${value > limit ? ' (NO)' : ''}`;
      };
      rows.push([
        item.name,
        `${theirs.toFixed(2)} s`,
        ...[cell(runs.plain), ratio(runs.plain, TARGETS.plain), cell(runs.checked)],
        ...[cell(runs.faaq), ratio(runs.faaq, TARGETS.faaq)],
      ]);
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
  const text = markdownTable(
    [
      ...['model', 'onnxruntime static, min-max', '8 bits here', `ratio, to reach ${TARGETS.plain}x`, 'checked'],
      ...['FAAQ, 4 bits', `ratio, to reach ${TARGETS.faaq}x`],
    ],
    rows,
  );
  console.log(text);
  if (flags.write !== undefined) {
    writeFileSync(flags.write, replaceBlock(readFileSync(flags.write, 'utf8'), 'speed', text));
  }
}

await main();
