/**
 * Bit-packed weight codes and the model-local function that unpacks them while ONNX Runtime loads the file.
 *
 * Codes of b bits are stored as b bit planes. A plane has one bit per weight, padded to a whole number of bytes; byte i
 * holds the weights i, i + M, i + 2M, ... i + 7M of the plane's M bytes, so that unpacking is eight shifts and one
 * Concat. Ordinary operators on constants are folded when a session is created: after loading, the weights are plain.
 */
import { create } from '@bufbuild/protobuf';
import {
  AttributeProto_AttributeType as Kind,
  FunctionProtoSchema,
  NodeProtoSchema,
  OperatorSetIdProtoSchema,
  TensorProto_DataType as DataType,
  type AttributeProto,
  type FunctionProto,
  type NodeProto,
} from 'onnx-buf';
import {
  intAttribute,
  intsAttribute,
  referenceAttribute,
  stringAttribute,
  tensorAttribute,
} from '../onnx/attributes.js';
import { makeTensor } from '../onnx/tensor.js';

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
export const FUNCTIONS = { unpackInt8: 'W', unpackFloat: 'F', unpackCodes: 'I', activation: 'A', bias: 'B' } as const;

/** What an unpacking function returns: float weights, the same by way of DequantizeLinear, or the int8 codes. */
export type UnpackForm = 'int8' | 'float' | 'codes';

/**
 * W(p: packed uint8 [b, M], v: place values float [1, b], o: offset float [1], c: scale; s: shape, x: channel axis).
 * A code is sum_k v_k bit_k + o, exact in float32. `int8` casts it and ends in DequantizeLinear(c along x), which the
 * engine fuses with the layer; `float` multiplies by c, broadcast over the shape; `codes` returns the int8 tensor.
 */
export function unpackFunction(form: UnpackForm, opset: number): FunctionProto {
  const names = { int8: FUNCTIONS.unpackInt8, float: FUNCTIONS.unpackFloat, codes: FUNCTIONS.unpackCodes };
  const body = new Body(names[form], opset);
  const seven = body.uint8(7);
  const planes: string[] = [];
  for (let j = 0; j < 8; j++) {
    const left = j === 7 ? 'p' : body.op('BitShift', ['p', body.uint8(7 - j)], [stringAttribute('direction', 'LEFT')]);
    planes.push(body.op('BitShift', [left, seven], [stringAttribute('direction', 'RIGHT')]));
  }
  const bits = body.op('Concat', planes, [intAttribute('axis', 1)]);
  const asFloat = body.op('Cast', [bits], [intAttribute('to', DataType.FLOAT)]);
  // [1, b] x [b, 8M]: the place values, with the offset added below.
  const codes = body.op('MatMul', ['v', asFloat]);
  const shifted = body.op('Add', [codes, 'o']);
  const shape = body.op('Constant', [], [referenceAttribute('value_ints', 's', Kind.INTS)]);
  const count = body.op('ReduceProd', [shape], [intAttribute('keepdims', 1)]);
  const flat = body.op('Reshape', [shifted, body.int64(-1)]);
  const exact = body.op('Slice', [flat, body.int64(0), count]);
  const shaped = body.op('Reshape', [exact, shape]);
  if (form === 'float') {
    body.op('Mul', [shaped, 'c'], [], 'w');
    return body.finish(['p', 'v', 'o', 'c'], ['w'], ['s']);
  }
  const to = intAttribute('to', DataType.INT8);
  if (form === 'codes') {
    body.op('Cast', [shaped], [to], 'w');
    return body.finish(['p', 'v', 'o'], ['w'], ['s']);
  }
  // A zero point, although it is 0 everywhere: without one the engine does not form QGemm.
  const zero = body.op('Cast', [body.op('Sub', ['c', 'c'])], [to]);
  const integer = body.op('Cast', [shaped], [to]);
  body.op('DequantizeLinear', [integer, 'c', zero], [referenceAttribute('axis', 'x', Kind.INT)], 'w');
  return body.finish(['p', 'v', 'o', 'c'], ['w'], ['s', 'x']);
}

/** A(x; s: scale, z: zero point 0..255) -> x rounded to uint8 and back. */
export function activationFunction(opset: number): FunctionProto {
  const body = new Body(FUNCTIONS.activation, opset);
  const scale = body.op('Constant', [], [referenceAttribute('value_float', 's', Kind.FLOAT)]);
  const zero = body.op('Constant', [], [referenceAttribute('value_int', 'z', Kind.INT)]);
  const point = body.op('Cast', [zero], [intAttribute('to', DataType.UINT8)]);
  const q = body.op('QuantizeLinear', ['x', scale, point]);
  body.op('DequantizeLinear', [q, scale, point], [], 'y');
  return body.finish(['x'], ['y'], ['s', 'z']);
}

/** B(bias float [channels], weight scale float [channels]; s: input scale) -> bias rounded to int32 steps of s * scale. */
export function biasFunction(opset: number): FunctionProto {
  const body = new Body(FUNCTIONS.bias, opset);
  const scale = body.op('Constant', [], [referenceAttribute('value_float', 's', Kind.FLOAT)]);
  const step = body.op('Mul', ['c', scale]);
  const rounded = body.op('Round', [body.op('Div', ['b', step])]);
  const integer = body.op('Cast', [rounded], [intAttribute('to', DataType.INT32)]);
  body.op('DequantizeLinear', [integer, step], [intAttribute('axis', 0)], 'y');
  return body.finish(['b', 'c'], ['y'], ['s']);
}

/** Collects the nodes of one function; inner names are numbered. */
class Body {
  private readonly nodes: NodeProto[] = [];
  private next = 0;

  constructor(
    private readonly name: string,
    private readonly opset: number,
  ) {}

  op(opType: string, input: string[], attribute: AttributeProto[] = [], output = `t${String(this.next++)}`): string {
    this.nodes.push(create(NodeProtoSchema, { opType, input, output: [output], attribute }));
    return output;
  }

  uint8(value: number): string {
    const tensor = makeTensor('', DataType.UINT8, [], Uint8Array.of(value));
    return this.op('Constant', [], [tensorAttribute('value', tensor)]);
  }

  int64(value: number): string {
    return this.op('Constant', [], [intsAttribute('value_ints', [value])]);
  }

  finish(input: string[], output: string[], attribute: string[]): FunctionProto {
    return create(FunctionProtoSchema, {
      name: this.name,
      domain: DOMAIN,
      input,
      output,
      attribute,
      node: this.nodes,
      opsetImport: [create(OperatorSetIdProtoSchema, { domain: '', version: BigInt(this.opset) })],
    });
  }
}
