/** Conversions between float32 and the narrow floating-point formats of ONNX. */
import { DataType } from './dtypes.js';

let halfTable: Float32Array | undefined;

/** float32 value of every float16 bit pattern (NaN payloads kept). */
function float16Table(): Float32Array {
  if (halfTable) return halfTable;
  const table = new Float32Array(65536);
  const bits = new Uint32Array(table.buffer);
  for (let h = 0; h < 65536; h++) {
    const exponent = (h >> 10) & 31;
    const mantissa = h & 1023;
    const sign = h & 0x8000 ? -1 : 1;
    if (exponent === 31) bits[h] = (((h & 0x8000) << 16) | 0x7f800000 | (mantissa << 13)) >>> 0;
    else if (exponent === 0) table[h] = sign * mantissa * 2 ** -24;
    else table[h] = sign * (1024 + mantissa) * 2 ** (exponent - 25);
  }
  halfTable = table;
  return table;
}

/** Exact values of float16 bit patterns. */
export function float16ToFloat32(bits: Uint16Array): Float32Array {
  const table = float16Table();
  const out = new Float32Array(bits.length);
  for (let i = 0; i < bits.length; i++) out[i] = table[bits[i]];
  return out;
}

/** float16 bit patterns nearest to `values`, ties to even; beyond 65520 the result is infinite. */
export function float32ToFloat16(values: Float32Array): Uint16Array {
  const out = new Uint16Array(values.length);
  const source = new Uint32Array(values.buffer, values.byteOffset, values.length);
  for (let i = 0; i < values.length; i++) {
    const sign = (source[i] >>> 16) & 0x8000;
    const magnitude = source[i] & 0x7fffffff;
    if (magnitude > 0x7f800000) out[i] = sign | 0x7e00 | ((magnitude >> 13) & 0x1ff);
    else if (magnitude >= 0x47800000) out[i] = sign | 0x7c00;
    else if (magnitude >= 0x38800000) {
      out[i] = sign | ((magnitude + 0xfff + ((magnitude >> 13) & 1) - 0x38000000) >> 13);
    } else {
      const scaled = Math.abs(values[i]) * 2 ** 24;
      const floor = Math.floor(scaled);
      const rest = scaled - floor;
      out[i] = sign | (rest > 0.5 || (rest === 0.5 && floor % 2 === 1) ? floor + 1 : floor);
    }
  }
  return out;
}

/** Exact values of bfloat16 bit patterns. */
export function bfloat16ToFloat32(bits: Uint16Array): Float32Array {
  const out = new Uint32Array(bits.length);
  for (let i = 0; i < bits.length; i++) out[i] = bits[i] << 16;
  return new Float32Array(out.buffer);
}

/** bfloat16 bit patterns nearest to `values`, ties to even. */
export function float32ToBfloat16(values: Float32Array): Uint16Array {
  const out = new Uint16Array(values.length);
  const source = new Uint32Array(values.buffer, values.byteOffset, values.length);
  for (let i = 0; i < values.length; i++) {
    const x = source[i];
    out[i] = (x & 0x7fffffff) > 0x7f800000 ? (x >>> 16) | 0x40 : (x + 0x7fff + ((x >>> 16) & 1)) >>> 16;
  }
  return out;
}

interface SmallFormat {
  readonly exponentBits: number;
  readonly mantissaBits: number;
  readonly bias: number;
  /** Which patterns are not finite numbers: as IEEE 754; only all ones is NaN; only -0 is NaN; none. */
  readonly special: 'ieee' | 'all-ones' | 'negative-zero' | 'none';
}

const smallFormats = new Map<DataType, SmallFormat>([
  [DataType.FLOAT8E4M3FN, { exponentBits: 4, mantissaBits: 3, bias: 7, special: 'all-ones' }],
  [DataType.FLOAT8E4M3FNUZ, { exponentBits: 4, mantissaBits: 3, bias: 8, special: 'negative-zero' }],
  [DataType.FLOAT8E5M2, { exponentBits: 5, mantissaBits: 2, bias: 15, special: 'ieee' }],
  [DataType.FLOAT8E5M2FNUZ, { exponentBits: 5, mantissaBits: 2, bias: 16, special: 'negative-zero' }],
  [DataType.FLOAT4E2M1, { exponentBits: 2, mantissaBits: 1, bias: 1, special: 'none' }],
]);

function smallFloat(code: number, format: SmallFormat): number {
  const { exponentBits, mantissaBits, bias, special } = format;
  const magnitudeMask = (1 << (exponentBits + mantissaBits)) - 1;
  const magnitude = code & magnitudeMask;
  const negative = code > magnitudeMask;
  if (special === 'negative-zero' && negative && magnitude === 0) return NaN;
  if (special === 'all-ones' && magnitude === magnitudeMask) return NaN;
  const exponent = magnitude >> mantissaBits;
  const mantissa = magnitude & ((1 << mantissaBits) - 1);
  const sign = negative ? -1 : 1;
  if (special === 'ieee' && exponent === (1 << exponentBits) - 1) return mantissa === 0 ? sign * Infinity : NaN;
  const significand = exponent === 0 ? mantissa : mantissa + (1 << mantissaBits);
  return sign * significand * 2 ** (Math.max(exponent, 1) - bias - mantissaBits);
}

/**
 * Exact values of float8 or float4 codes, one code per byte; undefined when `type` is not one of these formats.
 * E8M0 holds powers of two (2^-127 .. 2^127) and NaN.
 */
export function smallFloatsToFloat32(type: DataType, codes: Uint8Array): Float32Array | undefined {
  const format = smallFormats.get(type);
  if (!format && type !== DataType.FLOAT8E8M0) return undefined;
  const table = Float32Array.from({ length: 256 }, (_, code) =>
    format ? smallFloat(code, format) : code === 255 ? NaN : 2 ** (code - 127),
  );
  const out = new Float32Array(codes.length);
  for (let i = 0; i < codes.length; i++) out[i] = table[codes[i]];
  return out;
}
