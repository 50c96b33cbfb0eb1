/** Slices of stored tensors: taken out, or set to zero. Only the tensors that are given are copied. */
import type { TensorProto } from 'onnx-buf';
import { dataTypeInfo, type TensorData } from '../onnx/dtypes.js';
import { withFields } from '../onnx/message.js';
import { makeTensor, readTensor } from '../onnx/tensor.js';
import type { Kept } from './mender.js';

/** The tensor with only the kept indices of every axis. @param kept by axis */
export function keepSlices(tensor: TensorProto, kept: readonly Kept[]): TensorProto {
  const dims = tensor.dims.map(Number);
  let data = readTensor(tensor);
  for (const [axis, indices] of kept.entries()) {
    if (!indices) continue;
    data = keepAlong(data, dims, axis, indices);
    dims[axis] = indices.length;
  }
  return withFields(makeTensor(tensor.name, tensor.dataType, dims, data), {
    docString: tensor.docString,
    metadataProps: tensor.metadataProps,
  });
}

function keepAlong(data: TensorData, dims: readonly number[], axis: number, kept: Int32Array): TensorData {
  const inner = dims.slice(axis + 1).reduce((a, b) => a * b, 1);
  const outer = dims.slice(0, axis).reduce((a, b) => a * b, 1);
  const length = outer * kept.length * inner;
  const result = new (data.constructor as Float32ArrayConstructor)(length);
  const from = data as Float32Array;
  let to = 0;
  for (let o = 0; o < outer; o++) {
    const base = o * dims[axis] * inner;
    if (inner === 1) for (const index of kept) result[to++] = from[base + index];
    else {
      for (const index of kept) {
        const begin = base + index * inner;
        result.set(from.subarray(begin, begin + inner), to);
        to += inner;
      }
    }
  }
  return result;
}

/** The tensor with zeros at all indices that are not kept. @param kept by axis */
export function zeroSlices(tensor: TensorProto, kept: readonly Kept[]): TensorProto {
  const dims = tensor.dims.map(Number);
  const type = dataTypeInfo(tensor.dataType);
  const data = readTensor(tensor).slice();
  for (const [axis, indices] of kept.entries()) {
    if (!indices) continue;
    const inner = dims.slice(axis + 1).reduce((a, b) => a * b, 1);
    const stays = new Uint8Array(dims[axis]);
    for (const index of indices) stays[index] = 1;
    for (let at = 0; at < data.length; at += inner) {
      if (stays[(at / inner) % dims[axis]] === 0) (data as Float32Array).fill(0, at, at + inner);
    }
  }
  return makeTensor(tensor.name, type.code, dims, data);
}
