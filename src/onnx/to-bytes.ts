/** A whole model as bytes in memory, for engines that compile from a buffer. */
import type { ModelProto } from 'onnx-buf';
import { planEncoding } from './write.js';

/** The serialized ModelProto. Copies every tensor once: meant for models below the 2 GB limit of a message. */
export function toBytes(model: ModelProto): Uint8Array {
  const { byteLength, chunks } = planEncoding(model);
  const bytes = new Uint8Array(byteLength);
  let at = 0;
  for (const chunk of chunks) {
    bytes.set(chunk, at);
    at += chunk.length;
  }
  return bytes;
}
