/** Numbers as text. */
import { describe, expect, it } from 'vitest';
import { top1 } from '../testing/reports.js';
import {
  baseName,
  formatBytes,
  formatCount,
  formatMetricChange,
  formatMs,
  formatRatio,
  formatSeconds,
  printable,
  shortLayerName,
  counted,
  shortNumber,
  significant,
  truncateMiddle,
} from './format.js';

describe('format', () => {
  it('uses decimal byte units and rounds', () => {
    expect([0, 999, 1000, 1_099_247, 152_999].map(formatBytes)).toEqual(['0 B', '999 B', '1 kB', '1.1 MB', '153 kB']);
  });

  it('writes counts, times and durations', () => {
    expect([650, 272_474, 40_813_184, 4.1e9].map(formatCount)).toEqual(['650', '272 k', '40.8 M', '4.10 G']);
    expect([0.0421, 1.01, 59.12, 1234].map(formatMs)).toEqual(['0.0421 ms', '1.01 ms', '59.1 ms', '1.23 s']);
    expect([0.04, 75.4, 725, 7380].map(formatSeconds)).toEqual(['0.0 s', '75 s', '12 min 05 s', '2 h 03 min']);
    expect([0, 1.2e-7, 0.00012345, 123456].map((value) => significant(value, 3))).toEqual([
      '0',
      '1.20e-7',
      '0.000123',
      '123456',
    ]);
  });

  it('writes small numbers short and nouns in their number', () => {
    expect([0, 0.1, 0.001, 0.00012345, 2.45e-5, -1e-7].map((value) => shortNumber(value, 3))).toEqual([
      '0',
      '0.1',
      '0.001',
      '0.000123',
      '2.45e-5',
      '-1e-7',
    ]);
    expect([0, 1, 1234].map((n) => counted(n, 'epoch'))).toEqual(['0 epochs', '1 epoch', '1,234 epochs']);
  });

  it('gives changes of fractions in percentage points with a sign', () => {
    expect(formatMetricChange(top1(0.9173), top1(0.9123))).toBe('−0.50 pp');
    expect(formatMetricChange(top1(0.9), top1(0.91))).toBe('+1.00 pp');
    expect(formatMetricChange(top1(0.9), top1(0.9))).toBe('±0.00 pp');
  });

  it('says which way a ratio goes', () => {
    expect(formatRatio(1000, 125, 'smaller', 'larger')).toBe('8.00x smaller');
    expect(formatRatio(1, 2, 'faster', 'slower')).toBe('2.00x slower');
    expect(formatRatio(5, 5, 'smaller', 'larger')).toBe('same');
    expect(formatRatio(0, 5, 'smaller', 'larger')).toBeUndefined();
  });

  it('shortens names', () => {
    expect(shortLayerName('/layer1/layer1.0/conv1/Conv', 'Conv')).toBe('layer1.0/conv1');
    expect(shortLayerName('/Conv_3', 'Conv')).toBe('Conv_3');
    expect(shortLayerName('', 'Gemm')).toBe('Gemm');
    expect(truncateMiddle('abcdefghij', 7)).toHaveLength(7);
    expect(truncateMiddle('abc', 7)).toBe('abc');
    expect(baseName('C:\\models\\a.onnx')).toBe('a.onnx');
    expect(baseName('models/dir/')).toBe('dir');
  });

  it('takes escape sequences out of names', () => {
    expect(printable('a\u001b[31mb\nc')).toBe('a [31mb c');
  });
});
