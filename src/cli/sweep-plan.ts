/** From combinations of options to trials that can be run: paths made whole, every option held against its command before anything runs. */
import { existsSync } from 'node:fs';
import { resolve } from 'node:path';
import type { PlannedTrials } from '../commands/sweep.js';
import { FlowCompressError } from '../errors.js';
import { MODEL } from '../experiments/sweep-file.js';
import type { KnownOptions } from '../experiments/sweep-file.js';
import { makeTrial, METHOD, SEED, SWEPT_COMMANDS } from '../experiments/trial.js';
import type { OptionValue, SweptCommand, Trial, TrialDescription } from '../experiments/trial.js';
import { counted } from '../report/format.js';
import type { Report } from '../report/report.js';
import { compressCommand } from './compress.js';
import { parseNamed } from './config.js';
import type { CliContext } from './context.js';
import { distillCommand } from './distill.js';
import { evaluateCommand } from './evaluate.js';
import { flagName } from './flags.js';
import type { Flag } from './flags.js';
import type { Library } from './library-types.js';
import { pruneCommand } from './prune.js';
import { quantizeCommand } from './quantize.js';
import type { CommandDefinition } from './run-command.js';
import { trainCommand } from './train.js';

/** Set for every trial by whoever runs it. */
const OWN = ['output', 'runDir', 'resume'];

/** The command as a sweep runs it. */
export interface SweptDefinition {
  readonly command: SweptCommand;
  readonly definition: CommandDefinition<Report>;
  /** The flags that a trial may set. */
  readonly flags: readonly Flag[];
  /** How many models it takes as arguments. */
  readonly models: 'none' | 'one' | 'several';
}

export function sweptDefinition(command: SweptCommand, context: CliContext): SweptDefinition {
  const definition = definitionOf(command, context);
  const usage = definition.argument?.usage;
  return {
    ...{ command, definition, models: usage === undefined ? 'none' : usage.includes('...') ? 'several' : 'one' },
    flags: definition.groups.flatMap(({ flags }) => flags).filter(({ key }) => !OWN.includes(key)),
  };
}

function definitionOf(command: SweptCommand, context: CliContext): CommandDefinition<Report> {
  switch (command) {
    case 'quantize':
      return quantizeCommand(context);
    case 'prune':
      return pruneCommand(context);
    case 'distill':
      return distillCommand(context);
    case 'compress':
      return compressCommand(context);
    case 'train':
      return trainCommand(context);
    case 'evaluate':
      return evaluateCommand(context);
  }
}

/** The keys that a sweep of each command may have. */
export function knownOptions(context: CliContext): KnownOptions {
  const keysOf = (command: SweptCommand): [SweptCommand, string[]] => {
    const { flags, models } = sweptDefinition(command, context);
    return [command, [...(models === 'none' ? [] : [MODEL]), ...flags.map(({ key }) => nameOf(key))]];
  };
  return Object.fromEntries(SWEPT_COMMANDS.map(keysOf)) as Record<SweptCommand, string[]>;
}

/** `maxSize` -> `max-size`. */
export function nameOf(key: string): string {
  return flagName(key).slice(2);
}

/**
 * Trials that are ready to run.
 * @param base folder that relative paths are relative to
 * @param source what messages call the place of the options
 * @throws FlowCompressError `bad-input` for an option or a method that the command does not have or take, `io` for a file that is not there
 */
export async function planTrials(
  { command }: SweptDefinition,
  descriptions: readonly TrialDescription[],
  { base, source }: { base: string; source: string },
  context: CliContext,
): Promise<PlannedTrials> {
  const checked = sweptDefinition(command, { ...context, library: CHECKING });
  const inputs = new Set<string>();
  const trials = new Map<string, Trial>();
  for (const description of descriptions) {
    const trial = makeTrial(command, withWholePaths(description, { command, base, source, inputs }));
    await checkTrial(checked, trial, source);
    trials.set(trial.id, trial);
  }
  const has = (key: string): boolean =>
    checked.definition.groups.some(({ flags }) => flags.some((one) => one.key === key));
  const list = [...trials.values()];
  return {
    ...{ command, writes: has('output'), resumes: has('runDir'), trials: list, inputs: [...inputs] },
    note: planNote(command, list),
  };
}

