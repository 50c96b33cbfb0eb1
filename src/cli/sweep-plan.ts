/** From combinations of options to trials that can be run: paths made whole, every option held against its command before anything runs. */
import { existsSync } from 'node:fs';
import { resolve } from 'node:path';
import type { PlannedTrials } from '../commands/sweep.js';
import { FlowCompressError } from '../errors.js';
import { MODEL, takenAs } from '../experiments/sweep-file.js';
import type { KnownOptions } from '../experiments/sweep-file.js';
import { makeTrial, METHOD, referenceTo, SEED, STUDENT, SWEPT_COMMANDS } from '../experiments/trial.js';
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

/** One command of a sweep and its trials, before they are made. */
export interface PlannedPhase {
  readonly name: string;
  readonly command: SweptCommand;
  /** Phases in front of it, on each of whose models every trial is run. */
  readonly from: readonly string[];
  readonly descriptions: readonly TrialDescription[];
}

/**
 * Trials that are ready to run.
 * @param base folder that relative paths are relative to
 * @param source what messages call the place of the options
 * @throws FlowCompressError `bad-input` for an option or a method that the command does not have or take, `io` for a file that is not there
 */
export async function planTrials(
  phases: readonly PlannedPhase[],
  { base, source }: { base: string; source: string },
  context: CliContext,
): Promise<PlannedTrials> {
  const inputs = new Set<string>();
  const made = new Map<string, Trial[]>();
  const commands: PlannedTrials['commands'] = {};
  for (const { name, command, from, descriptions } of phases) {
    const checked = sweptDefinition(command, { ...context, library: CHECKING });
    const has = (key: string): boolean =>
      checked.definition.groups.some(({ flags }) => flags.some((one) => one.key === key));
    commands[command] = { writes: has('output'), resumes: has('runDir') };
    const whole: TrialDescription[] = [];
    for (const one of descriptions) whole.push(await withWholePaths(one, { command, base, source, inputs }));
    const models = from.flatMap((phase) => (made.get(phase) ?? []).map((trial): Source => ({ phase, trial })));
    const all = from.length === 0 ? whole : models.flatMap((model) => whole.map((one) => applied(one, command, model)));
    const trials = new Map<string, Trial>();
    for (const description of all) {
      const trial = makeTrial(command, description);
      await checkTrial(checked, trial, source);
      trials.set(trial.id, trial);
    }
    made.set(name, [...trials.values()]);
  }
  const trials = [...new Map([...made.values()].flat().map((trial) => [trial.id, trial])).values()];
  return { commands, trials, inputs: [...inputs], note: planNote(trials) };
}

/**
 * The trial on what another one writes, under the seed of that one and with its labels where it has none of its own. The method of that
 * one is its own where it has none (of an evaluation), else a label that bears the name of the phase.
 */
function applied(
  { models, options, labels }: TrialDescription,
  command: SweptCommand,
  source: Source,
): TrialDescription {
  const { phase, trial } = source;
  const reference = referenceTo(trial);
  const isArgument = takenAs(command) === MODEL;
  const { [SEED]: seed } = trial.options;
  const { [METHOD]: calledThere, ...others } = trial.labels;
  const there = trial.options[METHOD] === undefined ? undefined : (calledThere ?? String(trial.options[METHOD]));
  const hasOwn = (labels[METHOD] ?? options[METHOD]) !== undefined;
  return {
    models: isArgument ? [...models, reference] : models,
    options: {
      ...(seed !== undefined && { [SEED]: seed }),
      ...options,
      ...(!isArgument && { [takenAs(command)]: reference }),
    },
    labels: { ...others, ...(there !== undefined && { [hasOwn ? phase : METHOD]: there }), ...labels },
  };
}

/** A trial that writes a model, and the phase that it is of. */
interface Source {
  readonly phase: string;
  readonly trial: Trial;
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

async function withWholePaths(
  description: TrialDescription,
  { command, base, source, inputs }: Whereabouts,
): Promise<TrialDescription> {
  const { options } = description;
  const named = command === 'train' ? description.models : [options[STUDENT] ?? []].flat().map(String);
  await refuseUnknownArchitectures(named.filter((name) => isName(name) && !existsSync(resolve(base, name))));
  const whole = (name: string, value: string, mayBeName: boolean): string => {
    const path = resolve(base, value);
    if (existsSync(path)) inputs.add(path);
    else if (mayBeName && isName(value)) return value;
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
    options: Object.fromEntries(Object.entries(options).map(place)),
    labels: description.labels,
  };
}

/** Whether it looks like the name of something, and not like a file. */
function isName(value: string): boolean {
  return !/[/\\]|\.onnx$|\.json$/i.test(value);
}

/** Students that are no architectures. */
const OTHER_STUDENTS = ['teacher', 'auto'];

async function refuseUnknownArchitectures(names: readonly string[]): Promise<void> {
  const meant = names.filter((name) => !OTHER_STUDENTS.includes(name));
  if (meant.length === 0) return;
  // Loaded when needed: `--help` starts without the architectures.
  const { architectureNamed } = await import('../commands/zoo.js');
  for (const name of meant) architectureNamed(name);
}

/** What it comes to, and the trials by name as far as there is room. */
function planNote(trials: readonly Trial[]): string {
  const different = (values: readonly (OptionValue | undefined)[]): number =>
    new Set(values.filter((value) => value !== undefined).map(String)).size;
  const names = trials.slice(0, SHOWN).map(({ name }) => `  ${name}`);
  const whatOf = (command: SweptCommand): string => {
    const own = trials.filter((one) => one.command === command);
    const parts = [
      [different(own.map(({ models }) => (models.length > 0 ? models.join() : undefined))), 'model'],
      [different(own.map(({ options }) => options[METHOD])), 'method'],
      [different(own.map(({ options }) => options[SEED])), 'seed'],
    ] as const;
    const what = parts.filter(([count]) => count > 1).map(([count, noun]) => counted(count, noun));
    return `${counted(own.length, 'trial')} of ${command}${what.length > 0 ? ` (${what.join(', ')})` : ''}`;
  };
  return [
    ...[...new Set(trials.map(({ command }) => command))].map(whatOf),
    ...names,
    ...(trials.length > SHOWN ? [`  and ${String(trials.length - SHOWN)} more`] : []),
  ].join('\n');
}

const SHOWN = 12;
