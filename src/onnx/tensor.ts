/** Tensors of a model: element counts, and reading and making their contents with every length checked. */
import { create } from '@bufbuild/protobuf';
import { TensorProtoSchema, TensorProto_DataLocation, type TensorProto } from 'onnx-buf';
import { FlowCompressError } from '../errors.js';
import { DataType, dataTypeInfo, type DataTypeInfo, type TensorData, type TensorDataConstructor } from './dtypes.js';
import {
  bfloat16ToFloat32,
  float16ToFloat32,
  float32ToBfloat16,
  float32ToFloat16,
  smallFloatsToFloat32,
} from './float-formats.js';

const DAMAGED = 'The file is damaged or was written wrongly; export the model again.';

function label(name: string): string {
  return name === '' ? 'an unnamed tensor' : `tensor "${name}"`;
}

function refuse(name: string, problem: string, hint = DAMAGED): FlowCompressError {
  return new FlowCompressError('bad-input', `${problem} (${label(name)}).`, { node: name || undefined, hint });
}

/**
 * Number of elements of a tensor with these dimensions: their product, 1 for a scalar.
 * @throws FlowCompressError `bad-input` when a dimension is negative or the product is not a safe integer.
 */
export function elementCount(dims: readonly (bigint | number)[], name = ''): number {
  let product = 1n;
  for (const dim of dims) {
    if (dim < 0 || (typeof dim === 'number' && !Number.isSafeInteger(dim))) {
      throw refuse(name, `Dimension ${dim} of shape [${dims.join(', ')}] is not a size`);
    }
    product *= BigInt(dim);
  }
  if (product > BigInt(Number.MAX_SAFE_INTEGER)) {
    throw refuse(name, `Shape [${dims.join(', ')}] has more elements than can be addressed`);
  }
  return Number(product);
}

/** Bytes that `count` elements take in `rawData`. */
export function packedByteLength(count: number, type: DataTypeInfo): number {
  return type.bits >= 8 ? count * (type.bits / 8) : Math.ceil(count / (8 / type.bits));
}

/**
 * Bytes of the tensor's contents in raw form, from its shape and element type (strings: their UTF-8 bytes).
 * @throws FlowCompressError `bad-input` for an unknown element type or an impossible shape.
 */
export function tensorByteLength(tensor: TensorProto): number {
  const type = dataTypeInfo(tensor.dataType, label(tensor.name));
  if (type.kind === 'string') return tensor.stringData.reduce((sum, text) => sum + text.length, 0);
  return packedByteLength(elementCount(tensor.dims, tensor.name), type);
}

/** True when the contents lie in another file that has not been read. */
export function isExternal(tensor: TensorProto): boolean {
  return tensor.dataLocation === TensorProto_DataLocation.EXTERNAL;
}

function holdsBigInts(array: TensorDataConstructor): array is BigInt64ArrayConstructor | BigUint64ArrayConstructor {
  return array === BigInt64Array || array === BigUint64Array;
}

/** Entries that the typed field of a tensor must have. */
function typedLength(count: number, type: DataTypeInfo): number {
  if (type.kind === 'complex') return count * 2;
  return type.bits === 4 || type.bits === 2 ? packedByteLength(count, type) : count;
}

/**
 * Checks that a tensor's type is known and that its contents have the length its shape asks for.
 * @returns the element type and count.
 * @throws FlowCompressError `bad-input` naming the tensor.
 */
export function checkTensor(tensor: TensorProto): { type: DataTypeInfo; count: number } {
  const { name } = tensor;
  const type = dataTypeInfo(tensor.dataType, label(name));
  if (isExternal(tensor)) {
    throw refuse(
      name,
      'The contents are in another file that was not loaded',
      'Give the path of the model file instead of its bytes.',
    );
  }
  if (tensor.segment) {
    throw new FlowCompressError('unsupported', `A tensor is stored in segments (${label(name)}).`, {
      node: name || undefined,
      hint: 'Load and save the model with the onnx package to store the tensor whole.',
    });
  }
  const count = elementCount(tensor.dims, name);
  const raw = tensor.rawData.length;
  const shape = `${type.name} of shape [${tensor.dims.join(', ')}]`;
  if (type.kind === 'string' && raw > 0) throw refuse(name, 'A string tensor has raw data');
  if (type.kind !== 'string' && raw > 0) {
    const expected = packedByteLength(count, type);
    if (raw !== expected) throw refuse(name, `${shape} needs ${expected} bytes but ${raw} are stored`);
  } else {
    const stored = tensor[type.field].length;
    const expected = typedLength(count, type);
    if (stored !== expected) throw refuse(name, `${shape} needs ${expected} values but ${stored} are stored`);
  }
  return { type, count };
}

