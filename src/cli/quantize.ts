/** `flow-compress quantize`: a smaller model with per-layer bits, measured. */
import { parseOptions } from '../commands/parse-options.js';
import { QUANTIZATION_METHODS, QUANTIZE_DEFAULTS, quantizeOptionsSchema } from '../commands/quantize/options.js';
import type { QuantizeReport } from '../report/report.js';
import type { CliContext } from './context.js';
import {
  DATA_FLAGS,
  flagName,
  FORMATS_FLAG,
  PREPROCESS_FILE_FLAG,
  PREPROCESS_FLAGS,
  RUN_DIR_FLAGS,
  SENSITIVITY_FLAGS,
  switchFlag,
  valueFlag,
  MODEL_ARGUMENT,
  TEACHING_FLAG,
} from './flags.js';
import { dataValues } from './run-command.js';
import type { CommandDefinition } from './run-command.js';
import { parseInteger, parseNumber, parseNumberList, parseSize, parseText, parseTextList } from './values.js';

const METHOD_NAMES = QUANTIZATION_METHODS.map((method) => method.name).join(', ');

const FLAGS = [
  valueFlag('-o, --output <file>', 'where the quantized model goes', parseText),
  valueFlag('--method <name>', METHOD_NAMES, parseText, QUANTIZE_DEFAULTS.method),
  valueFlag(
    '--bits <n>',
    'average stored width of the weights; fractions allowed',
    parseNumber,
    QUANTIZE_DEFAULTS.bits,
  ),
  valueFlag(
    '--max-size <size>',
    'largest size of the output instead of --bits: 400KB (1000 bytes) or 400KiB',
    parseSize,
  ),
  valueFlag('--sweep <list>', 'also measure these average widths, for example 2,3,4,6,8', parseNumberList),
  valueFlag(
    '--execution <kind>',
    'auto (the faster one per layer), int8 or float',
    parseText,
    QUANTIZE_DEFAULTS.execution,
  ),
  switchFlag('--remeasure', 'time the candidate files anew instead of taking the choice that this machine remembers'),
  valueFlag('--min-bits <n>', 'narrowest width a layer may get', parseInteger, QUANTIZE_DEFAULTS.minBits),
  valueFlag('--max-bits <n>', 'widest width a layer may get', parseInteger, QUANTIZE_DEFAULTS.maxBits),
  valueFlag(
    '--sensitivity <kind>',
    'flow (one profile), measured (KL of every layer and width) or auto',
    parseText,
    QUANTIZE_DEFAULTS.sensitivity,
  ),
  ...SENSITIVITY_FLAGS,
  valueFlag(
    '--edge-bits <n>',
    'width of the first and last layers and of embeddings',
    parseInteger,
    QUANTIZE_DEFAULTS.edgeBits,
  ),
  valueFlag(
    '--attention-bits <n>',
    'lowest width of attention with the flow sensitivity',
    parseInteger,
    QUANTIZE_DEFAULTS.attentionBits,
  ),
  valueFlag(
    '--gradient-bits <n>',
    'lowest width of layers with large gradients, with the flow sensitivity',
    parseInteger,
    QUANTIZE_DEFAULTS.gradientBits,
  ),
  valueFlag(
    '--probe-samples <n>',
    'samples on which the divergence of a layer is measured',
    parseInteger,
    QUANTIZE_DEFAULTS.probeSamples,
  ),
  FORMATS_FLAG,
  valueFlag('--rounding <kind>', 'compensated (errors cancel) or nearest', parseText, 'compensated'),
  valueFlag(
    '--recover <steps>',
    'updates in which the rounded model learns to answer like the original (default: 0, or 1000 for int8-qat)',
    parseInteger,
  ),
  valueFlag(
    '--recover-lr <rate>',
    'learning rate of the recovery, relative to the size of the weights',
    parseNumber,
    QUANTIZE_DEFAULTS.recoverLr,
  ),
  valueFlag('--recover-batch-size <n>', 'samples per update', parseInteger, QUANTIZE_DEFAULTS.recoverBatchSize),
  valueFlag(
    '--temperature <t>',
    'what the scores of both models are divided by in the loss (default: 1, or 4 for kd, fad and crd)',
    parseNumber,
  ),
  TEACHING_FLAG,
  valueFlag(
    '--hint-weight <w>',
    'how much values inside the model count that are held against the original, beside its answers (teaching hints)',
    parseNumber,
  ),
  valueFlag(
    '--augment <list>',
    'random changes of the images of the recovery: crop, flip, cutout, mixup',
    parseTextList,
  ),
  valueFlag('--latency-runs <n>', 'timed runs per file and batch size', parseInteger),
  switchFlag('--best-effort', 'write the best model found when the budget cannot be met (exit code 3)'),
];

export function quantizeCommand({ library }: CliContext): CommandDefinition<QuantizeReport> {
  return {
    name: 'quantize',
    summary: 'a smaller model with per-layer bits',
    description: [
      'Stores the weights in fewer bits, layer by layer, and measures the file that it writes.',
      '',
      'Methods:',
      ...QUANTIZATION_METHODS.map((method) => `  ${method.name.padEnd(14)}${method.summary}`),
    ].join('\n'),
    argument: MODEL_ARGUMENT,
    groups: [
      { heading: 'Quantization:', flags: FLAGS },
      { heading: 'Data:', flags: [...DATA_FLAGS, ...RUN_DIR_FLAGS] },
      { heading: 'Preprocessing of uint8 images:', flags: [...PREPROCESS_FLAGS, PREPROCESS_FILE_FLAG] },
    ],
    examples: [
      'quantize model.onnx -o small.onnx --data train.npz --test test.npz',
      'quantize model.onnx -o small.onnx --data images/ --max-size 400KB --report report.html',
      'quantize model.onnx -o small.onnx --data train.npz --sweep 2,3,4,6,8 --method uniform',
      'quantize model.onnx -o small.onnx --config quantize.yaml --json > result.json',
    ],
    call: (models, values, control) =>
      library.quantizeModel(models[0], {
        ...parseOptions(quantizeOptionsSchema, dataValues(values), flagName),
        ...control,
      }),
  };
}
