/** `flow-compress prune`: fewer filters and layers, measured. */
import { parseOptions } from '../commands/parse-options.js';
import { pruneOptionsSchema, PRUNING_STAGES } from '../commands/prune/options.js';
import { PRUNING_METHODS } from '../pruning/methods.js';
import { SCORE_NAMES } from '../pruning/scores.js';
import type { PruneReport } from '../report/report.js';
import { HINT_WEIGHT } from '../recovery/teachings.js';
import type { CliContext } from './context.js';
import { DATA_GROUPS, flagName, switchFlag, valueFlag, MODEL_ARGUMENT, TEACHING_FLAG } from './flags.js';
import { dataValues } from './run-command.js';
import type { CommandDefinition } from './run-command.js';
import { parseDuration, parseInteger, parseNumber, parseText, parseTextList } from './values.js';

/** What holds for flags that are not given. */
const STANDARD = pruneOptionsSchema.parse({ data: '-', output: '-' });

/** Columns for the names of methods, in front of what they do. */
const NAME_WIDTH = 2 + Math.max(...PRUNING_METHODS.map(({ name }) => name.length));

const PRUNING_FLAGS = [
  valueFlag('-o, --output <file>', 'where the pruned model goes', parseText),
  valueFlag('--reduce <share>', 'share of the cost that is to go (default: 0.5 without --max-drop)', parseNumber),
  valueFlag('--of <cost>', 'what it is a share of: macs, params or latency', parseText, STANDARD.of),
  valueFlag(
    '--sparsity <share>',
    'share of single weights that is to go, with a method for these (default: 0.9)',
    parseNumber,
  ),
  valueFlag('--max-drop <drop>', 'largest fall of the metric on VAL: 0.01 is one point', parseNumber),
  valueFlag('--method <name>', PRUNING_METHODS.map(({ name }) => name).join(', '), parseText, STANDARD.method),
  valueFlag(
    '--score <name>',
    `what filters are ranked by: ${SCORE_NAMES.join(', ')} (default: the method's)`,
    parseText,
  ),
  valueFlag(
    '--order <end>',
    'which filters of a group go first: those that score lowest, or highest as a check of the score',
    parseText,
    STANDARD.order,
  ),
  valueFlag('--stages <order>', PRUNING_STAGES.join(', '), parseText, STANDARD.stages),
  valueFlag('--cuts <n>', 'cuts on the way to the goal (default: as many as it asks for)', parseInteger),
  valueFlag(
    '--align <n>',
    'leave widths a multiple of this (default: what the kernels of the machine work in)',
    parseInteger,
  ),
  valueFlag('--calib-samples <n>', 'samples of TRAIN that layers are fitted on', parseInteger, STANDARD.calibSamples),
  valueFlag('--probe-samples <n>', 'samples on which single cuts are measured', parseInteger, STANDARD.probeSamples),
  valueFlag('--latency-runs <n>', 'timed runs per file and batch size', parseInteger),
  switchFlag('--best-effort', 'write the best model found when a limit cannot be met (exit code 3)'),
];

const LEARNING_FLAGS = [
  valueFlag('--epochs <n>', 'passes over TRAIN', parseInteger),
  valueFlag('--steps <n>', 'updates, 0 for none (default: 1000 without --epochs and --max-time)', parseInteger),
  valueFlag('--max-time <time>', 'wall time of learning: 90s, 10m or 1.5h', parseDuration),
  valueFlag('--batch-size <n>', 'samples per update', parseInteger, STANDARD.batchSize),
  valueFlag(
    '--lr <rate>',
    'learning rate, relative to the size of the weights (default: 0.03, without convolutions 0.001)',
    parseNumber,
  ),
  valueFlag(
    '--temperature <t>',
    'what the scores of both models are divided by (default: 1, or 4 for kd, fad and crd)',
    parseNumber,
  ),
  TEACHING_FLAG,
  valueFlag(
    '--hint-weight <w>',
    'how much values inside the model count that are held against the original, beside its answers',
    parseNumber,
    HINT_WEIGHT,
  ),
  valueFlag('--augment <list>', 'random changes of the images: crop, flip, cutout, mixup', parseTextList),
  switchFlag('--remeasure', 'time the gradients of convolutions anew instead of taking what this machine remembers'),
];

export function pruneCommand({ library }: CliContext): CommandDefinition<PruneReport> {
  return {
    name: 'prune',
    summary: 'a model with fewer filters and layers',
    description: [
      'Takes out what the answers depend on least, fits the rest to the original in closed form, lets it learn from the',
      'original, and measures the file that it writes. Labels are not needed.',
      '',
      'Methods:',
      ...PRUNING_METHODS.map((method) => `  ${method.name.padEnd(NAME_WIDTH)}${method.summary}`),
    ].join('\n'),
    argument: MODEL_ARGUMENT,
    groups: [
      { heading: 'Pruning:', flags: PRUNING_FLAGS },
      { heading: 'Learning from the original:', flags: LEARNING_FLAGS },
      ...DATA_GROUPS,
    ],
    examples: [
      'prune model.onnx -o pruned.onnx --data train.npz --test test.npz --reduce 0.5 --report report.html',
      'prune model.onnx -o pruned.onnx --data images/ --max-drop 0.01 --augment crop,flip',
      'prune model.onnx -o pruned.onnx --data train.npz --reduce 0.4 --of latency --max-time 20m --run-dir runs/1',
    ],
    call: (models, values, control) =>
      library.pruneModel(models[0], {
        ...parseOptions(pruneOptionsSchema, dataValues(values), flagName),
        ...control,
      }),
  };
}