/** The bytes as elements of `array`: a view when they are aligned, else a copy. */
function elementsOf(bytes: Uint8Array<ArrayBuffer>, array: TensorDataConstructor): TensorData {
  const width = array.BYTES_PER_ELEMENT;
  // Not slice(): on a Node Buffer it returns another unaligned view.
  const aligned = bytes.byteOffset % width === 0 ? bytes : new Uint8Array(bytes);
  return new array(aligned.buffer, aligned.byteOffset, aligned.byteLength / width);
}

function unpack(packed: Uint8Array, count: number, type: DataTypeInfo): Int8Array | Uint8Array {
  const { bits } = type;
  const out = type.kind === 'int' ? new Int8Array(count) : new Uint8Array(count);
  const perByte = 8 / bits;
  const shift = 32 - bits;
  for (let i = 0; i < count; i++) {
    const code = packed[(i / perByte) | 0] >> ((i % perByte) * bits);
    out[i] = type.kind === 'int' ? (code << shift) >> shift : code & ((1 << bits) - 1);
  }
  return out;
}

function pack(values: TensorData, type: DataTypeInfo): Uint8Array<ArrayBuffer> {
  const { bits } = type;
  const perByte = 8 / bits;
  const mask = (1 << bits) - 1;
  const out = new Uint8Array(packedByteLength(values.length, type));
  for (let i = 0; i < values.length; i++) {
    out[(i / perByte) | 0] |= (Number(values[i]) & mask) << ((i % perByte) * bits);
  }
  return out;
}

function fromTypedField(tensor: TensorProto, type: DataTypeInfo): TensorData {
  switch (type.field) {
    case 'floatData':
      return Float32Array.from(tensor.floatData);
    case 'doubleData':
      return Float64Array.from(tensor.doubleData);
    case 'int64Data':
      return BigInt64Array.from(tensor.int64Data);
    case 'uint64Data':
      return type.code === DataType.UINT32
        ? Uint32Array.from(tensor.uint64Data, Number)
        : BigUint64Array.from(tensor.uint64Data);
    default: {
      const array = type.array;
      if (array === undefined || holdsBigInts(array)) {
        throw refuse(tensor.name, `${type.name} cannot be stored in ${type.field}`);
      }
      return type.bits < 8 ? Uint8Array.from(tensor.int32Data) : new array(tensor.int32Data);
    }
  }
}

/**
 * The elements of a tensor, row-major, one per entry: float16, bfloat16, float8 and float4 as bits, types narrower than
 * a byte unpacked, bool as 0/1, complex as pairs. The result may share the model's memory: treat it as read-only.
 * @throws FlowCompressError `bad-input` when the contents do not fit the shape, or for strings (see {@link readStrings}).
 */
export function readTensor(tensor: TensorProto): TensorData {
  const { type, count } = checkTensor(tensor);
  if (type.array === undefined)
    throw refuse(
      tensor.name,
      'A tensor of numbers is needed but this one holds strings',
      'Check what the node expects.',
    );
  const narrow = type.bits < 8;
  if (tensor.rawData.length > 0 || count === 0) {
    return narrow ? unpack(tensor.rawData, count, type) : elementsOf(tensor.rawData, type.array);
  }
  const data = fromTypedField(tensor, type);
  return narrow && data instanceof Uint8Array ? unpack(data, count, type) : data;
}

/** The strings of a string tensor. @throws FlowCompressError `bad-input` when it is of another type. */
export function readStrings(tensor: TensorProto): string[] {
  const { type } = checkTensor(tensor);
  if (type.kind !== 'string')
    throw refuse(tensor.name, `A tensor of strings is needed but this one holds ${type.name}`);
  const decoder = new TextDecoder();
  return tensor.stringData.map((bytes) => decoder.decode(bytes));
}

/**
 * The elements as float32: exact for float32, float16, bfloat16, float8 and float4; float64 and integers are rounded.
 * May share the model's memory: treat it as read-only.
 * @throws FlowCompressError `bad-input` for complex numbers and strings.
 */
export function readFloats(tensor: TensorProto): Float32Array {
  const data = readTensor(tensor);
  if (data instanceof Float32Array && tensor.dataType === DataType.FLOAT) return data;
  if (data instanceof Uint16Array && tensor.dataType === DataType.FLOAT16) return float16ToFloat32(data);
  if (data instanceof Uint16Array && tensor.dataType === DataType.BFLOAT16) return bfloat16ToFloat32(data);
  if (data instanceof Uint8Array) {
    const values = smallFloatsToFloat32(tensor.dataType, data);
    if (values) return values;
  }
  const type = dataTypeInfo(tensor.dataType);
  if (type.kind === 'complex')
    throw refuse(
      tensor.name,
      'Real numbers are needed but the tensor holds complex ones',
      'Check what the node expects.',
    );
  if (data instanceof BigInt64Array || data instanceof BigUint64Array) return Float32Array.from(data, Number);
  return Float32Array.from(data);
}

