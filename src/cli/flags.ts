/** Every flag that more than one command has, in one place: its name, meaning, placeholder and reader. */
import { Option } from 'commander';
import type { Command } from 'commander';
import { evaluateOptionsSchema } from '../commands/evaluate-options.js';
import { DEFAULTS } from '../commands/options.js';
import { QUANTIZE_DEFAULTS } from '../commands/quantize/options.js';
import { TEACHINGS } from '../recovery/teachings.js';
import { parseInteger, parseNumber, parseNumberList, parseSwitch, parseText, parseTextList, passOn } from './values.js';
import type { Parser } from './values.js';

export interface Flag {
  /** Name in the options of the library, camelCase; commander derives the same from the long flag. */
  readonly key: string;
  /** As commander writes it: `-o, --output <file>`. */
  readonly usage: string;
  readonly help: string;
  readonly parse: Parser;
}

/** A flag without a value. */
export function switchFlag(usage: string, help: string): Flag {
  return { key: keyOf(usage), usage, help, parse: parseSwitch };
}

/** A flag with a value. `standard` is what holds when the flag is absent. */
export function valueFlag(usage: string, help: string, parse: Parser, standard?: string | number): Flag {
  return { key: keyOf(usage), usage, help: standard === undefined ? help : `${help} (default: ${standard})`, parse };
}

function keyOf(usage: string): string {
  return new Option(usage).attributeName();
}

