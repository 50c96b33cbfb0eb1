/** The element types of ONNX tensors: names, widths, and how JavaScript holds them. */
import { TensorProto_DataType as DataType } from 'onnx-buf';
import { FlowCompressError } from '../errors.js';

export { DataType };

/** Typed arrays that hold tensor elements. */
export type TensorData =
  | Float32Array
  | Float64Array
  | Int8Array
  | Uint8Array
  | Int16Array
  | Uint16Array
  | Int32Array
  | Uint32Array
  | BigInt64Array
  | BigUint64Array;

export type TensorDataConstructor =
  | Float32ArrayConstructor
  | Float64ArrayConstructor
  | Int8ArrayConstructor
  | Uint8ArrayConstructor
  | Int16ArrayConstructor
  | Uint16ArrayConstructor
  | Int32ArrayConstructor
  | Uint32ArrayConstructor
  | BigInt64ArrayConstructor
  | BigUint64ArrayConstructor;

export type DataTypeKind = 'float' | 'int' | 'uint' | 'bool' | 'complex' | 'string';

/** Field of TensorProto that holds the elements when they are not in `rawData`. */
export type TypedField = 'floatData' | 'int32Data' | 'int64Data' | 'doubleData' | 'uint64Data' | 'stringData';

export interface DataTypeInfo {
  readonly code: DataType;
  readonly name: string;
  readonly kind: DataTypeKind;
  /** Bits per element as stored in the file; 0 for strings. */
  readonly bits: number;
  /**
   * Array that holds one element per entry (complex: two). Types narrower than a byte are unpacked to one byte per
   * element; floats that JavaScript lacks are held as their bits. Undefined for strings.
   */
  readonly array: TensorDataConstructor | undefined;
  readonly field: TypedField;
  /** Least and greatest value of an integer type (inclusive). */
  readonly range?: readonly [min: bigint, max: bigint];
}

function floating(
  code: DataType,
  name: string,
  bits: number,
  array: TensorDataConstructor,
  field: TypedField,
): DataTypeInfo {
  return { code, name, kind: 'float', bits, array, field };
}

function integer(
  code: DataType,
  kind: 'int' | 'uint' | 'bool',
  name: string,
  bits: number,
  array: TensorDataConstructor,
  field: TypedField,
): DataTypeInfo {
  const width = BigInt(bits);
  const range: [bigint, bigint] =
    kind === 'bool'
      ? [0n, 1n]
      : kind === 'uint'
        ? [0n, (1n << width) - 1n]
        : [-(1n << (width - 1n)), (1n << (width - 1n)) - 1n];
  return { code, name, kind, bits, array, field, range };
}

/** Every element type of ONNX IR 13. */
export const DATA_TYPES: readonly DataTypeInfo[] = [
  floating(DataType.FLOAT, 'float32', 32, Float32Array, 'floatData'),
  integer(DataType.UINT8, 'uint', 'uint8', 8, Uint8Array, 'int32Data'),
  integer(DataType.INT8, 'int', 'int8', 8, Int8Array, 'int32Data'),
  integer(DataType.UINT16, 'uint', 'uint16', 16, Uint16Array, 'int32Data'),
  integer(DataType.INT16, 'int', 'int16', 16, Int16Array, 'int32Data'),
  integer(DataType.INT32, 'int', 'int32', 32, Int32Array, 'int32Data'),
  integer(DataType.INT64, 'int', 'int64', 64, BigInt64Array, 'int64Data'),
  { code: DataType.STRING, name: 'string', kind: 'string', bits: 0, array: undefined, field: 'stringData' },
  integer(DataType.BOOL, 'bool', 'bool', 8, Uint8Array, 'int32Data'),
  floating(DataType.FLOAT16, 'float16', 16, Uint16Array, 'int32Data'),
  floating(DataType.DOUBLE, 'float64', 64, Float64Array, 'doubleData'),
  integer(DataType.UINT32, 'uint', 'uint32', 32, Uint32Array, 'uint64Data'),
  integer(DataType.UINT64, 'uint', 'uint64', 64, BigUint64Array, 'uint64Data'),
  { code: DataType.COMPLEX64, name: 'complex64', kind: 'complex', bits: 64, array: Float32Array, field: 'floatData' },
  {
    code: DataType.COMPLEX128,
    name: 'complex128',
    kind: 'complex',
    bits: 128,
    array: Float64Array,
    field: 'doubleData',
  },
  floating(DataType.BFLOAT16, 'bfloat16', 16, Uint16Array, 'int32Data'),
  floating(DataType.FLOAT8E4M3FN, 'float8e4m3fn', 8, Uint8Array, 'int32Data'),
  floating(DataType.FLOAT8E4M3FNUZ, 'float8e4m3fnuz', 8, Uint8Array, 'int32Data'),
  floating(DataType.FLOAT8E5M2, 'float8e5m2', 8, Uint8Array, 'int32Data'),
  floating(DataType.FLOAT8E5M2FNUZ, 'float8e5m2fnuz', 8, Uint8Array, 'int32Data'),
  integer(DataType.UINT4, 'uint', 'uint4', 4, Uint8Array, 'int32Data'),
  integer(DataType.INT4, 'int', 'int4', 4, Int8Array, 'int32Data'),
  floating(DataType.FLOAT4E2M1, 'float4e2m1', 4, Uint8Array, 'int32Data'),
  floating(DataType.FLOAT8E8M0, 'float8e8m0', 8, Uint8Array, 'int32Data'),
  integer(DataType.UINT2, 'uint', 'uint2', 2, Uint8Array, 'int32Data'),
  integer(DataType.INT2, 'int', 'int2', 2, Int8Array, 'int32Data'),
];

const byCode = new Map<number, DataTypeInfo>(DATA_TYPES.map((type) => [type.code, type]));

/** The type with this TensorProto.DataType code, or undefined when ONNX IR 13 has none. */
export function findDataType(code: number): DataTypeInfo | undefined {
  return byCode.get(code);
}

/** Name for messages and reports, for example `float32`; unknown codes give `type 99`. */
export function dataTypeName(code: number): string {
  return byCode.get(code)?.name ?? `type ${code}`;
}

/**
 * The type with this TensorProto.DataType code.
 * @param owner what the type belongs to, for the message, for example `tensor "w"`.
 * @throws FlowCompressError `bad-input` for a code that ONNX does not define.
 */
export function dataTypeInfo(code: number, owner = 'a tensor'): DataTypeInfo {
  const info = byCode.get(code);
  if (info) return info;
  throw new FlowCompressError('bad-input', `The element type of ${owner} is ${code}, which ONNX does not define.`, {
    hint: 'The file is damaged or was written for a newer ONNX version; export it again.',
  });
}
