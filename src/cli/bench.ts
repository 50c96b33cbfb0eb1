/** `flow-compress bench quantize|prune|distill|compress`: methods against each other under the same options. */
import { Command } from 'commander';
import type { BenchTrial, ComparedReport } from '../commands/bench.js';
import { FlowCompressError } from '../errors.js';
import type { BenchReport, Report } from '../report/report.js';
import type { CliContext } from './context.js';
import { compressCommand } from './compress.js';
import { distillCommand } from './distill.js';
import { flagName, valueFlag } from './flags.js';
import type { Flag } from './flags.js';
import { pruneCommand } from './prune.js';
import { quantizeCommand } from './quantize.js';
import { defineCommand } from './run-command.js';
import type { CommandDefinition } from './run-command.js';
import { parseText, parseTextList } from './values.js';

const BENCH_FLAGS: readonly Flag[] = [
  valueFlag('--methods <list>', 'methods of the command, with commas between them', parseTextList),
  valueFlag('--seeds <list>', 'a run for each', parseTextList, '0'),
  valueFlag(
    '--vary <options>',
    'values to go through, a run for each combination: "reduce=0.5,0.7 score=obs,l1"',
    parseText,
  ),
  valueFlag('--folder <path>', 'where models and reports of the runs go; what is there is not run again', parseText),
];

/** Set for every run. */
const OWN = ['method', 'seed', 'output', 'runDir', 'resume'];

export function benchCommand(context: CliContext, onExitCode: (code: number) => void): Command {
  const group = new Command('bench')
    .summary('methods of a command side by side')
    .description('Runs several methods under the same options, goals and seeds, and compares the files on TEST.');
  const add = <T extends ComparedReport>(
    of: BenchReport['of'],
    definition: CommandDefinition<T>,
    example: string,
  ): void => {
    group.addCommand(defineCommand(benchOf(of, definition, example, context), context, onExitCode));
  };
  add(
    'quantize',
    quantizeCommand(context),
    'model.onnx --methods faaq,uniform --vary "bits=3,4,8" --data train.npz --folder runs/q',
  );
  add(
    'prune',
    pruneCommand(context),
    'model.onnx --methods idap,l1,fpgm --vary "reduce=0.5,0.7" --seeds 0,1,2 --steps 300 --data train.npz --folder runs/p',
  );
  add(
    'distill',
    distillCommand(context),
    '--teacher big.onnx --student resnet8 --methods plain,kd,fad --seeds 0,1,2 --epochs 20 --data train.npz --folder runs/d',
  );
  add(
    'compress',
    compressCommand(context),
    'model.onnx --methods flow-compress,sequential,quantize-only --vary "size-ratio=8,16" --steps 1000 --data train.npz --folder runs/c',
  );
  return group;
}

function benchOf<T extends ComparedReport>(
  of: BenchReport['of'],
  definition: CommandDefinition<T>,
  example: string,
  { library }: CliContext,
): CommandDefinition<Extract<Report, { command: 'bench' }>> {
  const groups = definition.groups.map(({ heading, flags }) => ({
    heading,
    flags: flags.filter(({ key }) => !OWN.includes(key)),
  }));
  const known = groups.flatMap(({ flags }) => flags);
  return {
    name: of,
    summary: `methods of ${of} side by side`,
    description: `Runs ${of} by several methods and compares what they wrote. Options of ${of} hold for every run.`,
    ...(definition.argument && { argument: { ...definition.argument, usage: '<model...>' } }),
    groups: [{ heading: 'Comparison:', flags: BENCH_FLAGS }, ...groups],
    examples: [`bench ${of} ${example}`],
    call: (models, values, control) => {
      const { methods, seeds, vary, folder, ...rest } = values;
      if (!isTexts(methods) || typeof folder !== 'string')
        throw new FlowCompressError('bad-input', `--${isTexts(methods) ? 'folder' : 'methods'} is missing.`, {
          hint: `\`flow-compress ${of} --help\` lists the methods; --folder is where the runs are kept.`,
        });
      const sweeps = combinations(typeof vary === 'string' ? vary : '');
      const subjects = models.length > 0 ? models : [String(rest.student ?? '')];
      const numbers = isTexts(seeds) ? seeds.map(seedOf) : [0];
      const trials = subjects.flatMap((model) =>
        sweeps.flatMap((options) =>
          methods.flatMap((method) => numbers.map((seed): BenchTrial => ({ model, method, options, seed }))),
        ),
      );
      return library.benchMethods(
        {
          ...{ of, trials, folder, key: JSON.stringify([rest.teacher, rest]) },
          run: (trial, output, own) => {
            const swept = Object.entries(trial.options).map(([name, raw]) => {
              const flag = known.find(({ key }) => flagName(key) === `--${name}`);
              if (!flag)
                throw new FlowCompressError('bad-input', `--vary names "${name}", which ${of} does not have.`, {
                  hint: `\`flow-compress ${of} --help\` lists the options.`,
                });
              return [flag.key, flag.parse(raw, `${name} in --vary`)];
            });
            const given = { ...rest, ...Object.fromEntries(swept), force: true };
            return definition.call(
              models.length > 0 ? [trial.model] : [],
              { ...given, method: trial.method, seed: trial.seed, output },
              own,
            );
          },
        },
        control,
      );
    },
  };
}

function isTexts(value: unknown): value is string[] {
  return Array.isArray(value) && value.length > 0;
}

function seedOf(text: string): number {
  const seed = Number(text);
  if (Number.isInteger(seed) && seed >= 0) return seed;
  throw new FlowCompressError('bad-input', `--seeds has "${text}", which is no whole number.`, {
    hint: 'For example: 0,1,2',
  });
}

/** "a=1,2 b=3" as [{a: 1, b: 3}, {a: 2, b: 3}]; one empty set for an empty text. */
export function combinations(text: string): Record<string, string>[] {
  return text
    .split(/\s+/)
    .filter((part) => part !== '')
    .reduce<Record<string, string>[]>(
      (sets, part) => {
        const [name, list] = part.split('=');
        if (!name || !list)
          throw new FlowCompressError('bad-input', `--vary has "${part}", which is not name=value,value.`, {
            hint: 'For example: --vary "reduce=0.5,0.7 score=obs,l1"',
          });
        return sets.flatMap((set) => list.split(',').map((value) => ({ ...set, [name.replace(/^--/, '')]: value })));
      },
      [{}],
    );
}
