/** What distillation reads of a model: its logits, the features in front of the last layer, its units. */
import type { ModelProto } from 'onnx-buf';
import { Graph } from '../onnx/graph.js';
import { findLayers } from '../onnx/layers.js';
import type { TracedValues } from '../runtime/trace.js';
import { logitsOf } from '../training/logits.js';
import type { Side } from './lesson.js';
import { flowUnits } from './units.js';

/**
 * @param shapes dims of its values for one sample
 * @param scores name of the output with one score per class
 */
export function sideOf(model: ModelProto, shapes: TracedValues, scores: string): Side {
  const graph = new Graph(model);
  const logits = logitsOf(graph.mustGet(scores));
  const head = findLayers(graph).findLast(
    ({ output, biasSlot }) => output === logits || biasSlot?.node.outputs[0] === logits,
  );
  const dims = head && shapes.get(head.input.name)?.dims;
  return {
    ...{ model, logits: logits.name, classes: shapes.get(logits.name)!.dims[1]!, units: flowUnits(model, shapes) },
    features: head && dims?.length === 2 ? { value: head.input.name, size: dims[1]! } : undefined,
  };
}
