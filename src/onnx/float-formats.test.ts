import { describe, expect, it } from 'vitest';
import fc from 'fast-check';
import { DataType } from './dtypes.js';
import {
  bfloat16ToFloat32,
  float16ToFloat32,
  float32ToBfloat16,
  float32ToFloat16,
  smallFloatsToFloat32,
} from './float-formats.js';

const allBits = Uint16Array.from({ length: 65536 }, (_, i) => i);

/** The value of a binary float by the definition of IEEE 754. */
function valueOf(bits: number, exponentBits: number, mantissaBits: number): number {
  const bias = 2 ** (exponentBits - 1) - 1;
  const sign = bits >> (exponentBits + mantissaBits) ? -1 : 1;
  const exponent = (bits >> mantissaBits) & (2 ** exponentBits - 1);
  const fraction = (bits & (2 ** mantissaBits - 1)) / 2 ** mantissaBits;
  if (exponent === 2 ** exponentBits - 1) return fraction ? NaN : sign * Infinity;
  return exponent === 0 ? sign * fraction * 2 ** (1 - bias) : sign * (1 + fraction) * 2 ** (exponent - bias);
}

/** Nearest representable magnitude, ties to the even pattern, by search. */
function nearestBits(value: number, table: readonly number[]): number {
  const magnitude = Math.abs(value);
  let low = 0;
  let high = table.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (table[middle] <= magnitude) low = middle;
    else high = middle;
  }
  const toLow = magnitude - table[low];
  const toHigh = table[high] - magnitude;
  const bits = toLow < toHigh || (toLow === toHigh && low % 2 === 0) ? low : high;
  return Object.is(Math.sign(value), -1) || Object.is(value, -0) ? bits | 0x8000 : bits;
}

describe.each([
  { name: 'float16', decode: float16ToFloat32, encode: float32ToFloat16, exponent: 5, mantissa: 10 },
  { name: 'bfloat16', decode: bfloat16ToFloat32, encode: float32ToBfloat16, exponent: 8, mantissa: 7 },
])('$name', ({ decode, encode, exponent, mantissa }) => {
  it('decodes every pattern to its defined value', () => {
    const decoded = decode(allBits);
    for (let i = 0; i < 65536; i++) {
      const expected = valueOf(i, exponent, mantissa);
      if (!Object.is(decoded[i], expected)) throw new Error(`pattern ${i}: ${decoded[i]} instead of ${expected}`);
    }
  });

  it('gives every pattern back after a round trip; NaN stays NaN', () => {
    const decoded = decode(allBits);
    const back = encode(decoded);
    for (let i = 0; i < 65536; i++) {
      if (Number.isNaN(decoded[i])) expect(Number.isNaN(decode(back.subarray(i, i + 1))[0])).toBe(true);
      else if (back[i] !== i) throw new Error(`pattern ${i} came back as ${back[i]}`);
    }
  });

  it('rounds to the nearest value, ties to even', () => {
    const infinity = (2 ** exponent - 1) << mantissa;
    // For rounding, infinity counts as the next power of two.
    const table = Array.from({ length: infinity + 1 }, (_, i) =>
      i === infinity ? 2 ** (2 ** (exponent - 1)) : valueOf(i, exponent, mantissa),
    );
    const check = (value: number): void => {
      if (Number.isNaN(value) || !Number.isFinite(value)) return;
      expect(encode(new Float32Array([value]))[0]).toBe(nearestBits(Math.fround(value), table));
    };
    // Midpoints between neighbours and the float32 values around them.
    const around = new Float32Array(1);
    const bits = new Uint32Array(around.buffer);
    for (let i = 0; i < infinity; i += 97) {
      around[0] = (table[i] + table[i + 1]) / 2;
      check(around[0]);
      check(-around[0]);
      bits[0]++;
      check(around[0]);
      bits[0] -= 2;
      check(around[0]);
    }
    fc.assert(fc.property(fc.float({ noNaN: true }), check), { numRuns: 500 });
  });
});

describe('small floats', () => {
  const decode = (type: DataType): number[] => [...smallFloatsToFloat32(type, allBytes)!];
  const allBytes = Uint8Array.from({ length: 256 }, (_, i) => i);

  it('knows the extreme and special values of each format', () => {
    const e4m3 = decode(DataType.FLOAT8E4M3FN);
    expect([e4m3[0x7e], e4m3[0x01], e4m3[0x38], e4m3[0xb8]]).toEqual([448, 2 ** -9, 1, -1]);
    expect([e4m3[0x7f], e4m3[0xff]]).toEqual([NaN, NaN]);
    const e4m3fnuz = decode(DataType.FLOAT8E4M3FNUZ);
    expect([e4m3fnuz[0x7f], e4m3fnuz[0x01], e4m3fnuz[0x80]]).toEqual([240, 2 ** -10, NaN]);
    const e5m2 = decode(DataType.FLOAT8E5M2);
    expect([e5m2[0x7b], e5m2[0x01], e5m2[0x7c], e5m2[0xfc], e5m2[0x7d]]).toEqual([
      57344,
      2 ** -16,
      Infinity,
      -Infinity,
      NaN,
    ]);
    const e5m2fnuz = decode(DataType.FLOAT8E5M2FNUZ);
    expect([e5m2fnuz[0x7f], e5m2fnuz[0x01], e5m2fnuz[0x80]]).toEqual([57344, 2 ** -17, NaN]);
    const e8m0 = decode(DataType.FLOAT8E8M0);
    expect([e8m0[127], e8m0[0], e8m0[254], e8m0[255]]).toEqual([1, 2 ** -127, 2 ** 127, NaN]);
    expect(decode(DataType.FLOAT4E2M1).slice(0, 16)).toEqual([
      0, 0.5, 1, 1.5, 2, 3, 4, 6, -0, -0.5, -1, -1.5, -2, -3, -4, -6,
    ]);
  });

  it('is undefined for other types', () => {
    expect(smallFloatsToFloat32(DataType.UINT8, allBytes)).toBeUndefined();
  });
});
