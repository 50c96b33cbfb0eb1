import { describe, expect, it } from 'vitest';
import type { ValueSignature } from './engine.js';
import { fixedBatchOf, pickRows, takeRows } from './rows.js';

describe('takeRows', () => {
  it('takes the first rows of every tensor and starts over at the end', () => {
    const feeds = {
      a: { type: 'float32' as const, dims: [2, 2], data: Float32Array.of(1, 2, 3, 4) },
      b: { type: 'int64' as const, dims: [2], data: BigInt64Array.of(7n, 8n) },
    };
    expect(takeRows(feeds, 3)).toEqual({
      a: { type: 'float32', dims: [3, 2], data: Float32Array.of(1, 2, 3, 4, 1, 2) },
      b: { type: 'int64', dims: [3], data: BigInt64Array.of(7n, 8n, 7n) },
    });
    expect(takeRows(feeds, 1).a.data).toEqual(Float32Array.of(1, 2));
  });

  it('copies: the source may be a part of a larger buffer', () => {
    const data = Float32Array.of(9, 1, 2).subarray(1);
    const { a } = takeRows({ a: { type: 'float32', dims: [2], data } }, 2);
    data[0] = 5;
    expect(a.data).toEqual(Float32Array.of(1, 2));
  });
});

describe('pickRows', () => {
  it('takes rows by their numbers, in that order, and starts over beyond the last', () => {
    const feeds = { a: { type: 'float32' as const, dims: [3, 2], data: Float32Array.of(1, 2, 3, 4, 5, 6) } };
    expect(pickRows(feeds, [2, 0, 4]).a).toEqual({ ...feeds.a, data: Float32Array.of(5, 6, 1, 2, 3, 4) });
  });
});

describe('fixedBatchOf', () => {
  const input = (name: string, ...dims: (number | string)[]): ValueSignature => ({ name, type: 'float32', dims });

  it('is the number all inputs insist on, if any does', () => {
    expect(fixedBatchOf([input('a', 'N', 3)])).toBeUndefined();
    expect(fixedBatchOf([input('a', -1, 3)])).toBeUndefined();
    expect(fixedBatchOf([input('a', 4, 3), input('b', 'N')])).toBe(4);
    expect(() => fixedBatchOf([input('a', 4), input('b', 1)])).toThrow(/a \(4\) and b \(1\) differ/);
  });
});
