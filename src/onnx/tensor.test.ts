import { create } from '@bufbuild/protobuf';
import fc from 'fast-check';
import { TensorProtoSchema, TensorProto_DataType } from 'onnx-buf';
import { describe, expect, it } from 'vitest';
import { FlowCompressError } from '../errors.js';
import { DATA_TYPES, DataType, dataTypeInfo, dataTypeName } from './dtypes.js';
import {
  checkTensor,
  elementCount,
  makeTensor,
  readFloats,
  readInts,
  readStrings,
  readTensor,
  tensorByteLength,
} from './tensor.js';

function refusal(work: () => unknown): FlowCompressError {
  try {
    work();
  } catch (error) {
    if (error instanceof FlowCompressError) return error;
    throw error;
  }
  throw new Error('nothing was refused');
}

describe('element types', () => {
  it('cover every type that the protobuf definition knows', () => {
    const codes = Object.values(TensorProto_DataType).filter((code) => typeof code === 'number' && code !== 0);
    expect(DATA_TYPES.map(({ code }) => code).sort()).toEqual(codes.sort());
    expect(dataTypeName(DataType.BFLOAT16)).toBe('bfloat16');
    expect(refusal(() => dataTypeInfo(99, 'tensor "w"')).message).toContain('tensor "w"');
  });
});

describe('elementCount', () => {
  it('multiplies, and refuses what is not a size', () => {
    expect(elementCount([])).toBe(1);
    expect(elementCount([2n, 3, 4n])).toBe(24);
    expect(elementCount([2n ** 62n, 0n, 5n])).toBe(0);
    expect(refusal(() => elementCount([3, -1], 'w')).node).toBe('w');
    expect(refusal(() => elementCount([2n ** 40n, 2n ** 40n])).code).toBe('bad-input');
  });
});

