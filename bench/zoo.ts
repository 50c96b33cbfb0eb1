/**
 * Runs `inspect`, `profile`, `quantize` and `evaluate` on real models of many kinds, each command as its own process, and
 * prints one row per model and command: what came out, or the refusal. A crash, a hang or an unexpected exit code is a failure.
 * Usage: npm run build && node --import tsx bench/zoo.ts --assets FOLDER [--cifar FOLDER] [--only name,name] [--bits 4]
 *   [--method faaq] [--execution auto] [--commands inspect,profile,quantize,evaluate] [--keep FOLDER] [--cli dist/cli/main.js]
 * Exit code 1 when a command failed.
 */
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import type { Report } from '../src/report/report.js';
import { endSentence } from '../src/report/training.js';
import { CLI, measuredText, runCommand } from './lib/command.js';
import { existing, findPlaces, note, PLACE_FLAGS } from './lib/places.js';
import { markdownTable, type Row } from './lib/table.js';
import { ZOO, type ZooCase } from './lib/zoo-cases.js';

const COMMANDS = ['inspect', 'profile', 'quantize', 'evaluate'] as const;
type CommandName = (typeof COMMANDS)[number];

const { values: flags } = parseArgs({
  options: {
    ...PLACE_FLAGS,
    only: { type: 'string' },
    bits: { type: 'string', default: '4' },
    method: { type: 'string', default: 'faaq' },
    execution: { type: 'string', default: 'auto' },
    commands: { type: 'string', default: COMMANDS.join(',') },
    keep: { type: 'string' },
    minutes: { type: 'string', default: '10' },
    cli: { type: 'string', default: CLI },
  },
});

function describe(report: Report): string {
  switch (report.command) {
    case 'inspect':
      return `${report.model.rows.length} layers, ${report.model.unsupported?.length ?? 0} nodes left alone`;
    case 'profile': {
      const tau = report.sensitivityCheck?.kendallTau;
      return `${report.layers.length} layers${tau === undefined ? '' : `, Kendall tau ${tau.toFixed(2)}`}`;
    }
    case 'quantize': {
      const int8 = report.layers.filter((layer) => layer.execution === 'int8').length;
      const checks = (report.verification?.checks ?? []).filter((check) => !check.passed).map((check) => check.name);
      return [
        measuredText(report.before, report.after),
        `${String(report.settings?.execution)} (${int8} of ${report.layers.length} layers int8)`,
        `${(report.budget?.achieved ?? 0).toFixed(2)} bits`,
        ...checks.map((name) => `FAILED CHECK: ${name}`),
      ].join('; ');
    }
    case 'evaluate':
      return report.files.length > 1 ? measuredText(report.files[0], report.files[1]) : 'one file';
    case 'prune':
    case 'compress':
      return measuredText(report.before, report.after);
    case 'bench':
      return `${report.rows.length} rows`;
    case 'train':
    case 'distill':
      return endSentence(report);
  }
}

type RunPlaces = Parameters<ZooCase['data']>[0];

async function runCase(item: ZooCase, places: RunPlaces, wanted: readonly string[]): Promise<Row[]> {
  const { assets, folder } = places;
  const model = existing(assets, item.model);
  if (model === undefined) return [[item.name, '', 'skipped', '', `${item.model} is not there`]];
  const data = await item.data(places);
  if (data === undefined) return [[item.name, '', 'skipped', '', 'its data is not there']];
  const output = join(folder, `${item.name}.${flags.bits}.onnx`);
  const common = [...data, '--calib-samples', String(item.samples), '--threads', '2'];
  const batch = ['--batch-size', String(Math.min(32, Math.max(1, item.samples / 8)))];
  const commands: Record<CommandName, readonly string[]> = {
    inspect: ['inspect', model],
    profile: ['profile', model, ...common, ...batch],
    quantize: [
      ...['quantize', model, '-o', output, '--force', '--bits', flags.bits, '--method', flags.method],
      ...['--execution', flags.execution, ...common, ...batch],
    ],
    evaluate: ['evaluate', model, output, ...common, ...batch, '--latency-runs', '10'],
  };
  const rows: Row[] = [];
  for (const command of COMMANDS) {
    if (!wanted.includes(command)) continue;
    const { outcome, seconds } = await runCommand(flags.cli, commands[command], Number(flags.minutes));
    const text = outcome.kind === 'done' ? describe(outcome.report) : outcome.message;
    const row = [item.name, command, outcome.kind, seconds.toFixed(1), text];
    note(row.join(' | '));
    const warnings = outcome.kind === 'done' ? (outcome.report.warnings ?? []) : [];
    for (const warning of warnings) note(`    warning: ${warning}`);
    rows.push(row);
    if (command === 'quantize' && outcome.kind !== 'done') break;
  }
  return rows;
}

async function main(): Promise<void> {
  const { assets, cifar } = findPlaces(flags);
  if (assets === undefined) {
    process.exitCode = 2;
    return;
  }
  const only = flags.only?.split(',');
  const folder = flags.keep ?? mkdtempSync(join(tmpdir(), 'flow-compress-zoo-'));
  mkdirSync(folder, { recursive: true });
  const rows: Row[] = [];
  try {
    for (const item of ZOO) {
      if (only && !only.includes(item.name)) continue;
      rows.push(...(await runCase(item, { assets, cifar, folder }, flags.commands.split(','))));
    }
  } finally {
    if (flags.keep === undefined) rmSync(folder, { recursive: true, force: true });
  }
  console.log(markdownTable(['model', 'command', 'result', 'seconds', 'what came out'], rows, [0, 1, 2, 4]));
  if (rows.some((row) => row[2] === 'failed')) process.exitCode = 1;
}

await main();
