/**
 * The YAML file of a sweep: lists under `sweep` are crossed, on top of `defaults`; `overrides` change some combinations and
 * `exclude` leaves some out. Under `phases` several such sweeps stand behind each other, each with a command of its own; one with
 * `from` is run on every model that another phase wrote.
 */
import { parseDocument } from 'yaml';
import { z } from 'zod';
import { FlowCompressError } from '../errors.js';
import { nearest } from '../nearest.js';
import { describeIssues } from '../report/report.js';
import { METHOD, SEED, SWEPT_COMMANDS, TEACHER } from './trial.js';
import type { OptionValue, SweptCommand, TrialDescription, TrialOptions } from './trial.js';

/** The key of the model, or of the models, that a command takes as arguments. */
export const MODEL = 'model';

const scalar = z.union([z.string(), z.number(), z.boolean()]);
const value = z.union([scalar, z.array(z.union([z.string(), z.number()]))]);
const options = z.record(z.string(), value);
/** Values that are gone through, or sets of options by name. */
const axis = z.union([scalar, z.array(scalar).min(1), z.record(z.string(), options.nullable())]);
/** An option (or named set) and the values of it that are meant. */
const condition = z.record(z.string(), z.union([scalar, z.array(scalar).min(1)]));

const phaseFields = {
  command: z.enum(SWEPT_COMMANDS),
  defaults: options.nullish().transform((given) => given ?? {}),
  sweep: z
    .record(z.string(), axis)
    .nullish()
    .transform((given) => given ?? {}),
  overrides: z
    .array(z.object({ when: condition, set: options }))
    .nullish()
    .transform((given) => given ?? []),
  exclude: z
    .array(condition)
    .nullish()
    .transform((given) => given ?? []),
};
const singleSchema = z.object(phaseFields);
const phaseSchema = z.object({
  ...phaseFields,
  /** Phases further up whose models are taken. */
  from: z
    .union([z.string(), z.array(z.string()).min(1)])
    .optional()
    .transform((given) => [given ?? []].flat()),
});
const phasesSchema = z.object({
  /** For every phase whose command has the option. */
  defaults: phaseFields.defaults,
  phases: z.record(z.string(), phaseSchema),
});

/** One command of a sweep with what is gone through. */
export type SweepPhase = z.output<typeof phaseSchema> & { readonly name: string };
type Condition = z.output<typeof condition>;

/** The names of the options of each command. */
export type KnownOptions = Readonly<Record<SweptCommand, readonly string[]>>;

/**
 * Reads and checks the text of a sweep.
 * @param path what messages call it
 * @throws FlowCompressError `bad-input` for text that is not YAML, keys that nobody knows (with the nearest) and values of a wrong form
 */
export function parseSweepFile(text: string, path: string, known: KnownOptions): SweepPhase[] {
  const refuse = refuser(path);
  const document = parseDocument(text);
  const [problem] = document.errors;
  if (problem !== undefined) throw refuse(`it is not valid YAML: ${problem.message.split('\n')[0] ?? ''}`);
  const content: unknown = document.toJS({ maxAliasCount: 100 });
  if (!isMapping(content)) throw refuse('it must hold "key: value" lines', 'For example: command: prune');
  const phases = 'phases' in content ? severalPhases(content, known, refuse) : [onePhase(content, refuse)];
  phases.forEach((phase, i) => {
    for (const from of phase.from) checkSource(from, phases.slice(0, i), phase, refuse);
    checkOptions(phase, freeOptions(phase, known), refuse);
  });
  return phases;
}

