/** Reading flag values. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  parseCount,
  parseDuration,
  parseInteger,
  parseMilliseconds,
  parseNumber,
  parseNumberList,
  parseSize,
  parseSwitch,
  parseText,
  parseTextList,
} from './values.js';

describe('parseSize', () => {
  it.each([
    ['400KB', 400_000],
    ['400kb', 400_000],
    ['400k', 400_000],
    ['400KiB', 409_600],
    ['1.5MB', 1_500_000],
    ['1.5 MiB', 1_572_864],
    ['2GB', 2_000_000_000],
    ['123', 123],
    ['123 B', 123],
    [4096, 4096],
  ])('%s is %i bytes', (text, bytes) => {
    expect(parseSize(text, '--max-size')).toBe(bytes);
  });

  it.each(['', 'KB', '4 00KB', '-1KB', '4KBB', '1e3KB', '0', '0.1', 'NaN', '99999999999GB', true])(
    'refuses %s by the flag name',
    (text) => {
      expect(() => parseSize(text, '--max-size')).toThrow(/--max-size must be a size/);
    },
  );

  it('reads back what it is told in bytes', () => {
    fc.assert(fc.property(fc.integer({ min: 1, max: 2 ** 50 }), (bytes) => parseSize(String(bytes), 'size') === bytes));
  });
});

describe('parseDuration', () => {
  it.each([
    ['90s', 90],
    ['10m', 600],
    ['10 min', 600],
    ['1.5h', 5400],
    ['2H', 7200],
    ['.5s', 0.5],
    ['45', 45],
    [45, 45],
  ])('%s is %f seconds', (text, seconds) => {
    expect(parseDuration(text, '--max-time')).toBe(seconds);
  });

  it.each(['', 'h', '10x', '1h30m', '-5s', '1:30', '5d', 'Infinity', true])('refuses %s by the flag name', (text) => {
    expect(() => parseDuration(text, '--max-time')).toThrow(/--max-time must be a time such as/);
  });

  it('refuses no time at all', () => {
    expect(() => parseDuration('0m', '--max-time')).toThrow(/--max-time must be a time above zero/);
  });
});

describe('parseCount and parseMilliseconds', () => {
  it.each([
    ['20M', 20e6],
    ['1.5k', 1500],
    ['2 G', 2e9],
    [7, 7],
  ])('%s is a count of %f', (text, count) => {
    expect(parseCount(text, '--max-macs')).toBe(count);
  });

  it.each([
    ['1ms', 1],
    ['0.5 MS', 0.5],
    ['2s', 2000],
    [3, 3],
  ])('%s is %f milliseconds', (text, ms) => {
    expect(parseMilliseconds(text, '--max-latency')).toBe(ms);
  });

  it.each(['', '0', '0ms', '-1', '5m', '5h', '1e3', '4KB', true])('refuse %s by the flag name', (text) => {
    expect(() => parseMilliseconds(text, '--max-latency')).toThrow(/--max-latency must be a time/);
    if (text !== '5m') expect(() => parseCount(text, '--max-macs')).toThrow(/--max-macs must be a count/);
  });
});

describe('numbers, lists and switches', () => {
  it('reads texts and YAML values alike', () => {
    expect(parseNumber('4.5', 'x')).toBe(4.5);
    expect(parseNumber(4.5, 'x')).toBe(4.5);
    expect(parseInteger('1e3', 'x')).toBe(1000);
    expect(parseNumberList('2, 3,4', 'x')).toEqual([2, 3, 4]);
    expect(parseNumberList([2, '3'], 'x')).toEqual([2, 3]);
    expect(parseNumberList(8, 'x')).toEqual([8]);
    expect(parseText(7, 'x')).toBe('7');
    expect(parseTextList('crop, flip', 'x')).toEqual(['crop', 'flip']);
    expect(parseTextList(['crop', 'flip'], 'x')).toEqual(['crop', 'flip']);
    expect(parseSwitch(true, 'x')).toBe(true);
  });

  it.each([
    () => parseNumber('four', '--flag'),
    () => parseNumber('0x10', '--flag'),
    () => parseNumber('Infinity', '--flag'),
    () => parseNumber(true, '--flag'),
    () => parseInteger('1.5', '--flag'),
    () => parseInteger('12345678901234567890', '--flag'),
    () => parseNumberList('2,,3', '--flag'),
    () => parseNumberList('', '--flag'),
    () => parseText('', '--flag'),
    () => parseText([1, 2], '--flag'),
    () => parseTextList('crop,,flip', '--flag'),
    () => parseTextList('', '--flag'),
    () => parseTextList(true, '--flag'),
    () => parseSwitch('yes', '--flag'),
  ])('refuses what is something else (%#)', (parse) => {
    expect(parse).toThrow(/^--flag must be /);
  });
});
