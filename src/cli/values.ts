/** How flag values are read, from the command line (text) or from a configuration file (numbers, lists, booleans). */
import { FlowCompressError } from '../errors.js';

const SECONDS: Readonly<Record<string, number>> = { '': 1, s: 1, m: 60, min: 60, h: 3600 };

/** A value as it was given. */
export type RawValue = string | number | boolean | readonly (string | number)[];

/** Turns a raw value into the option's type; `name` is what messages call it. */
export type Parser = (value: RawValue, name: string) => unknown;

const UNITS: Readonly<Record<string, number>> = {
  ...{ '': 1, b: 1, k: 1e3, kb: 1e3, m: 1e6, mb: 1e6, g: 1e9, gb: 1e9 },
  ...{ kib: 1024, mib: 1024 ** 2, gib: 1024 ** 3 },
};

/** Bytes of `400KB` (1 KB = 1000 bytes), `1.5 MiB` (1 MiB = 1024 x 1024 bytes) or a plain number of bytes. */
export function parseSize(value: RawValue, name: string): number {
  const parts = numberAndUnit(value);
  const scale = parts === undefined ? undefined : UNITS[parts.unit];
  if (parts === undefined || scale === undefined) throw wrong(name, value, 'a size such as 400KB, 1.5MB or 512KiB');
  const bytes = Math.floor(parts.number * scale);
  if (bytes < 1 || !Number.isSafeInteger(bytes)) throw wrong(name, value, 'a size of at least one byte');
  return bytes;
}

const COUNTS: Readonly<Record<string, number>> = { '': 1, k: 1e3, m: 1e6, g: 1e9 };

/** A count of `20M`, `1.5k`, `2G` or a plain number. */
export function parseCount(value: RawValue, name: string): number {
  const parts = numberAndUnit(value);
  const scale = parts === undefined ? undefined : COUNTS[parts.unit];
  if (parts === undefined || scale === undefined) throw wrong(name, value, 'a count such as 20M or 1.5G');
  if (parts.number === 0) throw wrong(name, value, 'a count above zero');
  return parts.number * scale;
}

/** Milliseconds of `1ms`, `0.5 ms`, `2s` or a plain number of milliseconds. */
export function parseMilliseconds(value: RawValue, name: string): number {
  const parts = numberAndUnit(value);
  const scale = parts && { '': 1, ms: 1, s: 1000 }[parts.unit];
  if (!parts || scale === undefined) throw wrong(name, value, 'a time such as 1ms or 0.5ms');
  if (parts.number === 0) throw wrong(name, value, 'a time above zero');
  return parts.number * scale;
}

/** Seconds of `90s`, `10m` (or `10min`), `1.5h` or a plain number of seconds. */
export function parseDuration(value: RawValue, name: string): number {
  const parts = numberAndUnit(value);
  const scale = parts === undefined ? undefined : SECONDS[parts.unit];
  if (parts === undefined || scale === undefined) throw wrong(name, value, 'a time such as 90s, 10m or 1.5h');
  const seconds = parts.number * scale;
  if (seconds === 0) throw wrong(name, value, 'a time above zero');
  return seconds;
}

export function parseNumber(value: RawValue, name: string): number {
  const number = toNumber(value);
  if (number === undefined) throw wrong(name, value, 'a number');
  return number;
}

export function parseInteger(value: RawValue, name: string): number {
  const number = toNumber(value);
  if (number === undefined || !Number.isSafeInteger(number)) throw wrong(name, value, 'a whole number');
  return number;
}

/** `2,3,4` or a list. */
export function parseNumberList(value: RawValue, name: string): number[] {
  const parts = isList(value) ? value : typeof value === 'string' ? value.split(',') : [value];
  const numbers = parts.map(toNumber).filter((number) => number !== undefined);
  if (numbers.length === 0 || numbers.length !== parts.length) throw wrong(name, value, 'numbers separated by commas');
  return numbers;
}

/** `crop,flip` or a list. */
export function parseTextList(value: RawValue, name: string): string[] {
  const parts = isList(value) ? value.map(String) : typeof value === 'string' ? value.split(',') : [];
  const texts = parts.map((part) => part.trim());
  if (texts.length === 0 || texts.includes('')) throw wrong(name, value, 'names separated by commas');
  return texts;
}

/**
 * `a=1,2 b=3` as {a: ['1', '2'], b: ['3']}.
 * @throws FlowCompressError `bad-input` for a part of another form
 */
export function combinedValues(text: string, name: string): Record<string, string[]> {
  const parts = text.split(/\s+/).filter((part) => part !== '');
  return Object.fromEntries(
    parts.map((part) => {
      const [, key, list] = /^(?:--)?([^=]+)=(.+)$/.exec(part) ?? [];
      const values = list?.split(',') ?? [];
      if (key === undefined || values.length === 0 || values.includes(''))
        throw new FlowCompressError('bad-input', `${name} has "${part}", which is not name=value,value.`, {
          hint: `For example: ${name} "reduce=0.5,0.7 score=obs,l1"`,
        });
      return [key, values];
    }),
  );
}

export function parseText(value: RawValue, name: string): string {
  if (isList(value) || typeof value === 'boolean' || value === '') throw wrong(name, value, 'a text');
  return String(value);
}

export function parseSwitch(value: RawValue, name: string): boolean {
  if (typeof value !== 'boolean') throw wrong(name, value, 'true or false');
  return value;
}

/** Passes the value on to a schema that reads texts, numbers and lists itself. */
export function passOn(value: RawValue): RawValue {
  return value;
}

function isList(value: RawValue): value is readonly (string | number)[] {
  return Array.isArray(value);
}

function toNumber(value: RawValue): number | undefined {
  if (typeof value === 'number') return Number.isFinite(value) ? value : undefined;
  if (typeof value !== 'string' || !/^\s*[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?\s*$/i.test(value)) return undefined;
  return Number(value);
}

/** `1.5 MiB` as 1.5 and `mib`; the unit may be empty. */
function numberAndUnit(value: RawValue): { number: number; unit: string } | undefined {
  const match = /^\s*(\d+(?:\.\d+)?|\.\d+)\s*([a-z]*)\s*$/i.exec(scalarText(value));
  return match === null ? undefined : { number: Number(match[1]), unit: match[2].toLowerCase() };
}

function scalarText(value: RawValue): string {
  return typeof value === 'string' || typeof value === 'number' ? String(value) : '';
}

function wrong(name: string, value: RawValue, expected: string): FlowCompressError {
  const given = isList(value) ? value.join(',') : String(value);
  return new FlowCompressError('bad-input', `${name} must be ${expected}, not "${given}".`);
}
