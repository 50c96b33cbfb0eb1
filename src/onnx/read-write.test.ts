import { create, createRegistry, equals, fromBinary, toBinary } from '@bufbuild/protobuf';
import fc from 'fast-check';
import { AttributeProtoSchema, GraphProtoSchema, ModelProtoSchema, type ModelProto } from 'onnx-buf';
import { describe, expect, it } from 'vitest';
import { FlowCompressError } from '../errors.js';
import { concat, mutate, randomInts } from '../testing/mutations.js';
import { chainModel, floatValue, modelOf, node, richModel } from '../testing/rich-model.js';
import { DATA_TYPES, DataType } from './dtypes.js';
import { decodeModel } from './read.js';
import { makeTensor, packedByteLength } from './tensor.js';
import { validateModel } from './validate.js';
import { assertEncodable, encodeModel, modelByteLength } from './write.js';

/** Unknown fields count in comparisons. */
const exact = { unknown: true, registry: createRegistry() };

function encode(model: ModelProto): Uint8Array<ArrayBuffer> {
  return concat(encodeModel(model));
}

function refusal(work: () => unknown): FlowCompressError {
  try {
    work();
  } catch (error) {
    if (error instanceof FlowCompressError) return error;
    throw error;
  }
  throw new Error('nothing was refused');
}

/** Models with tensors on both sides of the size from which contents are passed through. */
const models: fc.Arbitrary<ModelProto> = fc
  .record({
    tensors: fc.array(
      fc.record({
        type: fc.constantFrom(...DATA_TYPES),
        count: fc.integer({ min: 0, max: 5000 }),
        inside: fc.boolean(),
      }),
      { maxLength: 6 },
    ),
    doc: fc.string({ unit: 'grapheme' }),
    depth: fc.integer({ min: 0, max: 3 }),
    props: fc.dictionary(fc.string(), fc.string(), { maxKeys: 3 }),
  })
  .map(({ tensors, doc, depth, props }) => {
    const made = tensors.map(({ type, count }, i) => {
      if (type.array === undefined)
        return makeTensor(
          `t${i}`,
          type.code,
          [count],
          Array.from({ length: count }, () => 'text'),
        );
      const tensor = makeTensor(
        `t${i}`,
        DataType.UINT8,
        [packedByteLength(count, type)],
        new Uint8Array(packedByteLength(count, type)).fill(i),
      );
      return Object.assign(tensor, { dataType: type.code, dims: [BigInt(count)] });
    });
    const inner = made.filter((_, i) => tensors[i].inside);
    let graph = create(GraphProtoSchema, {
      name: 'g',
      docString: doc,
      initializer: made.filter((_, i) => !tensors[i].inside),
      node: inner.map((t, i) =>
        node('Constant', [], [`c${i}`], { attribute: [create(AttributeProtoSchema, { name: 'value', type: 4, t })] }),
      ),
    });
    for (let i = 0; i < depth; i++) {
      const attribute = [create(AttributeProtoSchema, { name: 'body', type: 5, g: graph })];
      graph = create(GraphProtoSchema, { name: `level ${i}`, node: [node('Loop', [], [], { attribute })] });
    }
    const model = modelOf(graph);
    model.metadataProps = create(ModelProtoSchema, {
      metadataProps: Object.entries(props).map(([key, value]) => ({ key, value })),
    }).metadataProps;
    return model;
  });

describe('encodeModel', () => {
  it('writes what protobuf-es writes, for arbitrary models', () => {
    fc.assert(
      fc.property(models, (model) => {
        const bytes = encode(model);
        expect(Buffer.compare(bytes, toBinary(ModelProtoSchema, model))).toBe(0);
        expect(modelByteLength(model)).toBe(bytes.length);
        expect(equals(ModelProtoSchema, decodeModel(bytes, 'm'), model, exact)).toBe(true);
      }),
      { numRuns: 60 },
    );
  });

  it('keeps everything a file may hold, unknown fields included', () => {
    const model = richModel();
    const bytes = encode(model);
    expect(Buffer.compare(bytes, toBinary(ModelProtoSchema, model))).toBe(0);
    const read = decodeModel(bytes, 'rich.onnx');
    expect(equals(ModelProtoSchema, read, model, exact)).toBe(true);
    expect(read.$unknown).toEqual(model.$unknown);
    expect(read.graph?.node[0].$unknown).toEqual(model.$unknown);
    expect(read.functions).toHaveLength(1);
    expect(read.trainingInfo).toHaveLength(1);
    expect(read.graph?.sparseInitializer).toHaveLength(1);
    expect(read.graph?.quantizationAnnotation).toHaveLength(1);
    expect(Buffer.compare(encode(read), bytes)).toBe(0);
  });

  it('passes large tensors through without a copy, in functions and attributes too', () => {
    const large = makeTensor('', DataType.FLOAT, [4096], new Float32Array(4096).fill(3));
    const model = richModel();
    model.functions[0].node[0].attribute = [create(AttributeProtoSchema, { name: 'value', type: 4, t: large })];
    const chunks = encodeModel(model);
    const weights = model.graph!.initializer.find(({ name }) => name === 'large')!;
    expect(
      chunks.filter((chunk) => chunk.buffer === large.rawData.buffer || chunk.buffer === weights.rawData.buffer),
    ).toHaveLength(2);
    expect(equals(ModelProtoSchema, fromBinary(ModelProtoSchema, concat(chunks)), model, exact)).toBe(true);
  });

  it('leaves the model unchanged', () => {
    const model = richModel();
    const before = toBinary(ModelProtoSchema, model);
    encodeModel(model);
    expect(Buffer.compare(toBinary(ModelProtoSchema, model), before)).toBe(0);
  });

  it('refuses a file beyond 2 GiB', () => {
    assertEncodable(2 ** 31 - 1);
    expect(refusal(() => assertEncodable(2 ** 31)).hint).toContain('external data');
    // One shared 1 GiB tensor, three times over: nothing is copied, so this costs no time.
    const data = new Uint8Array(2 ** 30);
    const graph = create(GraphProtoSchema, {
      name: 'g',
      initializer: ['a', 'b', 'c'].map((name) => makeTensor(name, DataType.UINT8, [2 ** 30], data)),
    });
    expect(modelByteLength(modelOf(graph))).toBeGreaterThan(3 * 2 ** 30);
    expect(refusal(() => encodeModel(modelOf(graph))).code).toBe('unsupported');
  });
});

