/** The model that ships. */
import type { ModelProto } from 'onnx-buf';
import { packedWriter } from './packed-writer.js';
import { place, type Deployment } from './placement.js';

/**
 * Puts a plan into a model with packed weights.
 * @param model a prepared float model (constants inlined, batch norms folded), opset 13 or newer
 * @throws FlowCompressError `internal` when an int8 node has an activation without a quantizer.
 */
export function deploy(model: ModelProto, plan: Deployment): ModelProto {
  return place(model, plan, packedWriter);
}
