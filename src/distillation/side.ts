/** What distillation reads of a model: its answers, the features in front of the last layer, its units. */
import type { ModelProto } from 'onnx-buf';
import { Graph } from '../onnx/graph.js';
import { findLayers } from '../onnx/layers.js';
import type { TracedValues } from '../runtime/trace.js';
import { logitsOf } from '../training/logits.js';
import type { Side } from './lesson.js';
import { flowUnits } from './units.js';

/** Outputs that are compared: the one with a score per class, or others. */
export type Answering =
  | { readonly kind: 'classes'; readonly scores: string }
  | { readonly kind: 'values'; readonly outputs: readonly string[] };

/** @param shapes dims of its values for one sample */
export function sideOf(model: ModelProto, shapes: TracedValues, answering: Answering): Side {
  const graph = new Graph(model);
  const isClasses = answering.kind === 'classes';
  const logits = isClasses ? logitsOf(graph.mustGet(answering.scores)) : graph.mustGet(answering.outputs[0]!);
  const head = findLayers(graph).findLast(
    ({ output, biasSlot }) => output === logits || biasSlot?.node.outputs[0] === logits,
  );
  const dims = head && shapes.get(head.input.name)?.dims;
  return {
    ...{ model, units: flowUnits(model, shapes) },
    answers: isClasses ? [logits.name] : answering.outputs,
    classes: isClasses ? shapes.get(logits.name)!.dims[1]! : undefined,
    features: head && dims?.length === 2 ? { value: head.input.name, size: dims[1]! } : undefined,
  };
}
