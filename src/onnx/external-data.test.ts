import { create, toBinary } from '@bufbuild/protobuf';
import { ModelProtoSchema, TensorProtoSchema, type TensorProto } from 'onnx-buf';
import { describe, expect, it } from 'vitest';
import { FlowCompressError } from '../errors.js';
import { concat } from '../testing/mutations.js';
import { chainModel, richModel } from '../testing/rich-model.js';
import { DataType } from './dtypes.js';
import { embedExternalData, readExternalReference, splitExternalData } from './external-data.js';
import { isExternal, makeTensor } from './tensor.js';
import { visitTensors } from './walk.js';

function external(entries: Record<string, string>): TensorProto {
  return create(TensorProtoSchema, {
    name: 'w',
    dataType: DataType.FLOAT,
    dims: [4n],
    dataLocation: 1,
    externalData: Object.entries(entries).map(([key, value]) => ({ key, value })),
  });
}

describe('readExternalReference', () => {
  it('reads the entries; offset and length may be absent', () => {
    expect(readExternalReference(external({ location: 'data/w.bin', offset: '4096', length: '16' }))).toEqual({
      location: 'data/w.bin',
      offset: 4096,
      length: 16,
    });
    expect(readExternalReference(external({ location: 'w' }))).toEqual({ location: 'w', offset: 0, length: 16 });
  });

  it.each(['', '/etc/passwd', '../w', 'a/../../w', 'a\\..\\w', '\\\\host\\w', 'C:/w', 'file:w', 'a\0b', 'a/', '.'])(
    'refuses the location %j',
    (location) => {
      const read = (): unknown => readExternalReference(external({ location }));
      expect(read).toThrow(FlowCompressError);
      expect(read).toThrow(/"w"/);
    },
  );

  it.each<Record<string, string>>([
    { offset: '-1' },
    { offset: '0x10' },
    { offset: '1e3' },
    { offset: '99999999999999999999' },
    { length: '17' },
    { length: '' },
  ])('refuses %j', (entries) => {
    expect(() => readExternalReference(external({ location: 'w', ...entries }))).toThrow(FlowCompressError);
  });

  it('refuses a missing and a repeated location', () => {
    expect(() => readExternalReference(external({}))).toThrow(/name the file/);
    const twice = external({ location: 'a' });
    twice.externalData.push(...external({ location: 'b' }).externalData);
    expect(() => readExternalReference(twice)).toThrow(/twice/);
  });
});

describe('splitExternalData', () => {
  it('moves large initializers, of subgraphs too, and gives them back', () => {
    const model = richModel();
    const before = toBinary(ModelProtoSchema, model);
    const split = splitExternalData(model, 'rich.onnx_data', 8);
    const file = concat(split.chunks);
    expect(file.length).toBe(split.byteLength);
    let moved = 0;
    visitTensors(split.model, (tensor) => {
      if (!isExternal(tensor)) return;
      moved++;
      expect(tensor.rawData.length).toBe(0);
      const { offset, length } = readExternalReference(tensor);
      embedExternalData(tensor, file.slice(offset, offset + length));
    });
    expect(moved).toBe(split.moved);
    expect(moved).toBeGreaterThan(10);
    expect(Buffer.compare(toBinary(ModelProtoSchema, split.model), before)).toBe(0);
    expect(Buffer.compare(toBinary(ModelProtoSchema, model), before)).toBe(0);
  });

  it('aligns tensors, the large ones to pages, and stores shared contents once', () => {
    const model = chainModel(1, 100);
    const large = new Uint8Array(1 << 20);
    model.graph!.initializer.push(
      makeTensor('a', DataType.UINT8, [1 << 20], large),
      makeTensor('b', DataType.UINT8, [1024, 1024], large),
      makeTensor('c', DataType.UINT8, [2000], new Uint8Array(2000)),
    );
    const split = splitExternalData(model, 'data', 64);
    const offsets = split.model.graph!.initializer.map((tensor) => readExternalReference(tensor).offset);
    expect(offsets).toEqual([0, 4096, 4096, 4096 + (1 << 20)]);
    expect(split.byteLength).toBe(4096 + (1 << 20) + 2000);
  });
});
