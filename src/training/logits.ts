/** Where the logits of a classifier are. */
import type { Value } from '../onnx/graph.js';

/** What a Softmax or LogSoftmax that makes the scores reads; the scores themselves where there is none. */
export function logitsOf(scores: Value): Value {
  const last = scores.producer;
  return ((last?.is('Softmax') || last?.is('LogSoftmax')) && last.inputs[0]) || scores;
}
