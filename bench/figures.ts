/**
 * Accuracy and bytes on the CIFAR-10 test (all 10,000 images, 512 calibration images): every method here beside the peers'
 * files and the figures to reach. All files are measured by the same code, in the same engine.
 * Usage: node --import tsx bench/figures.ts --assets FOLDER --cifar FOLDER [--peers-out FOLDER] [--only resnet20,...]
 *   [--ours faaq,uniform,...] [--run-peers --peers ENVIRONMENT] [--results FILE] [--render] [--markdown] [--write README.md]
 * Results are kept in --results (default bench/out/figures.json) model by model; --render only prints what is kept there.
 * Exit code 1 when a figure to reach is missed.
 */
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { z } from 'zod';
import { evaluateModels } from '../src/commands/evaluate.js';
import { quantizeModel, type QuantizeInput } from '../src/commands/quantize/quantize.js';
import { messageOf } from '../src/errors.js';
import type { Measurement } from '../src/report/report.js';
import { FIGURE_MODELS, WIDTHS, type FigureModel, type Target } from './lib/figure-targets.js';
import { runPeer } from './lib/peers.js';
import { CIFAR_PREPROCESS, existing, findPlaces, note, PLACE_FLAGS, type Places } from './lib/places.js';
import { markdownTable, replaceBlock, type Row } from './lib/table.js';

const { values: flags } = parseArgs({
  options: {
    ...PLACE_FLAGS,
    only: { type: 'string' },
    'run-peers': { type: 'boolean', default: false },
    results: { type: 'string', default: fileURLToPath(new URL('out/figures.json', import.meta.url)) },
    ours: { type: 'string', default: 'faaq,uniform,static-int8,dynamic-int8' },
    render: { type: 'boolean', default: false },
    markdown: { type: 'boolean', default: false },
    write: { type: 'string' },
  },
});

const figureSchema = z.object({
  group: z.enum(['fp32', 'ours', 'peer']),
  label: z.string(),
  /** Average width; absent for fp32 and peers. */
  bits: z.number().optional(),
  /** Whether this is the file that the targets are about. */
  judged: z.boolean().optional(),
  top1: z.number(),
  bytes: z.number(),
  samples: z.number(),
});
type Figure = z.infer<typeof figureSchema>;
const resultsSchema = z.record(z.string(), z.array(figureSchema));

const CALIBRATION = 512;

function figureOf({ metric, bytes }: Measurement, rest: Omit<Figure, 'top1' | 'bytes' | 'samples'>): Figure[] {
  return metric?.name === 'top1' ? [{ ...rest, top1: metric.value, samples: metric.samples, bytes }] : [];
}

async function ours(model: string, data: { train: string; test: string }, folder: string): Promise<Figure[]> {
  const figures: Figure[] = [];
  const run = async (label: string, options: Partial<QuantizeInput>, judged = false): Promise<void> => {
    const output = join(folder, 'ours.onnx');
    note(`  ${label}`);
    const { report } = await quantizeModel(model, {
      ...{ data: data.train, test: data.test, output, force: true, calibSamples: CALIBRATION, latencyRuns: 5 },
      ...{ preprocess: CIFAR_PREPROCESS, ...options },
    });
    const rest = { group: 'ours' as const, label: `${label}, ${String(report.settings?.execution)}` };
    if (figures.length === 0) figures.push(...figureOf(report.before, { group: 'fp32', label: 'fp32' }));
    figures.push(...figureOf(report.after, { ...rest, bits: options.bits ?? 8, ...(judged && { judged }) }));
    for (const point of report.sweep ?? []) {
      figures.push(...figureOf(point, { ...rest, bits: point.bits, ...(judged && { judged }) }));
    }
    for (const figure of figures.slice(-1 - (report.sweep?.length ?? 0))) note(`    ${figureText(figure)}`);
  };
  const [main, ...others] = WIDTHS;
  const methods = flags.ours.split(',');
  if (methods.includes('faaq')) {
    await run('faaq', { bits: main, sweep: others, execution: 'int8' }, true);
    await run('faaq', { bits: 4 });
  }
  if (methods.includes('uniform')) await run('uniform', { method: 'uniform', bits: 4, sweep: [3], execution: 'int8' });
  if (methods.includes('static-int8')) await run('static-int8', { method: 'static-int8', execution: 'int8' });
  if (methods.includes('dynamic-int8')) await run('dynamic-int8', { method: 'dynamic-int8' });
  return figures;
}

const figureText = ({ label, bits, top1, bytes }: Figure): string =>
  `${label} ${bits === undefined ? '' : `${bits} bits `}${(100 * top1).toFixed(2)} % ${bytes.toLocaleString('en-US')} B`;

