/**
 * Bit-packed weight codes and the model-local function that unpacks them while ONNX Runtime loads the file.
 *
 * Codes of b bits are stored as b bit planes. A plane has one bit per weight, padded to a whole number of bytes; byte i
 * holds the weights i, i + M, i + 2M, ... i + 7M of the plane's M bytes, so that unpacking is a shift by eight
 * distances and one back. Ordinary operators on constants are folded when a session is created: after loading, the weights are plain.
 */
import {
  AttributeProto_AttributeType as Kind,
  TensorProto_DataType as DataType,
  type AttributeProto,
  type FunctionProto,
} from 'onnx-buf';
import { intAttribute, referenceAttribute, stringAttribute } from '../onnx/attributes.js';
import { FunctionBody } from '../onnx/function-body.js';

/** Domain of the functions that this library writes into models. */
export const DOMAIN = 'fc';

/** Bytes that `packCodes` needs for `count` codes. */
export function packedBytes(count: number, bits: number): number {
  return bits === 8 ? count : bits * Math.ceil(count / 8);
}

/**
 * Packs unsigned codes (0 .. 2^bits - 1).
 * @returns uint8 [bits, ceil(count / 8)], row-major, the most significant plane first.
 */
export function packCodes(codes: Uint8Array, bits: number): Uint8Array {
  const stride = Math.ceil(codes.length / 8);
  const out = new Uint8Array(bits * stride);
  for (let slot = 0; slot < 8; slot++) {
    const from = slot * stride;
    const count = Math.min(stride, codes.length - from);
    for (let plane = 0; plane < bits; plane++) {
      const shift = bits - 1 - plane;
      const base = plane * stride;
      for (let i = 0; i < count; i++) out[base + i]! |= ((codes[from + i]! >> shift) & 1) << slot;
    }
  }
  return out;
}

/** Inverse of `packCodes`. */
export function unpackCodes(packed: Uint8Array, bits: number, count: number): Uint8Array {
  const stride = packed.length / bits;
  const codes = new Uint8Array(count);
  for (let plane = 0; plane < bits; plane++) {
    const shift = bits - 1 - plane;
    for (let i = 0; i < count; i++) {
      const slot = Math.floor(i / stride);
      codes[i]! |= ((packed[plane * stride + i - slot * stride]! >> slot) & 1) << shift;
    }
  }
  return codes;
}

/** Names of the functions, short because every call repeats them. */
export const FUNCTIONS = {
  ...{ unpackInt8: 'W', unpackFloat: 'F', unpackCodes: 'I' },
  ...{ codebookInt8: 'K', codebookFloat: 'L', codebookCodes: 'M' },
  ...{ activation: 'A', bias: 'B' },
} as const;

/** What an unpacking function returns: float weights, the same by way of DequantizeLinear, or the int8 codes. */
export type UnpackForm = 'int8' | 'float' | 'codes';

/** The functions that unpack codes of a grid, and those that look them up in a codebook. */
export const UNPACK_FUNCTIONS = {
  int8: FUNCTIONS.unpackInt8,
  float: FUNCTIONS.unpackFloat,
  codes: FUNCTIONS.unpackCodes,
};
export const CODEBOOK_FUNCTIONS = {
  ...{ int8: FUNCTIONS.codebookInt8, float: FUNCTIONS.codebookFloat, codes: FUNCTIONS.codebookCodes },
};

/**
 * W(p: packed uint8 [b, M], v: place values float [1, b], o: offset float [1], c: scale; s: shape, x: channel axis).
 * A code is sum_k v_k bit_k + o, exact in float32. `int8` casts it and ends in DequantizeLinear(c along x), which the
 * engine fuses with the layer; `float` multiplies by c, broadcast over the shape; `codes` returns the int8 tensor.
 */
export function unpackFunction(form: UnpackForm, opset: number): FunctionProto {
  const body = new FunctionBody(UNPACK_FUNCTIONS[form], opset);
  const shifted = body.op('Add', [unpackedPlanes(body), 'o']);
  const shaped = inShape(body, body.op('Reshape', [shifted, body.int64(-1)]));
  if (form === 'float') {
    body.op('Mul', [shaped, 'c'], [], 'w');
    return body.finish(DOMAIN, ['p', 'v', 'o', 'c'], ['w'], ['s']);
  }
  const to = intAttribute('to', DataType.INT8);
  if (form === 'codes') {
    body.op('Cast', [shaped], [to], 'w');
    return body.finish(DOMAIN, ['p', 'v', 'o'], ['w'], ['s']);
  }
  dequantized(body, body.op('Cast', [shaped], [to]));
  return body.finish(DOMAIN, ['p', 'v', 'o', 'c'], ['w'], ['s', 'x']);
}

