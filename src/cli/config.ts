/** `--config file.yaml`: the same keys as the flags. Reads, checks and merges it with the command line, which wins. */
import { readFile } from 'node:fs/promises';
import { parseDocument } from 'yaml';
import { FlowCompressError, messageOf } from '../errors.js';
import { flagName } from './flags.js';
import type { Flag } from './flags.js';
import { nearest } from '../nearest.js';
import type { RawValue } from './values.js';

/** Parsed flag values by key; flags that were not given are absent. */
export type FlagValues = Readonly<Record<string, unknown>>;

/**
 * Values of the command line over those of the configuration file, each read by its flag's parser.
 * @param given raw values from the command line by key, `config` among them
 * @throws FlowCompressError `io` when the file cannot be read, `bad-input` when it is not YAML or has an unknown or bad key
 */
export async function collectFlags(
  flags: readonly Flag[],
  given: Readonly<Record<string, unknown>>,
): Promise<FlagValues> {
  const path = given.config;
  const base = typeof path === 'string' ? parseConfig(await readConfig(path), path, flags) : {};
  const values: Record<string, unknown> = { ...base };
  for (const flag of flags) {
    const raw = given[flag.key];
    if (raw !== undefined) values[flag.key] = flag.parse(asRaw(raw, flagName(flag.key)), flagName(flag.key));
  }
  return values;
}

/**
 * The values of a configuration text.
 * @throws FlowCompressError `bad-input` naming the key, with the nearest known one when there is a similar one
 */
export function parseConfig(text: string, path: string, flags: readonly Flag[]): FlagValues {
  const document = parseDocument(text);
  const [problem] = document.errors;
  if (problem !== undefined) {
    throw new FlowCompressError('bad-input', `${path} is not valid YAML: ${problem.message.split('\n')[0]}`, {
      node: path,
    });
  }
  const content: unknown = document.toJS({ maxAliasCount: 100 });
  if (content === null || content === undefined) return {};
  if (typeof content !== 'object' || Array.isArray(content)) {
    throw new FlowCompressError('bad-input', `${path} must hold "key: value" lines with flags as keys.`, {
      node: path,
      hint: 'For example: bits: 4',
    });
  }
  return parseNamed(content, path, flags);
}

/**
 * Values by the names of the flags, each read by its flag's parser.
 * @param path what messages call the place that they come from
 * @throws FlowCompressError `bad-input` naming the key, with the nearest known one when there is a similar one
 */
export function parseNamed(content: object, path: string, flags: readonly Flag[]): FlagValues {
  const values: Record<string, unknown> = {};
  for (const [name, raw] of Object.entries(content)) {
    const flag = flags.find((one) => flagName(one.key) === `--${name}`);
    if (flag === undefined) throw unknownKey(name, path, flags);
    const label = `${name} in ${path}`;
    values[flag.key] = flag.parse(asRaw(raw, label), label);
  }
  return values;
}

async function readConfig(path: string): Promise<string> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    throw new FlowCompressError('io', `${path} cannot be read: ${messageOf(error)}`, {
      node: path,
      hint: 'Give --config the path of a YAML file.',
      cause: error,
    });
  }
}

function unknownKey(name: string, path: string, flags: readonly Flag[]): FlowCompressError {
  const known = flags.map((flag) => flagName(flag.key).slice(2));
  const near = nearest(name, known);
  return new FlowCompressError('bad-input', `Unknown key "${name}" in ${path}.`, {
    node: path,
    hint: near === undefined ? `Known keys: ${known.join(', ')}.` : `Did you mean "${near}"?`,
  });
}

function asRaw(value: unknown, name: string): RawValue {
  if (typeof value === 'string' || typeof value === 'number' || typeof value === 'boolean') return value;
  if (Array.isArray(value) && value.every((item) => typeof item === 'string' || typeof item === 'number')) return value;
  throw new FlowCompressError('bad-input', `${name} must be one value or a list of values.`);
}
