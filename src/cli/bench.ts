/** `flow-compress bench quantize|prune|distill|compress|report`: sweeps that are short enough for the command line. */
import { Command } from 'commander';
import { z } from 'zod';
import { parseOptions } from '../commands/parse-options.js';
import { METHOD, SEED } from '../experiments/trial.js';
import type { OptionValue, SweptCommand, TrialDescription } from '../experiments/trial.js';
import type { BenchReport } from '../report/report.js';
import { benchReportCommand } from './bench-report.js';
import { seedOf } from './bench-seeds.js';
import type { CliContext } from './context.js';
import { flagName, GENERAL_FLAGS, valueFlag } from './flags.js';
import type { Flag } from './flags.js';
import { defineCommand } from './run-command.js';
import type { CommandDefinition, FlagGroup } from './run-command.js';
import { PLAN_FLAGS, planSchema } from './sweep.js';
import { nameOf, planTrials, sweptDefinition } from './sweep-plan.js';
import { combinedValues, parseText, parseTextList } from './values.js';

const BENCH_FLAGS: readonly Flag[] = [
  valueFlag('--methods <list>', 'methods of the command, with commas between them', parseTextList),
  valueFlag('--seeds <list>', 'a run for each', parseTextList, '0'),
  valueFlag(
    '--vary <options>',
    'values to go through, a run for each combination: "reduce=0.5,0.7 score=obs,l1"',
    parseText,
  ),
  valueFlag('--folder <path>', 'run directory of the comparison: what is there is not run again', parseText),
  ...PLAN_FLAGS,
];

const benchSchema = planSchema.extend({
  methods: z.array(z.string()),
  seeds: z.array(z.string()).default(['0']),
  vary: z.string().default(''),
  folder: z.string().min(1),
});

/** Set for every run. */
const OWN = ['method', 'seed'];

export function benchCommand(context: CliContext, onExitCode: (code: number) => void): Command {
  const group = new Command('bench')
    .summary('methods of a command side by side')
    .description(
      'Runs several methods under the same options, goals and seeds, and compares the files on TEST: a sweep without a file. With report: networks trained here, times all kinds of compression.',
    );
  const add = (of: SweptCommand, example: string): void => {
    group.addCommand(defineCommand(benchOf(of, example, context), context, onExitCode));
  };
  add('quantize', 'model.onnx --methods faaq,uniform --vary "bits=3,4,8" --data train.npz --folder runs/q');
  add(
    'prune',
    'model.onnx --methods idap,l1,fpgm --vary "reduce=0.5,0.7" --seeds 0,1,2 --steps 300 --data train.npz --folder runs/p',
  );
  add(
    'distill',
    '--teacher big.onnx --student resnet8 --methods plain,kd,fad --seeds 0,1,2 --epochs 20 --data train.npz --folder runs/d',
  );
  add(
    'compress',
    'model.onnx --methods flow-compress,sequential,quantize-only --vary "size-ratio=8,16" --steps 1000 --data train.npz --folder runs/c',
  );
  group.addCommand(defineCommand(benchReportCommand(context), context, onExitCode));
  return group;
}

function benchOf(of: SweptCommand, example: string, context: CliContext): CommandDefinition<BenchReport> {
  const swept = sweptDefinition(of, context);
  const { argument, groups } = swept.definition;
  const isCommon = ({ key }: Flag): boolean => !OWN.includes(key) && swept.flags.some((flag) => flag.key === key);
  const common: FlagGroup[] = groups.map(({ heading, flags }) => ({ heading, flags: flags.filter(isCommon) }));
  const notOptions = new Set([...BENCH_FLAGS, ...GENERAL_FLAGS].map(({ key }) => key));
  return {
    name: of,
    summary: `methods of ${of} side by side`,
    description: `Runs ${of} by several methods and compares what they wrote. Options of ${of} hold for every run.`,
    ...(argument && { argument: { ...argument, usage: '<model...>' } }),
    groups: [{ heading: 'Comparison:', flags: BENCH_FLAGS }, ...common],
    examples: [`bench ${of} ${example}`],
    call: async (models, values, control) => {
      const named = Object.fromEntries(Object.entries(values).filter(([key]) => notOptions.has(key)));
      const { methods, seeds, vary, folder, ...work } = parseOptions(benchSchema, named, flagName);
      // Read by their flags already: numbers, texts, lists and switches, which read the same once more.
      const options = Object.fromEntries(
        Object.entries(values).flatMap(([key, value]) =>
          notOptions.has(key) ? [] : [[nameOf(key), value as OptionValue]],
        ),
      );
      const combinations = crossed(combinedValues(vary, '--vary'));
      const subjects = models.length > 0 ? models.map((model) => [model]) : [[]];
      const descriptions = subjects.flatMap((subject) =>
        combinations.flatMap((labels) =>
          methods.flatMap((method) =>
            seeds.map(seedOf).map((seed): TrialDescription => ({
              ...{ models: subject, labels },
              options: { ...options, ...labels, [METHOD]: method, [SEED]: seed },
            })),
          ),
        ),
      );
      const phase = { name: of, command: of, from: [], descriptions };
      const plan = await planTrials([phase], { base: process.cwd(), source: `bench ${of}` }, context);
      return context.library.runSweep(
        { ...work, folder, plan, version: context.version, status: work.workers === 0 },
        control,
      );
    },
  };
}

/** `{a: [1, 2], b: [3]}` as [{a: 1, b: 3}, {a: 2, b: 3}]; one empty set for no values. */
export function crossed(lists: Readonly<Record<string, readonly string[]>>): Record<string, string>[] {
  return Object.entries(lists).reduce<Record<string, string>[]>(
    (sets, [name, values]) => sets.flatMap((set) => values.map((value) => ({ ...set, [name]: value }))),
    [{}],
  );
}