/** `maxSize` -> `--max-size`. */
export function flagName(key: string): string {
  if (key === 'preprocessFile') return '--preprocess';
  return `--${key.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;
}

/** Of the commands that round weights. */
export const FORMATS_FLAG = valueFlag(
  '--formats <list>',
  'how faaq may store a layer: uniform (evenly spaced levels), codebook (levels of its own, 3 to 5 bits)',
  parseTextList,
  QUANTIZE_DEFAULTS.formats.join(','),
);

export const TARGET_FLAG = valueFlag(
  '--target <name>',
  'where the model will run: cpu, wasm or webgpu',
  parseText,
  DEFAULTS.target,
);

/** Where the samples come from and what runs on them. */
export const SOURCE_FLAGS: readonly Flag[] = [
  valueFlag(
    '--data <path>',
    '.npz file, folder of class folders of images, IDX file, or noise:N for inputs drawn from N(0, 1)',
    parseText,
  ),
  valueFlag('--test <path>', 'separate test data; --data is then used for TRAIN and VAL only', parseText),
  valueFlag('--seed <n>', 'seed of the splits and of every random choice', parseInteger, DEFAULTS.seed),
  TARGET_FLAG,
  valueFlag('--threads <n>', "intra-op threads (default: the engine's choice)", parseInteger),
];

/** The same for the commands that calibrate. */
export const DATA_FLAGS: readonly Flag[] = [
  ...SOURCE_FLAGS,
  valueFlag('--calib-samples <n>', 'samples of TRAIN used for calibration', parseInteger, DEFAULTS.calibSamples),
  valueFlag('--batch-size <n>', 'samples per engine call', parseInteger, DEFAULTS.batchSize),
];

/** Flags whose values go, as given, to the schema of the preprocessing. */
export const PREPROCESS_FLAGS: readonly Flag[] = [
  valueFlag('--mean <list>', 'mean per channel, for example 0.485,0.456,0.406', passOn),
  valueFlag('--std <list>', 'standard deviation per channel', passOn),
  valueFlag('--scale <factor>', 'factor on pixels 0..255: 1/255, a number, or none', passOn),
  valueFlag('--size <pixels>', 'resize: 256 or 256x192 (height x width)', passOn),
  valueFlag('--crop <pixels>', 'centre crop after resizing', passOn),
  valueFlag('--layout <name>', 'nchw or nhwc, where the model does not say', passOn),
  valueFlag('--color <name>', 'rgb, bgr or gray', passOn),
];

export const PREPROCESS_FILE_FLAG = valueFlag(
  '--preprocess <file>',
  'preprocessor_config.json, or a YAML or JSON file with the keys above',
  parseText,
);

/** The form of the flow sensitivity. */
export const SENSITIVITY_FLAGS: readonly Flag[] = [
  valueFlag(
    '--sensitivity-mode <name>',
    'flow sensitivity: corrected, or reference (the published formulas)',
    parseText,
    DEFAULTS.sensitivityMode,
  ),
  valueFlag(
    '--gradient-term <name>',
    'its gradient factor: g (norm of the gradient) or gxw (times that of the weights)',
    parseText,
    DEFAULTS.gradientTerm,
  ),
];

/** What an architecture of the zoo is built with. */
export const ARCHITECTURE_FLAGS: readonly Flag[] = [
  valueFlag('--classes <n>', 'classes of the head', parseInteger),
  valueFlag('--width <factor>', 'multiplier of the channels (transformers: of the heads)', parseNumber),
  valueFlag('--input-size <n>', 'height and width of images in pixels, length of texts in tokens', parseInteger),
  valueFlag('--channels <n>', 'channels of the images', parseInteger),
  valueFlag('--dropout <rate>', 'rate of the Dropout layers; 0 leaves them out', parseNumber),
  valueFlag('--shortcut <kind>', 'residual shortcuts: pad (no parameters) or conv (1x1)', parseText),
  valueFlag('--patch-size <n>', 'side of the patches of a vision transformer', parseInteger),
  valueFlag('--depth <n>', 'transformer layers', parseInteger),
];

/** What holds for flags that are not given. */
const GENERATION = evaluateOptionsSchema.parse({ data: '-' });

/** How models that answer with other values than class scores are compared. */
export const GENERATION_FLAGS: readonly Flag[] = [
  valueFlag(
    '--outputs <list>',
    'outputs that are compared by value, the main one first; of a VAE reconstruction, mean, log-variance (default: all, or found by name)',
    parseTextList,
  ),
  valueFlag(
    '--diffusion <schedule>',
    'the data are clean samples, the models tell the noise in noisy ones: linear:FIRST:LAST:STEPS, such as linear:0.0001:0.02:1000',
    parseText,
  ),
  valueFlag(
    '--features <model>',
    'classifier in front of whose last layer samples are compared by their Frechet distance',
    parseText,
  ),
  valueFlag(
    '--sample-range <list>',
    'values of a sample that stand for black and white, which the classifier sees as 0 and 1',
    parseNumberList,
    GENERATION.sampleRange.join(','),
  ),
  valueFlag('--samples <n>', 'samples behind the Frechet distance at most', parseInteger, GENERATION.samples),
  valueFlag(
    '--sample-steps <n>',
    'steps in which a diffusion model makes a sample',
    parseInteger,
    GENERATION.sampleSteps,
  ),
];

export const RUN_DIR_FLAGS: readonly Flag[] = [
  valueFlag('--run-dir <folder>', 'keep intermediate results here', parseText),
  switchFlag('--resume', 'continue from --run-dir'),
];

/** The last groups of help of the commands that train: data and their preparation. */
export const DATA_GROUPS: readonly { readonly heading: string; readonly flags: readonly Flag[] }[] = [
  { heading: 'Data:', flags: [...SOURCE_FLAGS, ...RUN_DIR_FLAGS] },
  { heading: 'Preprocessing of uint8 images:', flags: [...PREPROCESS_FLAGS, PREPROCESS_FILE_FLAG] },
];

/** Of the commands that take one model. */
export const MODEL_ARGUMENT = { usage: '<model>', help: 'ONNX file, or folder in the Hugging Face layout' };

/** What every command has. */
export const GENERAL_FLAGS: readonly Flag[] = [
  valueFlag('--report <file>', 'write a report: .html, .md or .json', parseText),
  switchFlag('--json', 'print exactly one JSON object on stdout'),
  switchFlag('--quiet', 'no progress on stderr'),
  switchFlag('--force', 'replace existing output files'),
];

const CONFIG_USAGE = '--config <file>';
const CONFIG_HELP = 'YAML file with flags as keys; flags on the command line win';

/** Adds flags under a heading of the help text. */
export function addFlags(command: Command, heading: string, flags: readonly Flag[]): void {
  for (const flag of flags) command.addOption(new Option(flag.usage, flag.help).helpGroup(heading));
}

/** Adds the flags that every command has. */
export function addGeneralFlags(command: Command): void {
  command.addOption(new Option(CONFIG_USAGE, CONFIG_HELP).helpGroup('General:'));
  addFlags(command, 'General:', GENERAL_FLAGS);
}

export const TEACHING_FLAG = valueFlag(
  '--teaching <name>',
  `what it learns: ${TEACHINGS.map(({ name, summary }) => `${name} (${summary})`).join(', ')}; default: hints after a cut, answers after a rounding`,
  parseText,
);