async function peers(
  item: FigureModel,
  model: string,
  data: { train: string; test: string },
  { python, peersOut }: Places,
  folder: string,
): Promise<Figure[]> {
  const found: { label: string; path: string }[] = [];
  for (const { label, ...job } of item.peers) {
    const name = `${item.name}.${job.method}.onnx`;
    if (flags['run-peers'] && python !== undefined) {
      const output = join(folder, name);
      note(`  ${label}`);
      try {
        runPeer(python, { ...job, ...CIFAR_PREPROCESS, model, output, data: data.train, samples: CALIBRATION });
        found.push({ label, path: output });
      } catch (error) {
        note(`  skipped: ${messageOf(error)}`);
      }
      continue;
    }
    const path = existing(peersOut, name);
    if (path === undefined) note(`  ${label}: there is no ${name}, skipped.`);
    else found.push({ label, path });
  }
  if (found.length === 0) return [];
  const { report } = await evaluateModels([model, ...found.map(({ path }) => path)], {
    ...{ data: data.train, test: data.test, preprocess: CIFAR_PREPROCESS, latencyRuns: 5, batchSizes: [1] },
  });
  return found.flatMap(({ label }, i) => figureOf(report.files[i + 1], { group: 'peer', label }));
}

const KINDS: readonly Figure['group'][] = ['fp32', 'peer', 'ours'];

function render(results: z.infer<typeof resultsSchema>): { text: string; missed: number } {
  let missed = 0;
  const parts = FIGURE_MODELS.flatMap(({ name, targets }) => {
    const figures = results[name];
    if (!figures) return [];
    const base = figures.find((figure) => figure.group === 'fp32');
    // The free choice of the execution may come out where int8 was asked for.
    const sameFile = (a: Figure, b: Figure): boolean =>
      a.label === b.label && a.bits === b.bits && a.bytes === b.bytes && a.top1 === b.top1;
    const distinct = figures.filter((figure, i) => figures.findIndex((other) => sameFile(figure, other)) === i);
    const rows = KINDS.flatMap((kind) =>
      distinct
        .filter((figure) => figure.group === kind)
        .map((figure): Row => {
          const target = figure.judged ? targets[String(figure.bits)] : undefined;
          const met = target && figure.top1 >= target.top1 && figure.bytes <= target.bytes;
          if (met === false) missed++;
          return [
            kind === 'ours' ? `flow-compress ${figure.label}` : figure.label,
            kind === 'ours' ? String(figure.bits) : '',
            `${(100 * figure.top1).toFixed(2)} %`,
            figure.bytes.toLocaleString('en-US'),
            base ? `${(base.bytes / figure.bytes).toFixed(1)}x` : '',
            target ? targetText(target, met === true) : '',
          ];
        }),
    );
    const table = markdownTable(['file', 'bits', 'top-1', 'bytes', 'smaller', 'to reach'], rows, [0]);
    return [`**${name}**, CIFAR-10 test, ${(base?.samples ?? 0).toLocaleString('en-US')} images\n\n${table}`];
  });
  return { text: parts.join('\n\n'), missed };
}

function targetText({ top1, bytes }: Target, met: boolean): string {
  return `>= ${(100 * top1).toFixed(2)} %, <= ${bytes.toLocaleString('en-US')}: ${met ? 'yes' : 'NO'}`;
}

async function measure(places: Places): Promise<void> {
  const { assets, cifar } = places;
  if (assets === undefined || cifar === undefined) return;
  const only = flags.only?.split(',');
  const folder = mkdtempSync(join(tmpdir(), 'flow-compress-figures-'));
  try {
    for (const item of FIGURE_MODELS) {
      const model = existing(assets, item.model);
      if (model === undefined || (only && !only.includes(item.name))) continue;
      note(item.name);
      const figures = [...(await ours(model, cifar, folder)), ...(await peers(item, model, cifar, places, folder))];
      const results = { ...readResults(), [item.name]: figures };
      mkdirSync(dirname(flags.results), { recursive: true });
      writeFileSync(flags.results, JSON.stringify(results, null, 1));
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function readResults(): z.infer<typeof resultsSchema> {
  return existsSync(flags.results) ? resultsSchema.parse(JSON.parse(readFileSync(flags.results, 'utf8'))) : {};
}

async function main(): Promise<void> {
  if (!flags.render) await measure(findPlaces(flags));
  const { text, missed } = render(readResults());
  console.log(flags.markdown ? `<!-- figures:begin -->\n\n${text}\n\n<!-- figures:end -->` : text);
  if (flags.write !== undefined) {
    writeFileSync(flags.write, replaceBlock(readFileSync(flags.write, 'utf8'), 'figures', text));
  }
  if (missed > 0) {
    note(`${missed} figures to reach are missed.`);
    process.exitCode = 1;
  }
}

await main();
