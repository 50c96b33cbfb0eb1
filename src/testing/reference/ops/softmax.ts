/** Softmax and the losses on class scores. */
import type { Node } from '../../../onnx/graph.js';
import { array, at, axisOf, forEachIndex, map, mapGroups, type NdArray } from '../array.js';
import type { ReferenceOperator } from '../operator.js';

function logSoftmax(x: NdArray, axis: number): NdArray {
  return mapGroups(x, new Set([axisOf(axis, x.dims.length)]), (values) => {
    const most = Math.max(...values);
    const logSum = most + Math.log(values.reduce((sum, v) => sum + Math.exp(v - most), 0));
    return values.map((v) => v - logSum);
  });
}

/** Minus the weighted log-probability of every label; labels equal to ignore_index count nothing. */
function negativeLogLikelihood(
  logProbabilities: NdArray,
  labels: NdArray,
  weights: NdArray | undefined,
  node: Node,
): NdArray {
  const ignored = node.int('ignore_index');
  const losses = array(labels.dims);
  let total = 0;
  forEachIndex(labels.dims, (index, flat) => {
    const label = labels.data[flat]!;
    if (label === ignored) return;
    const weight = weights ? weights.data[label]! : 1;
    total += weight;
    losses.data[flat] = -weight * at(logProbabilities, [index[0]!, label, ...index.slice(1)]);
  });
  const sum = losses.data.reduce((a, b) => a + b, 0);
  switch (node.string('reduction', 'mean')) {
    case 'none':
      return losses;
    case 'sum':
      return array([], [sum]);
    default:
      return array([], [sum / total]);
  }
}

export const softmax: Readonly<Record<string, ReferenceOperator>> = {
  Softmax: ([x], node) => [map(logSoftmax(x!, node.int('axis', -1)), Math.exp)],
  LogSoftmax: ([x], node) => [logSoftmax(x!, node.int('axis', -1))],
  Hardmax: ([x], node) => {
    const axes = new Set([axisOf(node.int('axis', -1), x!.dims.length)]);
    return [
      mapGroups(x!, axes, (values) => {
        const first = values.indexOf(Math.max(...values));
        return values.map((_, i) => (i === first ? 1 : 0));
      }),
    ];
  },
  SoftmaxCrossEntropyLoss: ([scores, labels, weights], node) => {
    const logProbabilities = logSoftmax(scores!, 1);
    return [negativeLogLikelihood(logProbabilities, labels!, weights, node), logProbabilities];
  },
  NegativeLogLikelihoodLoss: ([x, labels, weights], node) => [negativeLogLikelihood(x!, labels!, weights, node)],
};