describe('decodeModel', () => {
  const text = (content: string): Uint8Array => new TextEncoder().encode(content);

  it('shares the memory of the file', () => {
    const bytes = encode(chainModel(2, 8));
    expect(decodeModel(bytes, 'm').graph?.initializer[0].rawData.buffer).toBe(bytes.buffer);
    const fromBuffer = decodeModel(Buffer.from(bytes), 'm').graph?.initializer[0].rawData;
    expect(fromBuffer?.constructor).toBe(Uint8Array);
  });

  it.each([
    ['nothing', new Uint8Array(0), /is empty/, /interrupted/],
    ['a ZIP', text('PK\x03\x04rest of the archive'), /ZIP/, /Export/],
    ['a PNG', new Uint8Array([0x89, 0x50, 0x4e, 0x47, 13, 10, 26, 10]), /PNG/, /\.onnx/],
    ['a web page', text('\n<!DOCTYPE html><html><body>404</body></html>'), /web page/, /raw/],
    [
      'a Git LFS pointer',
      text('version https://git-lfs.github.com/spec/v1\noid sha256:0\n'),
      /Git LFS/,
      /git lfs pull/,
    ],
    ['JSON', text('{"model_type": "bert"}'), /JSON/, /\.onnx/],
    ['text', text('Hello, this is a note about the model.'), /text file/, /\.onnx/],
    ['zeros', new Uint8Array(1000), /zeros/, /again/],
    ['a pickle', new Uint8Array([0x80, 2, 0x7d, 0x71]), /pickle/, /Export/],
    ['noise', Uint8Array.from({ length: 300 }, (_, i) => (i * 7919 + 130) % 256), /not a readable ONNX model/, /whole/],
  ])('says what %s looks like', (_, bytes, message, hint) => {
    const error = refusal(() => decodeModel(bytes, 'file.onnx'));
    expect(error.code).toBe('bad-input');
    expect(error.message).toMatch(message);
    expect(error.message).toContain('file.onnx');
    expect(error.hint).toMatch(hint);
  });

  it('says that a truncated file is cut off', () => {
    const bytes = encode(chainModel(3, 64));
    const error = refusal(() => decodeModel(bytes.subarray(0, bytes.length - 100), 'm.onnx'));
    expect(error.message).toContain('cut off');
    expect(error.message).toContain('graph');
  });

  it('refuses a length that reaches out of its message, and text that is not UTF-8', () => {
    const bytes = encode(richModel());
    const name = Buffer.from(bytes).indexOf('rich');
    const longer = bytes.slice();
    longer[name - 1] = 0x7f;
    expect(refusal(() => decodeModel(longer, 'm')).message).toMatch(/damaged|cut off/);
    const garbled = bytes.slice();
    garbled[name] = 0xff;
    expect(refusal(() => decodeModel(garbled, 'm')).message).toContain('UTF-8');
  });

  it('needs a graph and a supported ir_version', () => {
    const graph = create(GraphProtoSchema, { name: 'g', output: [floatValue('y', [1])] });
    const bytesOf = (model: Parameters<typeof create<typeof ModelProtoSchema>>[1]): Uint8Array =>
      toBinary(ModelProtoSchema, create(ModelProtoSchema, model));
    expect(refusal(() => decodeModel(bytesOf({ irVersion: 8n }), 'm')).message).toContain('no graph');
    expect(refusal(() => decodeModel(bytesOf({ graph }), 'm')).message).toContain('no ir_version');
    expect(refusal(() => decodeModel(bytesOf({ graph, irVersion: 99n }), 'm')).hint).toContain('update');
    expect(refusal(() => decodeModel(bytesOf({ graph, irVersion: 1n }), 'm')).hint).toContain('Convert');
    expect(decodeModel(bytesOf({ graph, irVersion: 13n }), 'm').irVersion).toBe(13n);
  });

  it('reads or refuses every damaged file', () => {
    const original = encode(richModel(2));
    const random = randomInts(7);
    let accepted = 0;
    let refused = 0;
    for (let i = 0; i < 700; i++) {
      const { kind, bytes } = mutate(original, random);
      try {
        const model = decodeModel(bytes, 'm');
        validateModel(model);
        encodeModel(model);
        accepted++;
      } catch (error) {
        if (!(error instanceof FlowCompressError)) throw new Error(`${kind} number ${i} crashed`, { cause: error });
        refused++;
      }
    }
    expect(accepted).toBeGreaterThan(20);
    expect(refused).toBeGreaterThan(200);
  });
});
