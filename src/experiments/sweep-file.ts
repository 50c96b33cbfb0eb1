/**
 * The YAML file of a sweep: lists under `sweep` are crossed, on top of `defaults`; `overrides` change some combinations and
 * `exclude` leaves some out.
 */
import { parseDocument } from 'yaml';
import { z } from 'zod';
import { FlowCompressError } from '../errors.js';
import { nearest } from '../nearest.js';
import { describeIssues } from '../report/report.js';
import { METHOD, SEED, SWEPT_COMMANDS } from './trial.js';
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

const sweepFileSchema = z.object({
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
});
export type SweepFile = z.output<typeof sweepFileSchema>;
type Condition = z.output<typeof condition>;

/** The names of the options of each command. */
export type KnownOptions = Readonly<Record<SweptCommand, readonly string[]>>;

/**
 * Reads and checks the text of a sweep.
 * @param path what messages call it
 * @throws FlowCompressError `bad-input` for text that is not YAML, keys that nobody knows (with the nearest) and values of a wrong form
 */
export function parseSweepFile(text: string, path: string, known: KnownOptions): SweepFile {
  const refuse = refuser(path);
  const document = parseDocument(text);
  const [problem] = document.errors;
  if (problem !== undefined) throw refuse(`it is not valid YAML: ${problem.message.split('\n')[0] ?? ''}`);
  const content: unknown = document.toJS({ maxAliasCount: 100 });
  if (typeof content !== 'object' || content === null || Array.isArray(content))
    throw refuse('it must hold "key: value" lines', 'For example: command: prune');
  checkKeys(Object.keys(content), Object.keys(sweepFileSchema.shape), 'the file', refuse);
  for (const entry of 'overrides' in content && Array.isArray(content.overrides)
    ? (content.overrides as unknown[])
    : [])
    if (typeof entry === 'object' && entry !== null)
      checkKeys(Object.keys(entry), ['when', 'set'], 'overrides', refuse);
  const parsed = sweepFileSchema.safeParse(content);
  if (!parsed.success) throw refuse(describeIssues(parsed.error));
  const file = parsed.data;
  checkOptions(file, known[file.command], refuse);
  return file;
}

/** The trials of a sweep, each once, in the order of the file: the last list changes fastest. Paths are as they stand there. */
export function expandSweep(file: SweepFile, path: string): TrialDescription[] {
  const refuse = refuser(path);
  const points = Object.entries(file.sweep).reduce<Point[]>(
    (sets, [name, values]) => sets.flatMap((set) => choicesOf(name, values).map((choice) => merge(set, choice))),
    [{ options: file.defaults, labels: {} }],
  );
  const unused = new Set<Condition>([...file.overrides.map(({ when }) => when), ...file.exclude]);
  const matches = (when: Condition, point: Point): boolean => {
    const isMatch = Object.entries(when).every(([name, wanted]) => {
      const is = point.labels[name] ?? point.options[name];
      return is !== undefined && [wanted].flat().some((one) => String(one) === String(is));
    });
    if (isMatch) unused.delete(when);
    return isMatch;
  };
  const kept = points
    .filter((point) => file.exclude.filter((when) => matches(when, point)).length === 0)
    .map((point) =>
      file.overrides
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

function choicesOf(name: string, values: SweepFile['sweep'][string]): Point[] {
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
  { command, defaults, sweep, overrides, exclude }: SweepFile,
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