function isMapping(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function onePhase(content: Record<string, unknown>, refuse: Refuse): SweepPhase {
  checkPhaseKeys(content, Object.keys(singleSchema.shape), 'the file', refuse);
  const phase = parsed(singleSchema, content, refuse);
  return { name: phase.command, from: [], ...phase };
}

function severalPhases(content: Record<string, unknown>, known: KnownOptions, refuse: Refuse): SweepPhase[] {
  checkKeys(Object.keys(content), Object.keys(phasesSchema.shape), 'the file, beside phases', refuse);
  if (isMapping(content['phases']))
    for (const [name, phase] of Object.entries(content['phases']))
      if (isMapping(phase)) checkPhaseKeys(phase, Object.keys(phaseSchema.shape), `phase ${name}`, refuse);
  const { defaults, phases } = parsed(phasesSchema, content, refuse);
  const named = Object.entries(phases).map(([name, phase]): SweepPhase => ({ name, ...phase }));
  if (named.length === 0) throw refuse('it has no phases');
  const ofAny = [...new Set(named.flatMap((phase) => freeOptions(phase, known)))];
  checkKeys(Object.keys(defaults), ofAny, 'defaults', refuse);
  return named.map((phase) => {
    const free = freeOptions(phase, known);
    // The seed comes with the model.
    const isFitting = (name: string): boolean => free.includes(name) && !(name === SEED && phase.from.length > 0);
    const fitting = Object.entries(defaults).filter(([name]) => isFitting(name));
    return { ...phase, defaults: { ...Object.fromEntries(fitting), ...phase.defaults } };
  });
}

function checkPhaseKeys(
  content: Record<string, unknown>,
  known: readonly string[],
  where: string,
  refuse: Refuse,
): void {
  checkKeys(Object.keys(content), known, where, refuse);
  const { overrides } = content;
  for (const entry of Array.isArray(overrides) ? (overrides as unknown[]) : [])
    if (isMapping(entry)) checkKeys(Object.keys(entry), ['when', 'set'], 'overrides', refuse);
}

function parsed<T>(schema: z.ZodType<T>, content: unknown, refuse: Refuse): T {
  const result = schema.safeParse(content);
  if (!result.success) throw refuse(describeIssues(result.error));
  return result.data;
}

/** The option that gets the models of another phase. */
export function takenAs(command: SweptCommand): typeof TEACHER | typeof MODEL {
  return command === 'distill' ? TEACHER : MODEL;
}

/** The options that a phase may set: the models that it has from another phase are not for it to say, but what these are compared with is. */
export function freeOptions({ command, from }: Pick<SweepPhase, 'command' | 'from'>, known: KnownOptions): string[] {
  const taken = from.length > 0 && command !== 'evaluate' ? takenAs(command) : undefined;
  return known[command].filter((name) => name !== taken);
}

/** A phase takes models of phases above it that write some. */
function checkSource(from: string, above: readonly SweepPhase[], { name }: SweepPhase, refuse: Refuse): void {
  const writing = above.filter(({ command }) => command !== 'evaluate').map((phase) => phase.name);
  if (writing.includes(from)) return;
  const near = nearest(from, writing);
  throw refuse(
    `phase ${name} takes models from "${from}", which is no phase above it that writes some`,
    near === undefined ? `There are: ${writing.join(', ') || 'none'}.` : `Did you mean "${near}"?`,
  );
}

/** The trials of a phase, each once, in the order of the file: the last list changes fastest. Paths are as they stand there. */
export function expandSweep(phase: SweepPhase, path: string): TrialDescription[] {
  const refuse = refuser(path);
  const points = Object.entries(phase.sweep).reduce<Point[]>(
    (sets, [name, values]) => sets.flatMap((set) => choicesOf(name, values).map((choice) => merge(set, choice))),
    [{ options: phase.defaults, labels: {} }],
  );
  const unused = new Set<Condition>([...phase.overrides.map(({ when }) => when), ...phase.exclude]);
  const matches = (when: Condition, point: Point): boolean => {
    const isMatch = Object.entries(when).every(([name, wanted]) => {
      const is = point.labels[name] ?? point.options[name];
      return is !== undefined && [wanted].flat().some((one) => String(one) === String(is));
    });
    if (isMatch) unused.delete(when);
    return isMatch;
  };
  const kept = points
    .filter((point) => phase.exclude.filter((when) => matches(when, point)).length === 0)
    .map((point) =>
      phase.overrides
        .filter(({ when }) => matches(when, point))
        .reduce<Point>((changed, { set }) => ({ ...changed, options: { ...changed.options, ...set } }), point),
    );
  const [never] = unused;
  if (never !== undefined)
    throw refuse(
      `no trial has ${Object.entries(never)
        .map(([name, wanted]) => `${name}: ${[wanted].flat().join(' or ')}`)
        .join(', ')}`,
      'Correct the condition: its values must be some that the sweep goes through.',
    );
  // Overrides can make two alike: the first one stays.
  const unique = new Map(
    kept.toReversed().map((point) => [JSON.stringify(Object.entries(point.options).sort()), point]),
  );
  if (unique.size === 0) throw refuse('no trial is left', 'Remove a line under exclude.');
  return [...unique.values()].toReversed().map(({ options: all, labels }) => {
    const { [MODEL]: model, ...rest } = all;
    const models = model === undefined ? [] : [model].flat().map(String);
    return { models, options: rest, labels };
  });
}

/** A combination: its options, and what tables call its values. */
interface Point {
  readonly options: TrialOptions;
  readonly labels: Readonly<Record<string, string>>;
}

/** These have columns of their own. */
const OWN_COLUMNS = new Set([MODEL, METHOD, SEED]);

function choicesOf(name: string, values: SweepPhase['sweep'][string]): Point[] {
  if (typeof values === 'object' && !Array.isArray(values))
    return Object.entries(values).map(([label, set]) => ({ options: set ?? {}, labels: { [name]: label } }));
  return [values].flat().map((one) => ({
    options: { [name]: one },
    labels: OWN_COLUMNS.has(name) ? {} : { [name]: String(one) },
  }));
}

function merge(a: Point, b: Point): Point {
  return { options: { ...a.options, ...b.options }, labels: { ...a.labels, ...b.labels } };
}

type Refuse = (reason: string, hint?: string) => FlowCompressError;

function refuser(path: string): Refuse {
  return (reason, hint) =>
    new FlowCompressError('bad-input', `The sweep in ${path} cannot be used: ${reason}.`, {
      node: path,
      hint: hint ?? 'README.md shows a sweep in full.',
    });
}

/** Every option of the file is one of the command's; a named set stands for the options in it. */
function checkOptions(
  { command, defaults, sweep, overrides, exclude }: SweepPhase,
  all: readonly string[],
  refuse: Refuse,
): void {
  const known = [...all];
  const sets = Object.entries(sweep).filter(([, values]) => typeof values === 'object' && !Array.isArray(values));
  const names = sets.map(([name]) => name);
  for (const name of names)
    if (known.includes(name)) throw refuse(`"${name}" names sets of options but is an option of ${command} itself`);
  const check = (keys: readonly string[], where: string, more: readonly string[] = []): void =>
    checkKeys(keys, [...known, ...more], `${where} (${command})`, refuse);
  check(Object.keys(defaults), 'defaults');
  check(Object.keys(sweep), 'sweep', names);
  for (const [name, values] of sets)
    for (const [label, set] of Object.entries(values))
      check(Object.keys((set as OptionValue | null) ?? {}), `${name}, ${label}`);
  for (const { when, set } of overrides) {
    check(Object.keys(when), 'overrides', names);
    check(Object.keys(set), 'overrides');
  }
  for (const when of exclude) check(Object.keys(when), 'exclude', names);
}

function checkKeys(keys: readonly string[], known: readonly string[], where: string, refuse: Refuse): void {
  const unknown = keys.find((key) => !known.includes(key));
  if (unknown === undefined) return;
  const near = nearest(unknown, known);
  throw refuse(
    `unknown key "${unknown}" in ${where}`,
    near === undefined ? `Known keys: ${known.join(', ')}.` : `Did you mean "${near}"?`,
  );
}
