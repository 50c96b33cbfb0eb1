/** A whole model as bytes in memory, for engines that compile from a buffer. */
import { toBinary } from '@bufbuild/protobuf';
import { ModelProtoSchema, type ModelProto } from 'onnx-buf';

/** The serialized ModelProto. Copies every tensor: meant for models below the 2 GB limit of a message. */
export function toBytes(model: ModelProto): Uint8Array {
  return toBinary(ModelProtoSchema, model);
}
