/** `flow-compress train`: trains or fine-tunes a model by gradients. */
import { parseOptions } from '../commands/parse-options.js';
import { TRAINING_METRICS, trainOptionsSchema } from '../commands/train/options.js';
import type { TrainReport } from '../report/report.js';
import { LOSSES } from '../training/losses.js';
import { OPTIMIZERS } from '../training/optimizers.js';
import { SCHEDULES } from '../training/schedule.js';
import type { CliContext } from './context.js';
import { DATA_GROUPS, ARCHITECTURE_FLAGS, flagName, switchFlag, valueFlag, type Flag } from './flags.js';
import { dataValues } from './run-command.js';
import type { CommandDefinition } from './run-command.js';
import { parseDuration, parseInteger, parseNumber, parseText, parseTextList } from './values.js';

/** What holds for flags that are not given. */
const STANDARD = trainOptionsSchema.parse({ data: '-', output: '-' });

const DECAYS = Object.entries(OPTIMIZERS).map(([name, { weightDecay }]) => `${weightDecay} for ${name}`);
const RATES = Object.entries(OPTIMIZERS).map(([name, { learningRate }]) => `${learningRate} for ${name}`);

/** How long and how is trained: of every command that trains a model from labels. */
export const COURSE_FLAGS: readonly Flag[] = [
  valueFlag('--epochs <n>', 'passes over TRAIN (default: 30 without --steps and --max-time)', parseInteger),
  valueFlag('--steps <n>', 'updates of the weights; the first limit that is reached ends the training', parseInteger),
  valueFlag('--max-time <time>', 'wall time: 90s, 10m or 1.5h', parseDuration),
  valueFlag('--patience <n>', 'stop after this many epochs in which the metric on VAL was no better', parseInteger),
  valueFlag('--batch-size <n>', 'samples per gradient', parseInteger, STANDARD.batchSize),
  valueFlag('--accumulate <n>', 'gradients that are added up for one update', parseInteger, STANDARD.accumulate),
  valueFlag('--optimizer <name>', Object.keys(OPTIMIZERS).join(', '), parseText, STANDARD.optimizer),
  valueFlag('--lr <rate>', `learning rate (default: ${RATES.join(', ')})`, parseNumber),
  valueFlag('--schedule <name>', `of the learning rate: ${SCHEDULES.join(', ')}`, parseText, STANDARD.schedule),
  valueFlag('--warmup <share>', 'share of the training over which the rate climbs', parseNumber, STANDARD.warmup),
  valueFlag('--momentum <factor>', 'of sgd', parseNumber, STANDARD.momentum),
  valueFlag('--weight-decay <factor>', `pull of the weights towards zero (default: ${DECAYS.join(', ')})`, parseNumber),
  valueFlag('--clip-norm <norm>', 'largest norm of the gradient', parseNumber),
  valueFlag('--ema <decay>', 'evaluate and write a moving average of the weights, for example 0.999', parseNumber),
  valueFlag(
    '--batch-norm <mode>',
    'statistics of batch normalization: frozen (default for a trained file) or updated (default for a new model)',
    parseText,
  ),
  switchFlag('--checkpoint-activations', 'less memory, more time: compute activations again instead of keeping them'),
  switchFlag('--remeasure', 'time the gradients of convolutions anew instead of taking what this machine remembers'),
  valueFlag(
    '--metric <name>',
    `what is best on VAL: ${TRAINING_METRICS.join(', ')} (default: top1 with labels, else loss)`,
    parseText,
  ),
  valueFlag('--label-smoothing <share>', 'target taken from the true class', parseNumber, STANDARD.labelSmoothing),
  switchFlag('--balance', 'weigh the loss so that all classes count alike'),
  valueFlag('--augment <list>', 'random changes of the images: crop, flip, cutout, mixup', parseTextList),
  valueFlag('--latency-runs <n>', 'timed runs per file and batch size', parseInteger),
];

const TRAINING_FLAGS: readonly Flag[] = [
  valueFlag('-o, --output <file>', 'where the trained model goes', parseText),
  valueFlag('--temperature <t>', 'of kl: logits are divided by it', parseNumber, STANDARD.temperature),
  valueFlag(
    '--loss <name>',
    `${Object.keys(LOSSES).join(', ')} (default: cross-entropy for labels, mse for arrays of targets)`,
    parseText,
  ),
  valueFlag(
    '--wandb <project>',
    'curves to this project of Weights & Biases (needs npm package @wandb/sdk)',
    parseText,
  ),
];

export function trainCommand({ library }: CliContext): CommandDefinition<TrainReport> {
  return {
    name: 'train',
    summary: 'trains or fine-tunes a model by gradients',
    description: [
      'Trains on TRAIN and writes the weights that were best on VAL; the written file is measured on TEST.',
      'It learns from labels, or from the array of a .npz file that has the name of an output: what this output should be.',
      'An ONNX model is trained further; an architecture of `zoo list` is built and trained from random weights.',
    ].join('\n'),
    argument: {
      usage: '<model>',
      help: 'ONNX file, folder in the Hugging Face layout, or an architecture of `zoo list`',
    },
    groups: [
      { heading: 'Training:', flags: [...TRAINING_FLAGS, ...COURSE_FLAGS] },
      { heading: 'Architecture of the zoo (--classes as the data has when absent):', flags: ARCHITECTURE_FLAGS },
      ...DATA_GROUPS,
    ],
    examples: [
      'train resnet20 -o mine.onnx --data cifar-train.npz --test cifar-test.npz --epochs 30 --augment crop,flip',
      'train theirs.onnx -o tuned.onnx --data images/ --lr 1e-4 --epochs 5',
      'train theirs.onnx -o tuned.onnx --data images/ --max-time 2h --run-dir runs/1 --resume',
    ],
    call: (models, values, control) =>
      library.trainModel(models[0], {
        ...parseOptions(trainOptionsSchema, dataValues(values), flagName),
        ...control,
      }),
  };
}
