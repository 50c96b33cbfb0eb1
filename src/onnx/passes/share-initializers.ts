/** Initializers of the same type, shape and contents become one. */
import type { TensorProto } from 'onnx-buf';
import { dataTypeInfo } from '../dtypes.js';
import type { Graph, Value } from '../graph.js';
import { isExternal, readTensor, tensorByteLength } from '../tensor.js';

/**
 * Runs in place and returns the bytes of contents that are no longer read; `removeDead` drops them.
 * @param limit tensors of more bytes are left alone
 */
export function shareInitializers(graph: Graph, limit = Infinity): number {
  const buckets = new Map<string, Value[]>();
  let saved = 0;
  for (const value of [...graph.values()]) {
    const tensor = value.initializer;
    // Inputs with a default value are told apart by their callers; strings are rare and small.
    if (!tensor || graph.inputs.includes(value) || graph.isGraphOutput(value)) continue;
    if (isExternal(tensor) || dataTypeInfo(tensor.dataType).array === undefined) continue;
    const bytes = tensorByteLength(tensor);
    if (bytes > limit) continue;
    const contents = bytesOf(tensor);
    const key = `${String(tensor.dataType)}[${tensor.dims.join()}]${hash(contents).toString(36)}`;
    const bucket = buckets.get(key);
    const twin = bucket?.find((other) => sameBytes(bytesOf(other.initializer!), contents));
    if (twin) {
      graph.replaceUses(value, twin);
      saved += bytes;
    } else if (bucket) bucket.push(value);
    else buckets.set(key, [value]);
  }
  return saved;
}

function bytesOf(tensor: TensorProto): Uint8Array {
  if (tensor.rawData.length > 0) return tensor.rawData;
  const data = readTensor(tensor);
  return new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
}

/** FNV-1a, of 32 bits. */
function hash(bytes: Uint8Array): number {
  let state = 0x811c9dc5;
  for (const byte of bytes) state = Math.imul(state ^ byte, 0x01000193);
  return state >>> 0;
}

function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => byte === b[i]);
}
