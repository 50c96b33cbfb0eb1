/** `flow-compress bench report`: networks trained here, times every kind of compression, as one table. */
import { z } from 'zod';
import { parseOptions } from '../commands/parse-options.js';
import { COMPARED_METHODS, COMPARED_MODELS, comparisonPhases } from '../experiments/comparison.js';
import type { ComparedMethod } from '../experiments/comparison.js';
import type { OptionValue } from '../experiments/trial.js';
import type { BenchReport } from '../report/report.js';
import { seedOf } from './bench-seeds.js';
import type { CliContext } from './context.js';
import { flagName, PREPROCESS_FILE_FLAG, PREPROCESS_FLAGS, SOURCE_FLAGS, valueFlag } from './flags.js';
import type { Flag } from './flags.js';
import type { CommandDefinition } from './run-command.js';
import { PLAN_FLAGS, planSchema } from './sweep.js';
import { nameOf, planTrials } from './sweep-plan.js';
import { parseInteger, parseText, parseTextList } from './values.js';

const STANDARD = { epochs: 30, steps: 1000, inputSize: 32, channels: 3, seeds: '0' } as const;

const REPORT_FLAGS: readonly Flag[] = [
  valueFlag('--folder <path>', 'run directory of the report: what is there is not run again', parseText),
  valueFlag('--models <list>', 'architectures of `zoo list`', parseTextList, COMPARED_MODELS.join(',')),
  valueFlag('--epochs <n>', 'passes over TRAIN of the originals', parseInteger, STANDARD.epochs),
  valueFlag('--steps <n>', 'updates of everything else that learns', parseInteger, STANDARD.steps),
  valueFlag('--seeds <list>', 'originals, and all that is made of them, for each', parseTextList, STANDARD.seeds),
  valueFlag('--input-size <n>', 'pixels that images are brought to', parseInteger, STANDARD.inputSize),
  valueFlag('--channels <n>', 'channels of the images', parseInteger, STANDARD.channels),
  valueFlag('--augment <list>', 'random changes of the images: crop, flip, cutout, mixup', parseTextList),
  ...PLAN_FLAGS,
];

const reportSchema = planSchema.extend({
  folder: z.string().min(1),
  models: z
    .array(z.string())
    .min(1)
    .default([...COMPARED_MODELS]),
  epochs: z.number().int().min(1).default(STANDARD.epochs),
  steps: z.number().int().min(1).default(STANDARD.steps),
  seeds: z
    .array(z.string())
    .min(1)
    .default([STANDARD.seeds])
    .transform((seeds) => seeds.map(seedOf)),
  inputSize: z.number().int().min(1).default(STANDARD.inputSize),
  channels: z.number().int().min(1).default(STANDARD.channels),
  augment: z.array(z.string()).optional(),
});

/** Options of every trial. */
const COMMON_FLAGS: readonly Flag[] = [
  ...SOURCE_FLAGS.filter(({ key }) => key !== 'seed'),
  valueFlag('--latency-runs <n>', 'timed runs per file and batch size', parseInteger),
];
const IMAGE_FLAGS: readonly Flag[] = [...PREPROCESS_FLAGS, PREPROCESS_FILE_FLAG];

export function benchReportCommand(context: CliContext): CommandDefinition<BenchReport> {
  return {
    name: 'report',
    summary: 'networks trained here, times all kinds of compression, as one table',
    description: [
      'Trains each network, compresses it by every method of the list, and shows all files in one table: accuracy on VAL and',
      'TEST, parameters, bytes, milliseconds, the best first. An interrupted report goes on by the same command, and workers may',
      'help at any time: `flow-compress worker FOLDER`.',
      '',
      'Methods:',
      ...COMPARED_METHODS.map((method) => `  ${calledIn(method).padEnd(30)}${method.command} ${shown(method.options)}`),
    ].join('\n'),
    groups: [
      { heading: 'Report:', flags: REPORT_FLAGS },
      { heading: 'Data:', flags: COMMON_FLAGS },
      { heading: 'Preprocessing of uint8 images:', flags: IMAGE_FLAGS },
    ],
    examples: [
      'bench report --data cifar-train.npz --test cifar-test.npz --augment crop,flip --folder runs/report --report report.html',
      'bench report --data demo/data --channels 1 --models simple-cnn,lenet5-enhanced --epochs 2 --steps 100 --folder runs/short',
      'bench report --data train.npz --seeds 0,1,2 --workers 0 --folder runs/report   # plan only; then: worker runs/report',
    ],
    call: async (_, values, control) => {
      const common = new Set([...COMMON_FLAGS, ...IMAGE_FLAGS].map(({ key }) => key));
      const entries = Object.entries(values);
      const own = Object.fromEntries(entries.filter(([key]) => !common.has(key)));
      const { folder, models, epochs, steps, seeds, inputSize, channels, augment, ...work } = parseOptions(
        reportSchema,
        own,
        flagName,
      );
      await refuseUnfit(models, { inputSize, channels });
      const options = Object.fromEntries(
        entries.filter(([key]) => common.has(key)).map(([key, value]) => [nameOf(key), value as OptionValue]),
      );
      const phases = comparisonPhases({
        ...{ models, seeds, epochs, steps, inputSize, channels, common: options },
        ...(augment && { augment }),
      });
      const plan = await planTrials(phases, { base: process.cwd(), source: 'bench report' }, context);
      return context.library.runSweep(
        { ...work, folder, plan, version: context.version, status: work.workers === 0, bestFirst: true },
        control,
      );
    },
  };
}

/** Architectures that there are not, or that cannot be built for such images, before anything is trained. */
async function refuseUnfit(
  models: readonly string[],
  images: { readonly inputSize: number; readonly channels: number },
): Promise<void> {
  // Loaded when needed: `--help` starts without the architectures.
  const { architectureNamed } = await import('../commands/zoo.js');
  const { resolveSettings } = await import('../zoo/options.js');
  for (const model of models) resolveSettings(architectureNamed(model), images, flagName);
}

function calledIn({ name, goal }: ComparedMethod): string {
  return goal === undefined ? name : `${name}, ${goal}`;
}

function shown(options: ComparedMethod['options']): string {
  return Object.entries(options)
    .map(([name, value]) => (value === true ? `--${name}` : `--${name} ${String(value)}`))
    .join(' ');
}