/**
 * K(p: packed uint8 [b, M], v: place values float [1, b], l: levels int8, c: scale; s: shape, x: channel axis).
 * As `unpackFunction`, with the level at the place sum_k v_k bit_k in the stead of that number.
 */
export function codebookFunction(form: UnpackForm, opset: number): FunctionProto {
  const body = new FunctionBody(CODEBOOK_FUNCTIONS[form], opset);
  const places = body.op('Cast', [unpackedPlanes(body)], [intAttribute('to', DataType.INT32)]);
  const levels = body.op('Gather', ['l', body.op('Reshape', [places, body.int64(-1)])]);
  if (form === 'codes') {
    inShape(body, levels, 'w');
    return body.finish(DOMAIN, ['p', 'v', 'l'], ['w'], ['s']);
  }
  const shaped = inShape(body, levels);
  if (form === 'int8') {
    dequantized(body, shaped);
    return body.finish(DOMAIN, ['p', 'v', 'l', 'c'], ['w'], ['s', 'x']);
  }
  body.op('Mul', [body.op('Cast', [shaped], [intAttribute('to', DataType.FLOAT)]), 'c'], [], 'w');
  return body.finish(DOMAIN, ['p', 'v', 'l', 'c'], ['w'], ['s']);
}

/** [1, b] x [b, 8M]: every code as the sum of its place values `v` in the planes `p`. */
function unpackedPlanes(body: FunctionBody): string {
  const bits = bitsOf(body, body.op('Unsqueeze', ['p', body.int64(1)]));
  const flat = body.op('Reshape', [bits, body.int64(0, -1)]);
  return body.op('MatMul', ['v', body.op('Cast', [flat], [intAttribute('to', DataType.FLOAT)])]);
}

/** The bits of a packed plane: uint8 [M], or [..., 1, M], becomes [..., 8, M] of 0 and 1. */
export function bitsOf(body: FunctionBody, packed: string): string {
  const direction = (name: string): AttributeProto[] => [stringAttribute('direction', name)];
  const left = body.op('BitShift', [packed, body.uint8([8, 1], [7, 6, 5, 4, 3, 2, 1, 0])], direction('LEFT'));
  return body.op('BitShift', [left, body.uint8([], [7])], direction('RIGHT'));
}

/** The first elements of a vector, as many as the shape in the attribute `s` has, in that shape. */
export function inShape(body: FunctionBody, flat: string, output?: string): string {
  const shape = body.op('Constant', [], [referenceAttribute('value_ints', 's', Kind.INTS)]);
  const count = body.op('ReduceProd', [shape], [intAttribute('keepdims', 1)]);
  return body.op('Reshape', [body.op('Slice', [flat, body.int64(0), count]), shape], [], output);
}

/** Ends a function for int8 execution: `w` is the int8 tensor times the scale `c` along the axis in the attribute `x`. */
export function dequantized(body: FunctionBody, integers: string): void {
  // A zero point, although it is 0 everywhere: without one the engine does not form QGemm.
  const zero = body.op('Cast', [body.op('Sub', ['c', 'c'])], [intAttribute('to', DataType.INT8)]);
  body.op('DequantizeLinear', [integers, 'c', zero], [referenceAttribute('axis', 'x', Kind.INT)], 'w');
}

/** A(x; s: scale, z: zero point 0..255) -> x rounded to uint8 and back. */
export function activationFunction(opset: number): FunctionProto {
  const body = new FunctionBody(FUNCTIONS.activation, opset);
  const scale = body.op('Constant', [], [referenceAttribute('value_float', 's', Kind.FLOAT)]);
  const zero = body.op('Constant', [], [referenceAttribute('value_int', 'z', Kind.INT)]);
  const point = body.op('Cast', [zero], [intAttribute('to', DataType.UINT8)]);
  const q = body.op('QuantizeLinear', ['x', scale, point]);
  body.op('DequantizeLinear', [q, scale, point], [], 'y');
  return body.finish(DOMAIN, ['x'], ['y'], ['s', 'z']);
}

/** B(bias float [channels], weight scale float [channels]; s: input scale) -> bias rounded to int32 steps of s * scale. */
export function biasFunction(opset: number): FunctionProto {
  const body = new FunctionBody(FUNCTIONS.bias, opset);
  const scale = body.op('Constant', [], [referenceAttribute('value_float', 's', Kind.FLOAT)]);
  const step = body.op('Mul', ['c', scale]);
  const rounded = body.op('Round', [body.op('Div', ['b', step])]);
  const integer = body.op('Cast', [rounded], [intAttribute('to', DataType.INT32)]);
  body.op('DequantizeLinear', [integer, step], [intAttribute('axis', 0)], 'y');
  return body.finish(DOMAIN, ['b', 'c'], ['y'], ['s']);
}
