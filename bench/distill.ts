/**
 * Distils a teacher into a student by several methods with the same data, steps and seeds, and compares what comes of it on TEST.
 * Usage: node --import tsx bench/distill.ts --teacher MODEL --student MODEL|ARCH --config FILE --out FOLDER
 *   [--methods plain,kd,features,fad] [--variants "fad --select selective;fad --flow integrated"] [--seeds 0,1,2]
 *   [--epochs N | --steps N] [--augment crop,flip] [--lr RATE] [--rounds N] [--width FACTOR] [--render]
 *
 * FILE is a configuration file of the command line: data, test and preprocessing. Variants are methods with further options. The
 * report of every run is kept in FOLDER as JSON; what is there is not run again. `--render` only prints the table. Figures of several
 * seeds are mean and spread (largest minus smallest).
 */
import { basename } from 'node:path';
import { parseArgs } from 'node:util';
import type { DistillReport } from '../src/report/report.js';
import { note } from './lib/places.js';
import { markdownTable, median } from './lib/table.js';
import { list, percent, reportsOf, spread, type Trial } from './lib/trials.js';

const { values: flags } = parseArgs({
  options: {
    teacher: { type: 'string' },
    student: { type: 'string' },
    config: { type: 'string' },
    out: { type: 'string' },
    methods: { type: 'string', default: 'plain,kd,features,attention,relations,crd-lite,fad' },
    variants: { type: 'string', default: '' },
    seeds: { type: 'string', default: '0' },
    epochs: { type: 'string' },
    steps: { type: 'string' },
    augment: { type: 'string' },
    lr: { type: 'string' },
    rounds: { type: 'string' },
    width: { type: 'string' },
    render: { type: 'boolean', default: false },
  },
});

interface DistillTrial extends Trial {
  readonly method: string;
}

const PASSED_ON = ['epochs', 'steps', 'augment', 'lr', 'rounds', 'width'] as const;

function trials(teacher: string, student: string): DistillTrial[] {
  const variants = flags.variants.split(';').filter((text) => text.trim() !== '');
  return [...list(flags.methods), ...variants].flatMap((text) => {
    const [name, ...options] = text.trim().split(/\s+/) as [string, ...string[]];
    const method = [name, ...options].join(' ');
    return list(flags.seeds).map((seed) => ({
      ...{ name: `${method.replace(/[^a-z0-9]+/gi, '-')}-${seed}`, method },
      args: [
        ...['distill', '--teacher', teacher, '--student', student, '--method', name, ...options, '--seed', seed],
        ...(flags.config === undefined ? [] : ['--config', flags.config]),
        ...PASSED_ON.flatMap((flag) => (flags[flag] === undefined ? [] : [`--${flag}`, flags[flag]])),
      ],
    }));
  });
}

function table(found: readonly { trial: DistillTrial; report: DistillReport }[]): string {
  const groups = new Map<string, typeof found>();
  for (const one of found) groups.set(one.trial.method, [...(groups.get(one.trial.method) ?? []), one]);
  const rows = [...groups].map(([method, runs]) => {
    const reports = runs.map(({ report }) => report);
    const perStep = reports.map(({ training }) => (1000 * training.seconds) / Math.max(training.steps, 1));
    const first = reports[0]!;
    return [
      ...[basename(first.teacher, '.onnx'), basename(first.student, '.onnx'), method],
      spread(reports.map(({ before }) => before.metric?.value)),
      spread(reports.map(({ after }) => after.metric?.value)),
      spread(reports.map(({ fidelity }) => fidelity?.agreement)),
      median(reports.map(({ fidelity }) => fidelity?.divergence ?? NaN)).toFixed(3),
      median(reports.map(({ fidelity }) => fidelity?.cka ?? NaN)).toFixed(3),
      String(median(reports.map(({ training }) => training.steps))),
      median(perStep).toFixed(1),
      percent(first.after.params! / first.before.params!),
      String(reports.length),
    ];
  });
  return markdownTable(
    [
      ...['teacher', 'student', 'method', 'teacher TEST', 'student TEST', 'agreement', 'KL', 'CKA', 'updates'],
      ...['ms per update', 'parameters left', 'seeds'],
    ],
    rows,
    [0, 1, 2],
  );
}

if (flags.out === undefined || flags.teacher === undefined || flags.student === undefined) {
  note('Give --teacher, --student, --config and --out; the head of this file says how.');
  process.exitCode = 2;
} else {
  const reports = await reportsOf(trials(flags.teacher, flags.student), flags.out, flags.render);
  const found = reports.flatMap(({ trial, report }) => (report.command === 'distill' ? [{ trial, report }] : []));
  process.stdout.write(`${table(found)}\n`);
}
