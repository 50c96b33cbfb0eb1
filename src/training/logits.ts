/** Where the logits of a model are: behind the activation that makes its scores. */
import type { Node, Value } from '../onnx/graph.js';

export type Activation = 'Softmax' | 'LogSoftmax' | 'Sigmoid';

export const SOFTMAXES: readonly Activation[] = ['Softmax', 'LogSoftmax'];

/** What an activation of one of these kinds reads to make the scores, and its node; the scores themselves where there is none. */
export function beforeActivation(
  scores: Value,
  kinds: readonly Activation[],
): { readonly value: Value; readonly kind?: Activation; readonly node?: Node } {
  const node = scores.producer;
  const kind = kinds.find((name) => node?.is(name));
  const value = node?.inputs[0];
  return node && kind && value ? { value, kind, node } : { value: scores };
}

/** What a Softmax or LogSoftmax that makes the scores reads; the scores themselves where there is none. */
export function logitsOf(scores: Value): Value {
  return beforeActivation(scores, SOFTMAXES).value;
}
