/**
 * Runs `inspect`, `profile`, `quantize` and `evaluate` on real models of many kinds, each command as its own process, and
 * prints one row per model and command: what came out, or the refusal. A crash, a hang or an unexpected exit code is a failure.
 * Usage: npm run build && node --import tsx bench/zoo.ts --assets FOLDER [--cifar FOLDER] [--only name,name] [--bits 4]
 *   [--method faaq] [--execution auto] [--commands inspect,profile,quantize,evaluate] [--keep FOLDER] [--cli dist/cli/main.js]
 * Exit code 1 when a command failed.
 */
import { spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { z } from 'zod';
import { formatBytes, formatMetric } from '../src/report/format.js';
import { parseReport, type Measurement, type Report } from '../src/report/report.js';
import { endSentence } from '../src/report/training.js';
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
    cli: { type: 'string', default: fileURLToPath(new URL('../dist/cli/main.js', import.meta.url)) },
  },
});

const refusalSchema = z.object({
  error: z.object({
    code: z.string(),
    message: z.string(),
    node: z.string().optional(),
    hint: z.string().optional(),
    exitCode: z.number(),
  }),
});

type Outcome =
  | { readonly kind: 'done'; readonly report: Report }
  | { readonly kind: 'refused'; readonly message: string }
  | { readonly kind: 'failed'; readonly message: string };

interface Ran {
  readonly outcome: Outcome;
  readonly seconds: number;
}

async function run(args: readonly string[]): Promise<Ran> {
  const start = performance.now();
  const limit = Number(flags.minutes) * 60_000;
  const child = spawn(process.execPath, [flags.cli, ...args, '--json', '--quiet'], {
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: limit,
    killSignal: 'SIGKILL',
  });
  let stdout = '';
  let stderr = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text));
  child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text));
  const [code, signal] = await new Promise<[number | null, NodeJS.Signals | null]>((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (...end) => resolve(end));
  });
  const seconds = (performance.now() - start) / 1000;
  return { outcome: outcomeOf(code, signal, stdout, stderr), seconds };
}

function outcomeOf(code: number | null, signal: string | null, stdout: string, stderr: string): Outcome {
  const failed = (why: string): Outcome => ({ kind: 'failed', message: `${why} ${stderr.trim()}`.trim() });
  if (signal !== null) return failed(`Killed by ${signal}.`);
  let value: unknown;
  try {
    value = JSON.parse(stdout);
  } catch {
    return failed(`Exit code ${code}, and stdout is not JSON.`);
  }
  if (code === 0) return { kind: 'done', report: parseReport(value) };
  const refusal = refusalSchema.safeParse(value);
  if (!refusal.success) return failed(`Exit code ${code} without an error object.`);
  const { message, node, hint } = refusal.data.error;
  const text = `${message}${node === undefined ? '' : ` [${node}]`}${hint === undefined ? '' : ` Hint: ${hint}`}`;
  const clear = (code === 2 || code === 3) && hint !== undefined;
  return { kind: clear ? 'refused' : 'failed', message: clear ? text : `Exit code ${code}: ${text}` };
}

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

function measuredText(before: Measurement, after: Measurement): string {
  const figures = (of: Measurement): string =>
    [...(of.metric ? [of.metric] : []), ...(of.metrics ?? [])].map((m) => `${m.name} ${formatMetric(m)}`).join(', ');
  const times = (after.latencies ?? (after.latency ? [after.latency] : [])).flatMap((own) => {
    const base = (before.latencies ?? (before.latency ? [before.latency] : [])).find((l) => l.batch === own.batch);
    return base ? [`${(own.medianMs / base.medianMs).toFixed(2)}x@${own.batch}`] : [];
  });
  return [
    `${formatBytes(before.bytes)} -> ${formatBytes(after.bytes)}`,
    ...(before.metric ? [figures(before)] : []),
    `-> ${figures(after)}`,
    `time ${times.join(' ')}`,
  ].join(' ');
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
    const { outcome, seconds } = await run(commands[command]);
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
