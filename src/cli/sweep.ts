/** `flow-compress sweep` and `flow-compress worker`: experiments as a file, worked off by as many processes as help. */
import { readFile } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import { Command } from 'commander';
import { z } from 'zod';
import { parseOptions } from '../commands/parse-options.js';
import type { PlannedTrials, WorkerReport } from '../commands/sweep.js';
import { FlowCompressError, messageOf } from '../errors.js';
import { expandSweep, freeOptions, parseSweepFile } from '../experiments/sweep-file.js';
import type { SweepPhase } from '../experiments/sweep-file.js';
import { SEED } from '../experiments/trial.js';
import type { WorkerEvent } from '../experiments/worker.js';
import { formatSeconds, printable } from '../report/format.js';
import type { BenchReport } from '../report/report.js';
import { collectFlags } from './config.js';
import type { CliContext } from './context.js';
import { EXIT } from './exit.js';
import { addFlags, flagName, switchFlag, valueFlag } from './flags.js';
import type { Flag } from './flags.js';
import type { CommandDefinition } from './run-command.js';
import { knownOptions, planTrials } from './sweep-plan.js';
import { combinedValues, parseDuration, parseInteger, parseText } from './values.js';

/** How trials are worked off, of every command that does. */
export const WORK_FLAGS: readonly Flag[] = [
  valueFlag('--workers <n>', 'trials at a time in this process', parseInteger, 1),
  valueFlag('--queue <url>', 'redis://host:port instead of the run directory as the queue', parseText),
];

export const workSchema = z.object({
  workers: z.number().int().min(0, 'must be 0 (only plan) or more').max(256).default(1),
  queue: z.string().optional(),
});

/** What only those have that plan. */
export const PLAN_FLAGS: readonly Flag[] = [
  ...WORK_FLAGS,
  valueFlag('--lease <time>', 'silence after which a worker counts as lost', parseDuration, '60s'),
  switchFlag('--retry-failed', 'run trials that failed once more'),
];

export const planSchema = workSchema.extend({
  lease: z.number().positive().optional(),
  retryFailed: z.boolean().default(false),
});

const SWEEP_FLAGS: readonly Flag[] = [
  valueFlag('--run-dir <folder>', 'where the sweep is kept: what is there is not run again', parseText),
  ...PLAN_FLAGS,
  valueFlag('--set <options>', 'other values than those of the file: "steps=200 seed=0,1"', parseText),
  switchFlag('--status', 'only say how far it is'),
];

const sweepSchema = planSchema.extend({
  runDir: z.string().min(1),
  set: z.string().default(''),
  status: z.boolean().default(false),
});

export function sweepCommand(context: CliContext): CommandDefinition<BenchReport> {
  return {
    name: 'sweep',
    summary: 'an experiment from a file: models, methods, options and seeds, each combination once',
    description: [
      'Plans the trials of a YAML file in a run directory, works them off, and shows what came of them, with means over the seeds.',
      'Any number of `flow-compress worker DIR` may help, on this machine and on others that share the folder. The same command',
      'goes on after an interrupt; without a file it takes the plan that is in the folder.',
    ].join('\n'),
    argument: {
      usage: '[file]',
      help: 'YAML file with command, defaults, sweep, overrides and exclude, or with phases of these',
    },
    groups: [{ heading: 'Sweep:', flags: SWEEP_FLAGS }],
    examples: [
      'sweep experiment.yaml --run-dir runs/1 --workers 2 --report result.html',
      'sweep experiment.yaml --run-dir runs/1 --workers 0   # plan only, for a batch system',
      'sweep --run-dir runs/1 --status',
    ],
    call: async ([file], values, control) => {
      const { set, ...options } = parseOptions(sweepSchema, values, flagName);
      const { runDir: folder, workers, status, ...rest } = options;
      const plan = file === undefined ? undefined : await planOf(file, set, context);
      if (file === undefined && set !== '')
        throw new FlowCompressError('bad-input', '--set needs the file whose values it changes.');
      return context.library.runSweep(
        { ...rest, folder, workers, status: status || workers === 0, version: context.version, ...(plan && { plan }) },
        control,
      );
    },
  };
}

async function planOf(path: string, set: string, context: CliContext): Promise<PlannedTrials> {
  const text = await readFile(path, 'utf8').catch((error: unknown) => {
    throw new FlowCompressError('io', `${path} cannot be read: ${messageOf(error)}`, {
      node: path,
      hint: 'Give the YAML file of a sweep.',
      cause: error,
    });
  });
  const known = knownOptions(context);
  const phases = withSet(parseSweepFile(text, path, known), set, known).map(({ name, command, from, ...rest }) => ({
    ...{ name, command, from, descriptions: expandSweep({ name, command, from, ...rest }, path) },
  }));
  return planTrials(phases, { base: dirname(resolve(path)), source: path }, context);
}

