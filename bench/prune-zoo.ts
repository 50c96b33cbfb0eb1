/**
 * Runs `prune` on real models and on networks of the zoo with random weights, each as its own process, and prints one row per
 * model and way: what came out, or the refusal. A crash, a hang, an unexpected exit code, or a network of the zoo that is
 * refused is a failure.
 * Usage: npm run build && node --import tsx bench/prune-zoo.ts [--assets FOLDER] [--cifar FOLDER] [--only name,name]
 *   [--reduce 0.3] [--steps 0,10] [--method idap] [--keep FOLDER] [--minutes 10] [--cli dist/cli/main.js]
 * Exit code 1 when one failed.
 */
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { saveModel } from '../src/node/model-file.js';
import type { PruneReport, Report } from '../src/report/report.js';
import { stirred } from '../src/testing/random-cuts.js';
import { smallNetwork, zooFeeds } from '../src/testing/zoo-models.js';
import { CLI, measuredText, runCommand } from './lib/command.js';
import { existing, findPlaces, note, PLACE_FLAGS } from './lib/places.js';
import { markdownTable, type Row } from './lib/table.js';
import { ZOO, type DataFlags } from './lib/zoo-cases.js';
import { saveArrays } from './lib/zoo-data.js';

const { values: flags } = parseArgs({
  options: {
    assets: PLACE_FLAGS.assets,
    cifar: PLACE_FLAGS.cifar,
    only: { type: 'string' },
    reduce: { type: 'string', default: '0.3' },
    steps: { type: 'string', default: '0,10' },
    method: { type: 'string', default: 'idap' },
    keep: { type: 'string' },
    minutes: { type: 'string', default: '10' },
    cli: { type: 'string', default: CLI },
  },
});

interface Subject {
  readonly name: string;
  /** A network without training must be pruned; a real model may be refused by name. */
  readonly made: boolean;
  /** Why it cannot be tried, or what is pruned with which data. */
  readonly open: (folder: string) => Promise<string | Opened>;
}

interface Opened {
  readonly model: string;
  readonly data: DataFlags;
  /** For calibration. */
  readonly samples: number;
}

/** Networks in small sizes, by the factor on their width. */
const NETWORKS: Readonly<Record<string, number>> = {
  densenet121: 0.25,
  'inception-v3': 0.5,
  'mobilenet-v3-small': 0.5,
  'mobilenet-v3-large': 0.5,
  'efficientnet-b0': 0.5,
  'shufflenet-v2': 0.5,
  'convnext-t': 0.25,
  'swin-t': 0.34,
  unet: 0.125,
  'gpt-mini': 0.5,
};
/** Samples of a made-up data set; training, validation and test in it. */
const SAMPLES = 160;

function networks(): Subject[] {
  return Object.entries(NETWORKS).map(([name, width]) => ({
    ...{ name, made: true },
    async open(folder) {
      const model = stirred(smallNetwork(name, { width }), 1);
      const path = join(folder, `${name}.zoo.onnx`);
      await saveModel(model, path, { force: true });
      return { model: path, data: ['--data', saveArrays(folder, name, { ...zooFeeds(model, SAMPLES) })], samples: 64 };
    },
  }));
}

function realModels(assets: string, cifar: ReturnType<typeof findPlaces>['cifar']): Subject[] {
  return ZOO.map((item) => ({
    ...{ name: item.name, made: false },
    async open(folder) {
      const model = existing(assets, item.model);
      if (model === undefined) return `${item.model} is not there`;
      const data = await item.data({ assets, cifar, folder });
      return data === undefined ? 'its data is not there' : { model, data, samples: item.samples };
    },
  }));
}

async function rowsOf({ name, made, open }: Subject, folder: string): Promise<Row[]> {
  const opened = await open(folder);
  if (typeof opened === 'string') return [[name, '', 'skipped', '', opened]];
  const { model, data, samples } = opened;
  const rows: Row[] = [];
  for (const steps of flags.steps.split(',')) {
    const output = join(folder, `${name}.${steps}.onnx`);
    const batch = String(Math.min(32, Math.max(1, samples / 8)));
    const { outcome, seconds } = await runCommand(
      flags.cli,
      [
        ...['prune', model, '-o', output, '--force', ...data, '--method', flags.method, '--reduce', flags.reduce],
        ...['--steps', steps, '--batch-size', batch, '--calib-samples', String(samples), '--probe-samples', '16'],
        ...['--latency-runs', '5', '--threads', '2'],
      ],
      Number(flags.minutes),
    );
    const kind = made && outcome.kind === 'refused' ? 'failed' : outcome.kind;
    const row = [
      name,
      steps,
      kind,
      seconds.toFixed(1),
      outcome.kind === 'done' ? told(outcome.report) : outcome.message,
    ];
    note(row.join(' | '));
    for (const warning of outcome.kind === 'done' ? (outcome.report.warnings ?? []) : [])
      note(`    warning: ${warning}`);
    rows.push(row);
  }
  return rows;
}

function told(report: Report): string {
  if (report.command !== 'prune') throw new Error(`A report of ${report.command}.`);
  const { before, after, original } = report;
  const macs = before.macs === undefined ? 'MACs unknown' : `MACs ${share(before.macs, after.macs)}`;
  return [
    `${macs}, parameters ${share(before.params, after.params)}`,
    `VAL ${[original, ...qualitiesOf(report)].map(({ divergence }) => divergence.toPrecision(2)).join(' -> ')} (${report.measure})`,
    measuredText(before, after),
    ...(report.verification?.checks ?? []).map(({ detail }) => detail ?? ''),
  ].join('; ');
}

function qualitiesOf({ steps, recovery }: PruneReport): { divergence: number }[] {
  const last = steps.findLast(({ accepted }) => accepted);
  return [...(last ? [last.cut, last.refitted, last.normalized, last.aligned] : []), recovery?.after].filter(
    (one) => one !== undefined,
  );
}

function share(before: number | undefined, after: number | undefined): string {
  return before === undefined || after === undefined ? '?' : `-${(100 * (1 - after / before)).toFixed(0)} %`;
}

async function main(): Promise<void> {
  const { assets, cifar } = findPlaces(flags);
  const only = flags.only?.split(',');
  const folder = flags.keep ?? mkdtempSync(join(tmpdir(), 'flow-compress-prune-zoo-'));
  mkdirSync(folder, { recursive: true });
  const rows: Row[] = [];
  try {
    for (const subject of [...networks(), ...(assets === undefined ? [] : realModels(assets, cifar))]) {
      if (!only || only.includes(subject.name)) rows.push(...(await rowsOf(subject, folder)));
    }
  } finally {
    if (flags.keep === undefined) rmSync(folder, { recursive: true, force: true });
  }
  console.log(markdownTable(['model', 'steps', 'result', 'seconds', 'what came out'], rows, [0, 2, 4]));
  if (rows.some((row) => row[2] === 'failed')) process.exitCode = 1;
}

await main();
