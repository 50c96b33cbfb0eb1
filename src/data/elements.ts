/** Element types of host tensors: allocation, lossless conversion between them, and the search for NaN and infinity. */
import { FlowCompressError } from '../errors.js';
import { float16ToFloat32, float32ToFloat16 } from '../onnx/float-formats.js';
import type { HostData, HostType } from '../runtime/engine.js';

const FLOAT_TYPES: ReadonlySet<HostType> = new Set(['float16', 'float32', 'float64']);

export function isFloatType(type: HostType): boolean {
  return FLOAT_TYPES.has(type);
}

/** A zeroed array of `length` elements of the type. */
export function allocate(type: HostType, length: number): HostData {
  return viewElements(type, new Uint8Array(length * BYTES_PER_ELEMENT[type]));
}

/** Bytes of one element. */
export const BYTES_PER_ELEMENT: Readonly<Record<HostType, number>> = {
  float64: 8,
  int64: 8,
  uint64: 8,
  float32: 4,
  int32: 4,
  uint32: 4,
  float16: 2,
  int16: 2,
  uint16: 2,
  int8: 1,
  uint8: 1,
  bool: 1,
};

/** The bytes seen as elements, without a copy. The bytes must start at a multiple of the element size in their buffer. */
export function viewElements(type: HostType, bytes: Uint8Array): HostData {
  const { buffer, byteOffset } = bytes;
  const length = bytes.byteLength / BYTES_PER_ELEMENT[type];
  switch (type) {
    case 'float64':
      return new Float64Array(buffer, byteOffset, length);
    case 'float32':
      return new Float32Array(buffer, byteOffset, length);
    case 'int64':
      return new BigInt64Array(buffer, byteOffset, length);
    case 'uint64':
      return new BigUint64Array(buffer, byteOffset, length);
    case 'int32':
      return new Int32Array(buffer, byteOffset, length);
    case 'uint32':
      return new Uint32Array(buffer, byteOffset, length);
    case 'int16':
      return new Int16Array(buffer, byteOffset, length);
    case 'uint16':
    case 'float16':
      return new Uint16Array(buffer, byteOffset, length);
    case 'int8':
      return new Int8Array(buffer, byteOffset, length);
    case 'uint8':
    case 'bool':
      return new Uint8Array(buffer, byteOffset, length);
  }
}

const INTEGER_RANGE: Readonly<Partial<Record<HostType, readonly [min: bigint, max: bigint]>>> = {
  int8: [-128n, 127n],
  uint8: [0n, 255n],
  int16: [-32768n, 32767n],
  uint16: [0n, 65535n],
  int32: [-(2n ** 31n), 2n ** 31n - 1n],
  uint32: [0n, 2n ** 32n - 1n],
  int64: [-(2n ** 63n), 2n ** 63n - 1n],
  uint64: [0n, 2n ** 64n - 1n],
  bool: [0n, 1n],
};

/**
 * Converts elements to another type. Between float types values are rounded to the nearest; integers become floats; integers
 * change width where every value fits; floats become integers only where every value is one.
 * @param describe names element `i` for messages
 * @throws FlowCompressError `bad-input` naming the first value the wanted type cannot hold
 */
export function convertElements(
  data: HostData,
  from: HostType,
  to: HostType,
  describe: (element: number) => string,
): HostData {
  if (from === to) return data;
  if (from === 'float16' && data instanceof Uint16Array)
    return convertElements(float16ToFloat32(data), 'float32', to, describe);
  if (to === 'float16') return float32ToFloat16(Float32Array.from(data, Number));
  const out = allocate(to, data.length);
  if (isFloatType(to)) {
    for (let i = 0; i < data.length; i++) out[i] = Number(data[i]);
    return out;
  }
  const [min, max] = INTEGER_RANGE[to]!;
  const wide = out instanceof BigInt64Array || out instanceof BigUint64Array;
  for (let i = 0; i < data.length; i++) {
    const value = data[i];
    if ((typeof value === 'number' && !Number.isInteger(value)) || value < min || value > max) {
      throw new FlowCompressError(
        'bad-input',
        `${describe(i)} is ${value}, which the model's ${to} input cannot hold.`,
        {
          hint: `Save the array with values that fit ${to}.`,
        },
      );
    }
    out[i] = wide ? BigInt(value) : Number(value);
  }
  return out;
}

/** Index of the first NaN or infinite element, or -1. */
export function firstNonFinite(data: HostData, type: HostType): number {
  if (type === 'float16') {
    for (let i = 0; i < data.length; i++) if ((Number(data[i]) & 0x7c00) === 0x7c00) return i;
  } else if (data instanceof Float32Array || data instanceof Float64Array) {
    for (let i = 0; i < data.length; i++) if (data[i] - data[i] !== 0) return i;
  }
  return -1;
}
