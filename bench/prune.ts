/**
 * Prunes models by several methods under the same goals, data and learning, and compares what comes of it on TEST.
 * Usage: node --import tsx bench/prune.ts MODEL... --config FILE --out FOLDER [--methods idap,l1] [--reduce 0.5,0.7]
 *   [--seeds 0,1,2] [--steps N | --max-time SECONDS] [--stages joint,filters] [--augment crop,flip] [--render]
 *
 * FILE is a configuration file of the command line: data, test and preprocessing. The report of every run is kept in FOLDER as
 * JSON; what is there is not run again, so an interrupted comparison goes on. `--render` only prints the table. Figures of several
 * seeds are mean and spread (largest minus smallest).
 */
import { basename } from 'node:path';
import { parseArgs } from 'node:util';
import type { PruneReport } from '../src/report/report.js';
import { note } from './lib/places.js';
import { markdownTable, median } from './lib/table.js';
import { list, percent, reportsOf, spread, type Trial } from './lib/trials.js';

const { values: flags, positionals: models } = parseArgs({
  allowPositionals: true,
  options: {
    config: { type: 'string' },
    out: { type: 'string' },
    methods: { type: 'string', default: 'idap,obc,l1,l2,fpgm,group-magnitude,idap-paper,random' },
    reduce: { type: 'string', default: '0.5' },
    seeds: { type: 'string', default: '0' },
    stages: { type: 'string', default: 'joint' },
    steps: { type: 'string' },
    'max-time': { type: 'string' },
    augment: { type: 'string' },
    render: { type: 'boolean', default: false },
  },
});

interface PruneTrial extends Trial {
  readonly model: string;
  readonly method: string;
  readonly stages: string;
  readonly reduce: string;
  readonly seed: string;
}

function trials(): PruneTrial[] {
  const all: PruneTrial[] = [];
  for (const model of models)
    for (const reduce of list(flags.reduce))
      for (const method of list(flags.methods))
        // Only IDAP++ has stages.
        for (const stages of method === 'idap' ? list(flags.stages) : ['joint'])
          for (const seed of list(flags.seeds)) {
            const what = { model, method, stages, reduce, seed };
            all.push({ ...what, name: nameOf(what), args: argsOf(what) });
          }
  return all;
}

const nameOf = ({ model, method, stages, reduce, seed }: Omit<PruneTrial, 'name' | 'args'>): string =>
  `${basename(model, '.onnx')}-${method}${stages === 'joint' ? '' : `-${stages}`}-${reduce}-${seed}`;

function argsOf({ model, method, stages, reduce, seed }: Omit<PruneTrial, 'name' | 'args'>): string[] {
  const budget = ['steps', 'max-time', 'augment'] as const;
  return [
    ...['prune', model, '--best-effort', ...(flags.config === undefined ? [] : ['--config', flags.config])],
    ...['--method', method, '--stages', stages, '--reduce', reduce, '--seed', seed],
    ...budget.flatMap((flag) => (flags[flag] === undefined ? [] : [`--${flag}`, flags[flag]])),
  ];
}

interface Found {
  readonly trial: PruneTrial;
  readonly report: PruneReport;
}

/** Behind the last closed-form fit, before any update by gradient: share of right answers on VAL. */
function beforeLearning({ steps }: PruneReport): number | undefined {
  const last = steps.filter(({ accepted }) => accepted).at(-1);
  return (last?.aligned ?? last?.cut)?.top1;
}

function table(found: readonly Found[]): string {
  const groups = new Map<string, Found[]>();
  for (const one of found) {
    const { model, method, stages, reduce } = one.trial;
    const key = [basename(model, '.onnx'), reduce, stages === 'joint' ? method : `${method} ${stages}`].join('\t');
    groups.set(key, [...(groups.get(key) ?? []), one]);
  }
  const rows = [...groups].map(([key, runs]) => {
    const reports = runs.map(({ report }) => report);
    const last = (report: PruneReport, side: 'before' | 'after') =>
      report[side].latencies?.at(-1) ?? report[side].latency;
    const [model, reduce, method] = key.split('\t') as [string, string, string];
    return [
      ...[model, `-${(100 * Number(reduce)).toFixed(0)} %`, method],
      percent(median(reports.map(({ before, after }) => 1 - after.macs! / before.macs!))),
      spread(reports.map(({ before }) => before.metric?.value)),
      spread(reports.map(beforeLearning)),
      spread(reports.map(({ after }) => after.metric?.value)),
      median(reports.map(({ after }) => after.bytes)).toLocaleString('en-US'),
      percent(median(reports.map((report) => 1 - last(report, 'after')!.medianMs / last(report, 'before')!.medianMs))),
      String(median(reports.map(({ recovery }) => recovery?.steps ?? 0))),
      median(reports.map(({ seconds }) => seconds)).toFixed(0),
      String(reports.length),
    ];
  });
  return markdownTable(
    [
      ...['model', 'goal', 'method', 'MACs gone', 'original', 'VAL, no gradient', 'TEST', 'bytes', 'latency gone'],
      ...['updates', 'seconds', 'seeds'],
    ],
    rows,
    [0, 2],
  );
}

if (flags.out === undefined || models.length === 0) {
  note('Give models, --config and --out; the head of this file says how.');
  process.exitCode = 2;
} else {
  const reports = await reportsOf(trials(), flags.out, flags.render);
  const found = reports.flatMap(({ trial, report }) => (report.command === 'prune' ? [{ trial, report }] : []));
  process.stdout.write(`${table(found)}\n`);
}