async function checkTrial(
  { command, definition, flags, models }: SweptDefinition,
  trial: Trial,
  source: string,
): Promise<void> {
  const refuse = (reason: string): FlowCompressError =>
    new FlowCompressError('bad-input', `${trial.name} in ${source} cannot run: ${reason}`, { node: source });
  if (models !== 'none' && trial.models.length === 0) throw refuse(`"${MODEL}" is missing.`);
  if (models === 'one' && trial.models.length > 1) throw refuse(`${command} takes one model at a time.`);
  try {
    const values = parseNamed(trial.options, source, flags);
    await definition.call([...trial.models], { ...values, output: '-' }, {});
  } catch (error) {
    if (!(error instanceof FlowCompressError)) throw error;
    throw new FlowCompressError(error.code, `${trial.name} in ${source} cannot run: ${error.message}`, {
      node: source,
      ...(error.hint !== undefined && { hint: error.hint }),
      cause: error,
    });
  }
}

const nothing = (): Promise<never> => Promise.resolve(undefined as never);

/** A library that does nothing: what a command refuses before it calls the library is refused all the same. */
const CHECKING: Library = {
  ...{ inspectModel: nothing, evaluateModels: nothing, profileModel: nothing, quantizeModel: nothing },
  ...{ pruneModel: nothing, compressModel: nothing, distillModel: nothing, trainModel: nothing },
  ...{ runSweep: nothing, helpSweep: nothing },
};

/** Options that are files or folders which must be there, that may be files or names, and that are made. */
const READ = new Set(['data', 'test', 'preprocess', 'teacher']);
const MAY_BE_READ = new Set(['student', 'mapping']);
const WRITTEN = new Set(['cache-teacher']);

interface Whereabouts {
  readonly command: SweptCommand;
  readonly base: string;
  readonly source: string;
  /** Gets the files that are read. */
  readonly inputs: Set<string>;
}

function withWholePaths(
  description: TrialDescription,
  { command, base, source, inputs }: Whereabouts,
): TrialDescription {
  const whole = (name: string, value: string, mayBeName: boolean): string => {
    const path = resolve(base, value);
    if (existsSync(path)) inputs.add(path);
    else if (mayBeName && !/[/\\]|\.onnx$|\.json$/i.test(value)) return value;
    else
      throw new FlowCompressError('io', `${name} in ${source} is not there: ${path}`, {
        node: path,
        hint: `Relative paths are relative to ${base}.`,
      });
    return path;
  };
  const place = ([name, value]: [string, OptionValue]): [string, OptionValue] => {
    if (typeof value !== 'string') return [name, value];
    if (WRITTEN.has(name)) return [name, resolve(base, value)];
    return [name, READ.has(name) || MAY_BE_READ.has(name) ? whole(name, value, MAY_BE_READ.has(name)) : value];
  };
  return {
    models: description.models.map((model) => whole(MODEL, model, command === 'train')),
    options: Object.fromEntries(Object.entries(description.options).map(place)),
    labels: description.labels,
  };
}

/** What it comes to, and the trials by name as far as there is room. */
function planNote(command: SweptCommand, trials: readonly Trial[]): string {
  const different = (values: readonly (OptionValue | undefined)[]): number =>
    new Set(values.filter((value) => value !== undefined).map(String)).size;
  const parts = [
    [different(trials.map(({ models }) => (models.length > 0 ? models.join() : undefined))), 'model'],
    [different(trials.map(({ options }) => options[METHOD])), 'method'],
    [different(trials.map(({ options }) => options[SEED])), 'seed'],
  ] as const;
  const what = parts.filter(([count]) => count > 1).map(([count, noun]) => counted(count, noun));
  const names = trials.slice(0, SHOWN).map(({ name }) => `  ${name}`);
  return [
    `${counted(trials.length, 'trial')} of ${command}${what.length > 0 ? ` (${what.join(', ')})` : ''}`,
    ...names,
    ...(trials.length > SHOWN ? [`  and ${String(trials.length - SHOWN)} more`] : []),
  ].join('\n');
}

const SHOWN = 12;
