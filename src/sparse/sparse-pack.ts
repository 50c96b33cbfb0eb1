/**
 * Sparse-packed tensors: one bit per element that says whether it is there, and the elements that are, with the
 * model-local functions that put them in their places while ONNX Runtime loads the file.
 *
 * The mask is a bit plane as in pack.ts. The place of an element among the stored ones is the number of bits set up to
 * it (CumSum), and 0 where its bit is not set: a zero is stored in front of the values, so that Gather finds it there.
 */
import { TensorProto_DataType as DataType, type FunctionProto } from 'onnx-buf';
import { intAttribute } from '../onnx/attributes.js';
import { FunctionBody } from '../onnx/function-body.js';
import { bitsOf, dequantized, DOMAIN, inShape, packCodes, unpackCodes } from '../quantization/pack.js';

/** Values as they are stored: codes, or the numbers themselves. */
export type SparseValues = Int8Array | Float32Array;

export interface SparsePacked<T extends SparseValues> {
  /** uint8 [ceil(count / 8)], a bit per element: byte i holds the elements i, i + M, ... i + 7M of its M bytes. */
  readonly mask: Uint8Array;
  /** [1 + elements that are not 0]: a 0, then those elements in order. */
  readonly values: T;
}

/** Bytes of a packed tensor: one bit per element, then the elements that are not 0, and the 0 in front of them. */
export function sparseBytes(count: number, nonZero: number, bytesPerValue: 1 | 4): number {
  return Math.ceil(count / 8) + (nonZero + 1) * bytesPerValue;
}

export function countNonZero(values: ArrayLike<number>): number {
  let count = 0;
  for (let i = 0; i < values.length; i++) if (values[i] !== 0) count++;
  return count;
}

export function packSparse<T extends SparseValues>(all: T): SparsePacked<T> {
  const present = new Uint8Array(all.length);
  const values = emptyLike(all, 1 + countNonZero(all));
  let next = 1;
  for (let i = 0; i < all.length; i++) {
    if (all[i] === 0) continue;
    present[i] = 1;
    values[next++] = all[i]!;
  }
  return { mask: packCodes(present, 1), values };
}

/** Inverse of `packSparse`. @param count elements of the tensor */
export function unpackSparse<T extends SparseValues>({ mask, values }: SparsePacked<T>, count: number): T {
  const present = unpackCodes(mask, 1, count);
  let next = 1;
  const all = emptyLike(values, count);
  for (let i = 0; i < count; i++) if (present[i] === 1) all[i] = values[next++]!;
  return all;
}

function emptyLike<T extends SparseValues>(values: T, length: number): T {
  return (values instanceof Int8Array ? new Int8Array(length) : new Float32Array(length)) as T;
}

/** `float`: codes times a scale; `int8`: the same by way of DequantizeLinear; `values`: the stored numbers themselves. */
export type SparseForm = 'float' | 'int8' | 'values';

/** Names of the functions, short because every call repeats them. */
export const SPARSE_FUNCTIONS: Readonly<Record<SparseForm, string>> = { float: 'S', int8: 'T', values: 'V' };

/**
 * S(m: mask uint8 [M], v: 0 and the values, c: scale; s: shape, x: channel axis).
 * `float` multiplies int8 values by c, broadcast over the shape; `int8` ends in DequantizeLinear(c along x), which the
 * engine fuses with the layer; `values` has no c and returns what is stored, of any type.
 */
export function sparseFunction(form: SparseForm, opset: number): FunctionProto {
  const body = new FunctionBody(SPARSE_FUNCTIONS[form], opset);
  const planes = body.op('Reshape', [bitsOf(body, 'm'), body.int64(-1)]);
  const bits = body.op('Cast', [planes], [intAttribute('to', DataType.INT32)]);
  const counted = body.op('CumSum', [bits, body.int64Scalar(0)]);
  const flat = body.op('Gather', ['v', body.op('Mul', [counted, bits])]);
  if (form === 'values') {
    inShape(body, flat, 'w');
    return body.finish(DOMAIN, ['m', 'v'], ['w'], ['s']);
  }
  const shaped = inShape(body, flat);
  if (form === 'int8') {
    dequantized(body, shaped);
    return body.finish(DOMAIN, ['m', 'v', 'c'], ['w'], ['s', 'x']);
  }
  body.op('Mul', [body.op('Cast', [shaped], [intAttribute('to', DataType.FLOAT)]), 'c'], [], 'w');
  return body.finish(DOMAIN, ['m', 'v', 'c'], ['w'], ['s']);
}
