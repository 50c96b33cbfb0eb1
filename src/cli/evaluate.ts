/** `flow-compress evaluate`: metric, bytes and latency of files side by side. */
import { evaluateOptionsSchema } from '../commands/evaluate-options.js';
import { parseOptions } from '../commands/parse-options.js';
import type { EvaluateReport } from '../report/report.js';
import type { CliContext } from './context.js';
import { DATA_FLAGS, flagName, GENERATION_FLAGS, PREPROCESS_FILE_FLAG, PREPROCESS_FLAGS, valueFlag } from './flags.js';
import { dataValues } from './run-command.js';
import type { CommandDefinition } from './run-command.js';
import { parseInteger, parseNumberList, parseText } from './values.js';

export function evaluateCommand({ library }: CliContext): CommandDefinition<EvaluateReport> {
  return {
    name: 'evaluate',
    summary: 'metric, bytes and latency of files, side by side',
    description: 'Measures each file in one run with the same data. Ratios are against the first file.',
    argument: { usage: '<model...>', help: 'ONNX files; the first one is the reference' },
    groups: [
      {
        heading: 'Measurement:',
        flags: [
          valueFlag('--batch-sizes <list>', 'batch sizes to time, for example 1,32', parseNumberList),
          valueFlag('--latency-runs <n>', 'timed runs per file and batch size', parseInteger),
        ],
      },
      {
        heading: 'Comparison:',
        flags: [
          valueFlag(
            '--teacher <model>',
            'how much of this model each file has: its answers, and the features in front of the last layer',
            parseText,
          ),
        ],
      },
      {
        heading: 'With --teacher, for models that answer with other values than class scores:',
        flags: GENERATION_FLAGS,
      },
      { heading: 'Data:', flags: DATA_FLAGS },
      { heading: 'Preprocessing of uint8 images:', flags: [...PREPROCESS_FLAGS, PREPROCESS_FILE_FLAG] },
    ],
    examples: [
      'evaluate model.onnx small.onnx --data train.npz --test test.npz',
      'evaluate model.onnx small.onnx --data images/ --batch-sizes 1,32 --report compare.html',
      'evaluate student.onnx --teacher teacher.onnx --data train.npz --test test.npz',
      'evaluate small-vae.onnx --teacher vae.onnx --data images.npz --features classifier.onnx',
    ],
    call: (models, values, control) =>
      library.evaluateModels(models, {
        ...parseOptions(evaluateOptionsSchema, dataValues(values), flagName),
        ...control,
      }),
  };
}
