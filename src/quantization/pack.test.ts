import fc from 'fast-check';
import { TensorProto_DataType as DataType } from 'onnx-buf';
import { describe, expect, it } from 'vitest';
import { nodeEngine } from '../node/onnxruntime.js';
import { intAttribute, intsAttribute } from '../onnx/attributes.js';
import { makeTensor } from '../onnx/tensor.js';
import { toBytes } from '../onnx/to-bytes.js';
import { declareOutput, startGraph } from '../testing/tiny-models.js';
import { addFunctions } from './packed-writer.js';
import { CODEBOOK_FUNCTIONS, DOMAIN, FUNCTIONS, packCodes, packedBytes, unpackCodes } from './pack.js';

describe('packCodes', () => {
  it('is undone by unpackCodes at every width and length', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 8 }), fc.uint8Array({ minLength: 1, maxLength: 99 }), (bits, raw) => {
        const codes = raw.map((v) => v & ((1 << bits) - 1));
        const packed = packCodes(codes, bits);
        expect(packed.length).toBe(bits * Math.ceil(codes.length / 8));
        expect(unpackCodes(packed, bits, codes.length)).toEqual(codes);
      }),
    );
  });

  it('predicts its size', () => {
    expect(packedBytes(16, 3)).toBe(6);
    expect(packedBytes(17, 3)).toBe(9);
  });
});

describe('unpacking functions in the engine', () => {
  const engine = nodeEngine({ threads: 1 });
  const dims = [3, 5];

  // Every width, at the oldest opset, one with attributes turned inputs, and a recent one.
  const cases = [13, 17, 21].flatMap((opset) => [1, 2, 3, 4, 5, 6, 7, 8].map((bits) => ({ opset, bits })));

  it.each(cases)('decodes $bits bits at opset $opset', async ({ opset, bits }) => {
    const codes = Uint8Array.from({ length: 15 }, (_, i) => (i * 7 + 3) % 2 ** bits);
    const { graph, x } = startGraph(opset, [3, 5]);
    const offset = -(2 ** (bits - 1));
    const tensors = [
      makeTensor('p', DataType.UINT8, [bits, 2], packCodes(codes, bits)),
      makeTensor(
        'v',
        DataType.FLOAT,
        [1, bits],
        Float32Array.from({ length: bits }, (_, i) => 2 ** (bits - 1 - i)),
      ),
      makeTensor('o', DataType.FLOAT, [1], Float32Array.of(offset)),
    ].map((tensor) => graph.addInitializer(tensor));
    const perChannel = Float32Array.of(0.5, 1, 2);
    const scale = graph.addInitializer(makeTensor('c', DataType.FLOAT, [3], perChannel));
    const column = graph.addInitializer(makeTensor('c2', DataType.FLOAT, [3, 1], perChannel));
    const viaInt8 = graph.insertOp(
      FUNCTIONS.unpackInt8,
      [...tensors, scale],
      [intsAttribute('s', dims), intAttribute('x', 0)],
      'w8',
      DOMAIN,
    );
    const viaFloat = graph.insertOp(
      FUNCTIONS.unpackFloat,
      [...tensors, column],
      [intsAttribute('s', dims)],
      'wf',
      DOMAIN,
    );
    const codesOnly = graph.insertOp(FUNCTIONS.unpackCodes, tensors, [intsAttribute('s', dims)], 'wi', DOMAIN);
    const asFloat = graph.insertOp('Cast', [codesOnly], [intAttribute('to', DataType.FLOAT)]);
    for (const [i, value] of [viaInt8, viaFloat, asFloat].entries()) {
      declareOutput(graph, graph.insertOp('Add', [x, value], [], `y${String(i)}`), dims);
    }
    addFunctions(graph, new Set([FUNCTIONS.unpackInt8, FUNCTIONS.unpackFloat, FUNCTIONS.unpackCodes]));
    const session = await engine.createSession(toBytes(graph.toModel()));
    const out = await session.run({ x: { type: 'float32', dims, data: new Float32Array(15) } });
    await session.release();
    const integers = Float32Array.from(codes, (c) => c + offset);
    const scaled = integers.map((v, i) => v * perChannel[Math.floor(i / 5)]!);
    expect(out['y0']!.data).toEqual(scaled);
    expect(out['y1']!.data).toEqual(scaled);
    expect(out['y2']!.data).toEqual(integers);
  });

  const codebooks = [13, 17, 21].flatMap((opset) => [2, 3, 5].map((bits) => ({ opset, bits })));

  it.each(codebooks)('looks codes of $bits bits up in a codebook at opset $opset', async ({ opset, bits }) => {
    const codes = Uint8Array.from({ length: 15 }, (_, i) => (i * 7 + 3) % 2 ** bits);
    const levels = Int8Array.from({ length: 2 ** bits }, (_, k) => Math.round(63 * Math.sin(5 * k)));
    const { graph, x } = startGraph(opset, dims);
    const place = Float32Array.from({ length: bits }, (_, i) => 2 ** (bits - 1 - i));
    const tensors = [
      makeTensor('p', DataType.UINT8, [bits, 2], packCodes(codes, bits)),
      makeTensor('v', DataType.FLOAT, [1, bits], place),
      makeTensor('l', DataType.INT8, [levels.length], levels),
    ].map((tensor) => graph.addInitializer(tensor));
    const perChannel = Float32Array.of(0.5, 1, 2);
    const scale = graph.addInitializer(makeTensor('c', DataType.FLOAT, [3], perChannel));
    const column = graph.addInitializer(makeTensor('c2', DataType.FLOAT, [3, 1], perChannel));
    const shape = intsAttribute('s', dims);
    const attributes = [shape, intAttribute('x', 0)];
    const viaInt8 = graph.insertOp(FUNCTIONS.codebookInt8, [...tensors, scale], attributes, 'w8', DOMAIN);
    const viaFloat = graph.insertOp(FUNCTIONS.codebookFloat, [...tensors, column], [shape], 'wf', DOMAIN);
    const plain = graph.insertOp(FUNCTIONS.codebookCodes, tensors, [shape], 'wi', DOMAIN);
    const asFloat = graph.insertOp('Cast', [plain], [intAttribute('to', DataType.FLOAT)]);
    for (const [i, value] of [viaInt8, viaFloat, asFloat].entries())
      declareOutput(graph, graph.insertOp('Add', [x, value], [], `y${String(i)}`), dims);
    addFunctions(graph, new Set(Object.values(CODEBOOK_FUNCTIONS)));
    const session = await engine.createSession(toBytes(graph.toModel()));
    const out = await session.run({ x: { type: 'float32', dims, data: new Float32Array(15) } });
    await session.release();
    const integers = Float32Array.from(codes, (code) => levels[code]!);
    const scaled = integers.map((v, i) => v * perChannel[Math.floor(i / 5)]!);
    expect(out['y0']!.data).toEqual(scaled);
    expect(out['y1']!.data).toEqual(scaled);
    expect(out['y2']!.data).toEqual(integers);
  });
});
