/** Targets of a batch made from labels, in the form that losses take: numbers of the shape of the output. */
import { FlowCompressError } from '../errors.js';
import type { HostTensor } from '../runtime/engine.js';

/**
 * Probabilities [labels.length, classes].
 * @param labelSmoothing share of the probability that is spread evenly over all classes (Szegedy et al. 2016)
 * @throws FlowCompressError `bad-input` for a label outside [0, classes)
 */
export function classTargets(labels: ArrayLike<number>, classes: number, labelSmoothing = 0): HostTensor {
  const data = new Float32Array(labels.length * classes);
  for (let n = 0; n < labels.length; n++) {
    const label = labels[n]!;
    if (!(label >= 0 && label < classes))
      throw new FlowCompressError(
        'bad-input',
        `The label ${String(label)} is none of the model's ${String(classes)} classes.`,
        {
          hint: 'Labels are numbers from 0 to one less than the number of scores.',
        },
      );
    const row = n * classes;
    data.fill(labelSmoothing / classes, row, row + classes);
    data[row + label]! += 1 - labelSmoothing;
  }
  return { type: 'float32', dims: [labels.length, classes], data };
}

/**
 * The probability of class 1, [labels.length], for models with one score per sample.
 * @throws FlowCompressError `bad-input` for a label other than 0 and 1
 */
export function binaryTargets(labels: ArrayLike<number>, labelSmoothing = 0): HostTensor {
  const rows = classTargets(labels, 2, labelSmoothing).data;
  return { type: 'float32', dims: [labels.length], data: Float32Array.from(labels, (_, n) => Number(rows[2 * n + 1])) };
}

/** Weights that make all classes count alike, with mean 1 over the samples. */
export function balancedWeights(labels: ArrayLike<number>, classes: number): number[] {
  const counts = new Array<number>(classes).fill(0);
  for (let n = 0; n < labels.length; n++) counts[labels[n]!]!++;
  const present = counts.filter((count) => count > 0).length;
  return counts.map((count) => (count > 0 ? labels.length / (present * count) : 1));
}