/**
 * The elements of an integer or bool tensor (shapes, axes, indices) as numbers.
 * @throws FlowCompressError `bad-input` for other element types and for values beyond the safe integers.
 */
export function readInts(tensor: TensorProto): number[] {
  const type = dataTypeInfo(tensor.dataType, label(tensor.name));
  if (type.range === undefined)
    throw refuse(tensor.name, `Integers are needed but the tensor holds ${type.name}`, 'Check what the node expects.');
  return Array.from<number | bigint, number>(readTensor(tensor), (value) => {
    const number = Number(value);
    if (!Number.isSafeInteger(number)) throw refuse(tensor.name, `The value ${value} is not a safe integer`);
    return number;
  });
}

/** A number or bigint, checked against the range of an integer type. */
function checkRange(value: number | bigint, type: DataTypeInfo, name: string): void {
  if (type.range === undefined) return;
  if ((typeof value === 'number' && !Number.isInteger(value)) || value < type.range[0] || value > type.range[1]) {
    throw refuse(name, `The value ${value} does not fit ${type.name}`, 'Round and clip the values first.');
  }
}

function fromNumbers(values: readonly (number | bigint)[], type: DataTypeInfo, name: string): TensorData {
  if (type.code === DataType.FLOAT16) return float32ToFloat16(Float32Array.from(values, Number));
  if (type.code === DataType.BFLOAT16) return float32ToBfloat16(Float32Array.from(values, Number));
  if (type.array === undefined || (type.kind === 'float' && type.bits <= 8)) {
    throw refuse(name, `${type.name} cannot be made from plain numbers`, 'Pass the codes in a Uint8Array.');
  }
  for (const value of values) checkRange(value, type, name);
  if (holdsBigInts(type.array)) return new type.array(values.map(BigInt));
  return new type.array(values.map(Number));
}

function toElements(data: TensorData | readonly (number | bigint)[], type: DataTypeInfo, name: string): TensorData {
  if (!ArrayBuffer.isView(data)) return fromNumbers(data, type, name);
  if (data instanceof Float32Array && type.code === DataType.FLOAT16) return float32ToFloat16(data);
  if (data instanceof Float32Array && type.code === DataType.BFLOAT16) return float32ToBfloat16(data);
  if (type.array === undefined || !(data instanceof type.array)) {
    throw refuse(
      name,
      `${type.name} is held in a ${type.array?.name ?? 'string array'}, not a ${data.constructor.name}`,
      'Convert the data first.',
    );
  }
  if (type.bits < 8) {
    const [low, high] = type.range ?? [0n, 15n];
    for (let i = 0; i < data.length; i++) {
      if (data[i] < low || data[i] > high)
        throw refuse(name, `The value ${data[i]} does not fit ${type.name}`, 'Clip the codes first.');
    }
  }
  return data;
}

function bytesOf(data: TensorData): Uint8Array<ArrayBuffer> {
  return data.buffer instanceof ArrayBuffer
    ? new Uint8Array(data.buffer, data.byteOffset, data.byteLength)
    : new Uint8Array(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
}

/**
 * A tensor whose contents are in raw_data (strings: string_data), little endian, narrow types packed low bits first.
 * @param data one entry per element in the type's own array; a Float32Array for float16 or bfloat16 is rounded to
 *   nearest even; plain numbers for integer and wider float types are range-checked. A typed array that needs no
 *   conversion is shared, not copied: do not write to it afterwards.
 * @throws FlowCompressError `bad-input` when the data do not fit the type or the shape.
 */
export function makeTensor(
  name: string,
  dtype: DataType,
  dims: readonly (number | bigint)[],
  data: TensorData | readonly (number | bigint)[] | readonly string[],
): TensorProto {
  const type = dataTypeInfo(dtype, label(name));
  const count = elementCount(dims, name);
  const given = type.kind === 'complex' ? data.length / 2 : data.length;
  if (given !== count)
    throw refuse(
      name,
      `Shape [${dims.join(', ')}] has ${count} elements but ${given} were given`,
      'Pass one value per element.',
    );
  const tensor = create(TensorProtoSchema, { name, dataType: dtype, dims: dims.map(BigInt) });
  if (type.kind === 'string') {
    const encoder = new TextEncoder();
    tensor.stringData = Array.from<unknown, Uint8Array<ArrayBuffer>>(data, (text) => {
      if (typeof text !== 'string') throw refuse(name, 'A string tensor needs strings', 'Pass an array of strings.');
      return encoder.encode(text);
    });
    return tensor;
  }
  if (isStrings(data)) throw refuse(name, `Strings were given for ${type.name}`, 'Pass numbers.');
  const elements = toElements(data, type, name);
  tensor.rawData = type.bits < 8 ? pack(elements, type) : bytesOf(elements);
  return tensor;
}

function isStrings(data: TensorData | readonly (number | bigint)[] | readonly string[]): data is readonly string[] {
  return Array.isArray(data) && typeof data[0] === 'string';
}