/**
 * One value becomes a default, several take the place of the list; an override of the file still wins. It holds for every phase that
 * may have the option, `phase.option` for one of them; seeds that come with models from other phases stay.
 */
function withSet(phases: readonly SweepPhase[], set: string, known: ReturnType<typeof knownOptions>): SweepPhase[] {
  const given = Object.entries(combinedValues(set, '--set'));
  if (given.length === 0) return [...phases];
  const setsFor = (phase: SweepPhase): [string, string[]][] =>
    given.flatMap(([key, values]): [string, string[]][] => {
      const { name = key, of } = /^(?<of>[^.]+)\.(?<name>.+)$/.exec(key)?.groups ?? {};
      if (of !== undefined && phases.some((one) => one.name === of)) return of === phase.name ? [[name, values]] : [];
      const isFor = (one: SweepPhase): boolean =>
        freeOptions(one, known).includes(key) && !(key === SEED && one.from.length > 0);
      return isFor(phase) || !phases.some(isFor) ? [[key, values]] : [];
    });
  const changed = phases.map((phase) => {
    const own = setsFor(phase);
    const names = new Set(own.map(([name]) => name));
    const others = <T>(values: Readonly<Record<string, T>>): [string, T][] =>
      Object.entries(values).filter(([name]) => !names.has(name));
    const single = own.flatMap(([name, values]) => (values.length === 1 ? [[name, values[0]!] as const] : []));
    const defaults = Object.fromEntries([...others(phase.defaults), ...single]);
    const sweep = Object.fromEntries([...others(phase.sweep), ...own.filter(([, values]) => values.length > 1)]);
    const { name, from, ...rest } = phase;
    return [name, { ...rest, ...(from.length > 0 && { from }), defaults, sweep }];
  });
  // Its keys are held against those of the commands like the file's.
  return parseSweepFile(JSON.stringify({ phases: Object.fromEntries(changed) as object }), '--set', known);
}

/** Its exit code goes to `onExitCode` when it ends without throwing. */
export function workerCommand(context: CliContext, onExitCode: (code: number) => void): Command {
  const flags: readonly Flag[] = [
    ...WORK_FLAGS,
    switchFlag('--json', 'print exactly one JSON object on stdout'),
    switchFlag('--quiet', 'no progress on stderr'),
  ];
  const command = new Command('worker')
    .summary('help with a sweep that was planned in a folder')
    .description(
      [
        'Takes trials of the sweep, one after another, until all have their results. May be started any number of times, on this',
        'machine, on others that share the folder, or as a job array: no trial is lost or done twice, and those of a worker that',
        'dies are taken up again.',
      ].join('\n'),
    )
    .argument('<folder>', 'run directory of the sweep');
  addFlags(command, 'Work:', flags);
  command.addHelpText(
    'after',
    [
      '',
      'Examples:',
      '  $ flow-compress worker runs/1',
      '  $ sbatch --array=1-8 --wrap "npx flow-compress worker runs/1"',
    ].join('\n'),
  );
  return command.action(async (folder: string) => {
    const { json, quiet, ...values } = await collectFlags(flags, command.opts());
    const options = parseOptions(
      workSchema.extend({ workers: workSchema.shape.workers.unwrap().min(1).default(1) }),
      values,
      flagName,
    );
    const { library, version, signal, stdout, stderr } = context;
    const onEvent = (event: WorkerEvent): void => {
      const line = quiet === true ? undefined : eventLine(event);
      if (line !== undefined) stderr.write(`${printable(line)}\n`);
    };
    const { report } = await library.helpSweep({ ...options, folder, version, signal, onEvent });
    stdout.write(json === true ? `${JSON.stringify(report, null, 2)}\n` : `${workerLine(report)}\n`);
    onExitCode(EXIT.done);
  });
}

function eventLine(event: WorkerEvent): string {
  switch (event.kind) {
    case 'note':
      return event.text;
    case 'begun':
      return `${event.trial.name}: begun${event.lost > 0 ? ` (a worker was lost with it ${String(event.lost)} times)` : ''}`;
    case 'settled': {
      const took = formatSeconds(Math.round(event.outcome.seconds));
      return `${event.trial.name}: ${'error' in event.outcome ? `failed, ${event.outcome.error.message}` : `done in ${took}`}`;
    }
    case 'unsettled':
      return `${event.trial.name}: ${event.why}`;
  }
}

function workerLine({ trials, workers }: WorkerReport): string {
  const settled = workers.reduce((sum, one) => sum + one.settled, 0);
  return `${String(settled)} trials here; of ${String(trials.planned)} in all ${String(trials.done)} are done and ${String(trials.failed)} failed.`;
}
