/** `flow-compress compress`: one budget for size, speed and accuracy; cuts, bits and learning planned together. */
import { compressOptionsSchema, QUANTIZERS } from '../commands/compress/options.js';
import { parseOptions } from '../commands/parse-options.js';
import { COMPRESSION_METHODS } from '../pipeline/recipes.js';
import type { CompressReport } from '../report/report.js';
import { HINT_WEIGHT } from '../recovery/teachings.js';
import type { CliContext } from './context.js';
import { DATA_GROUPS, flagName, FORMATS_FLAG, switchFlag, valueFlag, MODEL_ARGUMENT, TEACHING_FLAG } from './flags.js';
import { dataValues } from './run-command.js';
import type { CommandDefinition } from './run-command.js';
import { parseDuration, parseInteger, parseNumber, parseSize, parseText, parseTextList } from './values.js';

/** What holds for flags that are not given. */
const STANDARD = compressOptionsSchema.parse({ data: '-', output: '-', sizeRatio: 2 });

/** Columns for the names of methods, in front of what they do. */
const NAME_WIDTH = 2 + Math.max(...COMPRESSION_METHODS.map(({ name }) => name.length));

const LIMIT_FLAGS = [
  valueFlag('-o, --output <file>', 'where the compressed model goes', parseText),
  valueFlag('--size-ratio <factor>', 'how many times smaller the file is to be', parseNumber),
  valueFlag('--max-size <size>', 'its largest size instead: 400KB (1000 bytes) or 400KiB', parseSize),
  valueFlag(
    '--speedup <factor>',
    'how many times faster it is to be, in batches of 32 where it takes these',
    parseNumber,
  ),
  valueFlag('--max-drop <drop>', 'largest fall of the metric on VAL: 0.01 is one point', parseNumber),
  switchFlag('--best-effort', 'write the nearest model when the limits cannot be met together (exit code 3)'),
];

const METHOD_FLAGS = [
  valueFlag('--method <name>', COMPRESSION_METHODS.map(({ name }) => name).join(', '), parseText, STANDARD.method),
  valueFlag(
    '--reduce <share>',
    'of methods that cut by a rule: share of the MACs or parameters that goes (default: what the speed asks for, else half)',
    parseNumber,
  ),
  valueFlag(
    '--quantizer <name>',
    `how weights are rounded, in the place of the method's own: ${QUANTIZERS.join(', ')}`,
    parseText,
  ),
  valueFlag('--execution <kind>', 'auto (the faster one per layer), int8 or float', parseText, STANDARD.execution),
  valueFlag('--min-bits <n>', 'narrowest width a layer may get', parseInteger, 2),
  FORMATS_FLAG,
  valueFlag(
    '--align <n>',
    'leave widths a multiple of this (default: what the kernels of the machine work in)',
    parseInteger,
  ),
  valueFlag('--calib-samples <n>', 'samples of TRAIN that layers are fitted on', parseInteger, STANDARD.calibSamples),
  valueFlag('--probe-samples <n>', 'samples on which single cuts are measured', parseInteger, STANDARD.probeSamples),
  valueFlag('--latency-runs <n>', 'timed runs per file and batch size', parseInteger),
];

const LEARNING_FLAGS = [
  valueFlag('--epochs <n>', 'passes over TRAIN, in all', parseInteger),
  valueFlag('--steps <n>', 'updates in all, 0 for none (default: 1000 without --epochs and --max-time)', parseInteger),
  valueFlag('--max-time <time>', 'wall time of all learning: 90s, 10m or 1.5h', parseDuration),
  valueFlag('--batch-size <n>', 'samples per update', parseInteger, STANDARD.batchSize),
  valueFlag(
    '--lr <rate>',
    'learning rate of the cut model, relative to the size of the weights (default: as prune)',
    parseNumber,
  ),
  valueFlag('--recover-lr <rate>', 'learning rate of the rounded model', parseNumber, STANDARD.recoverLr),
  valueFlag(
    '--temperature <t>',
    'what the scores of both models are divided by (default: 1, or 4 for kd, fad and crd)',
    parseNumber,
  ),
  TEACHING_FLAG,
  valueFlag(
    '--hint-weight <w>',
    'how much values inside the cut model count, beside its answers',
    parseNumber,
    HINT_WEIGHT,
  ),
  valueFlag('--augment <list>', 'random changes of the images: crop, flip, cutout, mixup', parseTextList),
  switchFlag('--remeasure', 'time files and gradients anew instead of taking what this machine remembers'),
];

export function compressCommand({ library }: CliContext): CommandDefinition<CompressReport> {
  return {
    name: 'compress',
    summary: 'a small and fast model within limits: cuts, bits and learning planned together',
    description: [
      'Says how small, how fast or how good the model is to be (one limit is enough). Measures what cuts and bits cost, plans,',
      'lets the model learn from the original, and measures the file that it writes. Labels are not needed.',
      '',
      'Methods, the others to compare with:',
      ...COMPRESSION_METHODS.map((method) => `  ${method.name.padEnd(NAME_WIDTH)}${method.summary}`),
    ].join('\n'),
    argument: MODEL_ARGUMENT,
    groups: [
      { heading: 'Limits:', flags: LIMIT_FLAGS },
      { heading: 'Method:', flags: METHOD_FLAGS },
      { heading: 'Learning from the original:', flags: LEARNING_FLAGS },
      ...DATA_GROUPS,
    ],
    examples: [
      'compress model.onnx -o small.onnx --data images/ --size-ratio 16 --speedup 2 --max-drop 0.005 --report report.html',
      'compress model.onnx -o small.onnx --data train.npz --test test.npz --max-size 100KB --steps 2000 --run-dir runs/1',
      'compress model.onnx -o small.onnx --data train.npz --max-drop 0.01 --augment crop,flip',
      'compress model.onnx -o small.onnx --config compress.yaml --json > result.json',
    ],
    call: (models, values, control) =>
      library.compressModel(models[0], {
        ...parseOptions(compressOptionsSchema, dataValues(values), flagName),
        ...control,
      }),
  };
}
