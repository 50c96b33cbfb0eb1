/** `flow-compress profile`: information flow, sensitivity and KL of every layer. */
import { parseOptions } from '../commands/parse-options.js';
import { profileOptionsSchema } from '../commands/profile-options.js';
import type { ProfileReport } from '../report/report.js';
import type { CliContext } from './context.js';
import {
  DATA_FLAGS,
  flagName,
  PREPROCESS_FILE_FLAG,
  PREPROCESS_FLAGS,
  RUN_DIR_FLAGS,
  SENSITIVITY_FLAGS,
  valueFlag,
  MODEL_ARGUMENT,
} from './flags.js';
import { dataValues } from './run-command.js';
import type { CommandDefinition } from './run-command.js';
import { parseNumberList } from './values.js';

export function profileCommand({ library }: CliContext): CommandDefinition<ProfileReport> {
  return {
    name: 'profile',
    summary: 'information flow, sensitivity and KL per layer',
    description:
      'Measures what each layer contributes and what every stored width of it would cost. The model is not changed.',
    argument: MODEL_ARGUMENT,
    groups: [
      {
        heading: 'Profile:',
        flags: [
          valueFlag('--widths <list>', 'stored widths to try in every layer, for example 2,4,8', parseNumberList),
          ...SENSITIVITY_FLAGS,
        ],
      },
      { heading: 'Data:', flags: [...DATA_FLAGS, ...RUN_DIR_FLAGS] },
      { heading: 'Preprocessing of uint8 images:', flags: [...PREPROCESS_FLAGS, PREPROCESS_FILE_FLAG] },
    ],
    examples: [
      'profile model.onnx --data train.npz',
      'profile model.onnx --data images/ --widths 2,3,4,8 --report profile.html',
    ],
    call: (models, values, control) =>
      library.profileModel(models[0], {
        ...parseOptions(profileOptionsSchema, dataValues(values), flagName),
        ...control,
      }),
  };
}
