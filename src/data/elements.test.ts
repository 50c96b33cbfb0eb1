import { describe, expect, it } from 'vitest';
import type { HostData, HostType } from '../runtime/engine.js';
import { convertElements, firstNonFinite } from './elements.js';

const convert = (data: HostData, from: HostType, to: HostType): HostData =>
  convertElements(data, from, to, (i) => `value ${i}`);

describe('element conversion', () => {
  it('rounds floats to narrower floats and keeps integers exact', () => {
    expect(convert(new Float64Array([0.1, -2]), 'float64', 'float32')).toEqual(new Float32Array([0.1, -2]));
    expect(convert(new Float32Array([1, -2, 65504]), 'float32', 'float16')).toEqual(
      new Uint16Array([0x3c00, 0xc000, 0x7bff]),
    );
    expect(convert(new Uint16Array([0x3c00, 0x3555]), 'float16', 'float64')).toEqual(
      new Float64Array([1, 0.333251953125]),
    );
    expect(convert(new BigInt64Array([-5n, 7n]), 'int64', 'float32')).toEqual(new Float32Array([-5, 7]));
    expect(convert(new Int32Array([-5, 7]), 'int32', 'int64')).toEqual(new BigInt64Array([-5n, 7n]));
    expect(convert(new BigInt64Array([3n]), 'int64', 'int32')).toEqual(new Int32Array([3]));
    expect(convert(new Float32Array([3, -1]), 'float32', 'int64')).toEqual(new BigInt64Array([3n, -1n]));
  });

  it.each<[HostData, HostType, HostType, number]>([
    [new Int32Array([0, 300]), 'int32', 'uint8', 1],
    [new Int32Array([-1]), 'int32', 'uint32', 0],
    [new BigInt64Array([1n, 2n ** 40n]), 'int64', 'int32', 1],
    [new Float32Array([1, 2, 2.5]), 'float32', 'int32', 2],
    [new Float32Array([NaN]), 'float32', 'int64', 0],
    [new Uint8Array([200]), 'uint8', 'int8', 0],
    [new Uint8Array([2]), 'uint8', 'bool', 0],
  ])('refuses %o from %s to %s, naming the value', (data, from, to, at) => {
    expect(() => convert(data, from, to)).toThrow(`value ${at} is ${data[at]}`);
  });

  it('finds NaN and infinity', () => {
    expect(firstNonFinite(new Float32Array([1, 2, NaN]), 'float32')).toBe(2);
    expect(firstNonFinite(new Float64Array([1, -Infinity]), 'float64')).toBe(1);
    expect(firstNonFinite(new Uint16Array([0x3c00, 0x7c00]), 'float16')).toBe(1);
    expect(firstNonFinite(new Uint16Array([0x7c00]), 'uint16')).toBe(-1);
    expect(firstNonFinite(new Float32Array([1, 3e38]), 'float32')).toBe(-1);
  });
});
