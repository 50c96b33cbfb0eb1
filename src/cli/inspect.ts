/** `flow-compress inspect`: what is in a model. */
import { inspectOptionsSchema } from '../commands/inspect-options.js';
import { parseOptions } from '../commands/parse-options.js';
import type { InspectReport } from '../report/report.js';
import type { CliContext } from './context.js';
import { flagName, switchFlag, MODEL_ARGUMENT } from './flags.js';
import type { CommandDefinition } from './run-command.js';

export function inspectCommand({ library }: CliContext): CommandDefinition<InspectReport> {
  return {
    name: 'inspect',
    summary: 'what is in a model: layers, parameters, MACs, bytes',
    description:
      'Shows inputs, outputs, opset, parameters, MACs and bytes of a model, a row per layer, and what is not supported and why.',
    argument: MODEL_ARGUMENT,
    groups: [
      {
        heading: 'Inspection:',
        flags: [
          switchFlag(
            '--groups',
            'list the units (filters, neurons, heads) that could be removed, the weights tied to them, the layers that could go, and what must stay and why',
          ),
        ],
      },
    ],
    examples: ['inspect model.onnx', 'inspect model.onnx --groups --json', 'inspect model.onnx --report layers.html'],
    call: (models, values, control) =>
      library.inspectModel(models[0], { ...parseOptions(inspectOptionsSchema, values, flagName), ...control }),
  };
}