describe('makeTensor and readTensor', () => {
  it('give back every value of every integer type', () => {
    for (const { code, range, name } of DATA_TYPES) {
      if (!range) continue;
      fc.assert(
        fc.property(fc.array(fc.bigInt({ min: range[0], max: range[1] })), (values) => {
          const tensor = makeTensor(name, code, [values.length], values);
          expect(Array.from<number | bigint, bigint>(readTensor(tensor), BigInt)).toEqual(values);
          expect(tensor.rawData.length).toBe(tensorByteLength(tensor));
        }),
        { numRuns: 30 },
      );
      expect(refusal(() => makeTensor(name, code, [1], [range[1] + 1n])).message).toContain('does not fit');
      expect(refusal(() => makeTensor(name, code, [1], [range[0] - 1n])).message).toContain('does not fit');
    }
  });

  it('pack narrow types low bits first', () => {
    expect([...makeTensor('a', DataType.INT4, [3], [1, -8, 7]).rawData]).toEqual([0x81, 0x07]);
    expect([...makeTensor('a', DataType.UINT2, [5], [1, 2, 3, 0, 2]).rawData]).toEqual([0b00111001, 0b10]);
    expect([...makeTensor('a', DataType.INT2, [3], new Int8Array([-1, 1, -2])).rawData]).toEqual([0b100111]);
    expect([...makeTensor('a', DataType.FLOAT4E2M1, [2], new Uint8Array([15, 2])).rawData]).toEqual([0x2f]);
    expect(refusal(() => makeTensor('a', DataType.INT4, [1], new Int8Array([9]))).code).toBe('bad-input');
  });

  it('read data that does not start on a multiple of the element size', () => {
    const aligned = makeTensor('a', DataType.DOUBLE, [3], [1, 2, Math.PI]);
    const bytes = new Uint8Array(25);
    bytes.set(aligned.rawData, 1);
    const shifted = create(TensorProtoSchema, { ...aligned, rawData: bytes.subarray(1) });
    expect([...readTensor(shifted)]).toEqual([1, 2, Math.PI]);
  });

  it('share the memory of arrays that need no conversion', () => {
    const data = new Float32Array([1, 2, 3, 4]);
    const tensor = makeTensor('a', DataType.FLOAT, [3], data.subarray(1));
    expect(tensor.rawData.buffer).toBe(data.buffer);
    expect([...readTensor(tensor)]).toEqual([2, 3, 4]);
  });

  it('read the typed fields', () => {
    const tensor = (rest: object): ReturnType<typeof create<typeof TensorProtoSchema>> =>
      create(TensorProtoSchema, { name: 't', ...rest });
    expect([...readTensor(tensor({ dataType: DataType.FLOAT, dims: [2n], floatData: [1.5, 2] }))]).toEqual([1.5, 2]);
    expect([...readTensor(tensor({ dataType: DataType.INT8, dims: [2n], int32Data: [-3, 4] }))]).toEqual([-3, 4]);
    expect([...readTensor(tensor({ dataType: DataType.INT64, dims: [1n], int64Data: [-(2n ** 60n)] }))]).toEqual([
      -(2n ** 60n),
    ]);
    expect([...readTensor(tensor({ dataType: DataType.UINT32, dims: [1n], uint64Data: [4294967295n] }))]).toEqual([
      4294967295,
    ]);
    expect([...readTensor(tensor({ dataType: DataType.DOUBLE, dims: [1n], doubleData: [0.1] }))]).toEqual([0.1]);
    expect([...readTensor(tensor({ dataType: DataType.INT4, dims: [3n], int32Data: [0xf7, 0x08] }))]).toEqual([
      7, -1, -8,
    ]);
    expect([...readTensor(tensor({ dataType: DataType.COMPLEX64, dims: [1n], floatData: [1, 2] }))]).toEqual([1, 2]);
    expect([...readFloats(tensor({ dataType: DataType.FLOAT16, dims: [2n], int32Data: [0x3c00, 0xc000] }))]).toEqual([
      1, -2,
    ]);
  });

  it('hold strings', () => {
    const tensor = makeTensor('s', DataType.STRING, [2], ['a', 'ü']);
    expect(readStrings(tensor)).toEqual(['a', 'ü']);
    expect(tensorByteLength(tensor)).toBe(3);
    expect(refusal(() => readTensor(tensor)).message).toContain('strings');
    expect(refusal(() => makeTensor('s', DataType.FLOAT, [1], ['a'])).message).toContain('Strings');
  });

  it('refuse contents that do not fit the shape, by name', () => {
    expect(refusal(() => makeTensor('w', DataType.FLOAT, [2, 2], new Float32Array(3)))).toMatchObject({
      node: 'w',
      code: 'bad-input',
    });
    expect(refusal(() => makeTensor('w', DataType.FLOAT, [2], new Float64Array(2))).message).toContain('Float32Array');
    const short = create(TensorProtoSchema, {
      name: 'w',
      dataType: DataType.FLOAT,
      dims: [2n],
      rawData: new Uint8Array(7),
    });
    expect(refusal(() => readTensor(short)).message).toContain('needs 8 bytes but 7');
    const missing = create(TensorProtoSchema, { name: 'w', dataType: DataType.INT32, dims: [2n] });
    expect(refusal(() => readTensor(missing)).message).toContain('needs 2 values but 0');
    const external = create(TensorProtoSchema, { name: 'w', dataType: DataType.FLOAT, dims: [2n], dataLocation: 1 });
    expect(refusal(() => checkTensor(external)).message).toContain('another file');
    expect(
      refusal(() =>
        checkTensor(
          create(TensorProtoSchema, {
            name: 'w',
            dataType: DataType.INT32,
            dims: [2n],
            segment: { begin: 0n, end: 1n },
          }),
        ),
      ).code,
    ).toBe('unsupported');
  });
});

describe('readFloats and readInts', () => {
  it('convert', () => {
    expect([...readFloats(makeTensor('a', DataType.FLOAT16, [2], new Float32Array([0.5, 1e9])))]).toEqual([
      0.5,
      Infinity,
    ]);
    expect([...readFloats(makeTensor('a', DataType.BFLOAT16, [2], [0.5, -3]))]).toEqual([0.5, -3]);
    expect([...readFloats(makeTensor('a', DataType.INT64, [2], [3, -4]))]).toEqual([3, -4]);
    expect([...readFloats(makeTensor('a', DataType.FLOAT8E4M3FN, [1], new Uint8Array([0x38])))]).toEqual([1]);
    expect([...readFloats(makeTensor('a', DataType.UINT8, [1], [200]))]).toEqual([200]);
    expect(readInts(makeTensor('shape', DataType.INT64, [2], [-1, 64]))).toEqual([-1, 64]);
    expect(readInts(makeTensor('shape', DataType.INT32, [], [7]))).toEqual([7]);
  });

  it('refuse what cannot be converted', () => {
    expect(refusal(() => readInts(makeTensor('shape', DataType.INT64, [1], [2n ** 60n]))).node).toBe('shape');
    expect(refusal(() => readInts(makeTensor('shape', DataType.FLOAT, [1], [1]))).message).toContain('float32');
    expect(refusal(() => readFloats(makeTensor('c', DataType.COMPLEX64, [1], new Float32Array(2)))).node).toBe('c');
  });
});
