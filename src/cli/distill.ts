/** `flow-compress distill`: a student learns from a teacher. */
import { distillOptionsSchema } from '../commands/distill/options.js';
import { parseOptions } from '../commands/parse-options.js';
import { DISTILLATION_METHODS } from '../distillation/methods.js';
import { FlowCompressError } from '../errors.js';
import type { DistillReport } from '../report/report.js';
import type { CliContext } from './context.js';
import { DATA_GROUPS, ARCHITECTURE_FLAGS, flagName, GENERATION_FLAGS, switchFlag, valueFlag } from './flags.js';
import { dataValues } from './run-command.js';
import type { CommandDefinition } from './run-command.js';
import { COURSE_FLAGS } from './train.js';
import {
  parseCount,
  parseInteger,
  parseMilliseconds,
  parseNumber,
  parseSize,
  parseText,
  parseTextList,
} from './values.js';

/** What holds for flags that are not given. */
const STANDARD = distillOptionsSchema.parse({ teacher: '-', data: '-', output: '-' });

const DISTILLATION_FLAGS = [
  valueFlag('--teacher <model>', 'ONNX file, or folder in the Hugging Face layout, that is learned from', parseText),
  valueFlag(
    '--student <model>',
    'ONNX file that learns, an architecture of `zoo list`, teacher: its own graph with --width of the units and fresh weights, or auto: chosen by short trainings within the limits below',
    parseText,
  ),
  valueFlag('--max-size <size>', 'with --student auto: largest file, for example 400KB', parseSize),
  valueFlag(
    '--max-latency <time>',
    'with --student auto: longest median time of one sample, for example 1ms',
    parseMilliseconds,
  ),
  valueFlag(
    '--max-macs <n>',
    'with --student auto: most multiply-accumulates of one sample, for example 20M',
    parseCount,
  ),
  valueFlag('-o, --output <file>', 'where the trained student goes', parseText),
  valueFlag('--method <name>', 'one of the methods above', parseText, STANDARD.method),
  valueFlag('--temperature <t>', 'what the scores of both models are divided by', parseNumber, STANDARD.temperature),
  valueFlag(
    '--mapping <how>',
    'which layers face each other: cka (by likeness), depth, or a JSON file {"student layer": "teacher layer"}',
    parseText,
    STANDARD.mapping,
  ),
  valueFlag(
    '--select <which>',
    'layers whose flow is aligned: all, selective (critical ones that differ) or curriculum (from the first on)',
    parseText,
    STANDARD.select,
  ),
  valueFlag('--flow <how>', 'flows layer by layer (layers) or along the depth (integrated)', parseText, STANDARD.flow),
  valueFlag(
    '--weighting <how>',
    'fad: adaptive (by the flows), joint (temperature and layers by closeness), variational (learned) or fixed',
    parseText,
    STANDARD.weighting,
  ),
  switchFlag('--per-sample', 'align the flows of every sample instead of their means over the batch'),
  valueFlag(
    '--rounds <n>',
    'epochs after which augmentation repeats itself, so that the teacher is asked only once per sample and round',
    parseInteger,
  ),
  valueFlag(
    '--calib-samples <n>',
    'samples of TRAIN by which layers are likened and their flow is measured',
    parseInteger,
    STANDARD.calibSamples,
  ),
  valueFlag(
    '--inputs <list>',
    'TEACHER=STUDENT,...: which inputs belong together, where their names differ and shapes do not tell',
    parseTextList,
  ),
  valueFlag('--cache-teacher <folder>', "keeps the teacher's answers on disk, for this run and the next", parseText),
];

const DRAWS_FLAG = valueFlag(
  '--draws <n>',
  'with --diffusion: how often a clean sample comes in an epoch, each time with other noise',
  parseInteger,
  STANDARD.draws,
);

export function distillCommand({ library }: CliContext): CommandDefinition<DistillReport> {
  return {
    name: 'distill',
    summary: 'a small student learns what a teacher knows',
    description: [
      'Trains the student on labels and on what the teacher says of the same samples; writes what was best on VAL and measures it',
      'on TEST beside the teacher. Without labels the answers of the teacher are all it learns from.',
      '',
      'Methods:',
      ...DISTILLATION_METHODS.map((method) => `  ${method.name.padEnd(12)}${method.summary}`),
    ].join('\n'),
    groups: [
      { heading: 'Distillation:', flags: DISTILLATION_FLAGS },
      { heading: 'Models that answer with other values than class scores:', flags: [...GENERATION_FLAGS, DRAWS_FLAG] },
      { heading: 'Training:', flags: COURSE_FLAGS },
      {
        heading: "Architecture of the zoo (inputs and classes as the teacher's when absent):",
        flags: ARCHITECTURE_FLAGS,
      },
      ...DATA_GROUPS,
    ],
    examples: [
      'distill --teacher resnet56.onnx --student resnet8 -o student.onnx --data cifar-train.npz --test cifar-test.npz --epochs 20',
      'distill --teacher big.onnx --student small.onnx -o student.onnx --data images/ --method kd --max-time 1h --augment crop,flip',
      'distill --teacher resnet56.onnx --student auto --max-size 400KB --max-macs 20M -o student.onnx --data cifar-train.npz --epochs 20',
      'distill --teacher big.onnx --student resnet20 --width 0.5 -o student.onnx --data train.npz --augment crop,flip --rounds 5 --cache-teacher answers/',
    ],
    call: (_, values, control) => {
      const { student, ...rest } = dataValues(values);
      if (typeof student !== 'string')
        throw new FlowCompressError('bad-input', '--student is missing.', {
          hint: 'Give an ONNX file, an architecture of `flow-compress zoo list`, or auto.',
        });
      return library.distillModel(student, { ...parseOptions(distillOptionsSchema, rest, flagName), ...control });
    },
  };
}
