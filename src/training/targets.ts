/** Targets of a batch, in the form that losses take: numbers of the shape of the output. */
import { FlowCompressError } from '../errors.js';
import type { HostTensor } from '../runtime/engine.js';

export interface ClassTargetOptions {
  /** Share of the probability that is spread evenly over all classes (Szegedy et al. 2016). */
  readonly labelSmoothing: number;
  /** Factor on the loss of each class. */
  readonly classWeights?: readonly number[];
}

/**
 * Probabilities [labels.length, classes].
 * @throws FlowCompressError `bad-input` for a label outside [0, classes)
 */
export function classTargets(labels: ArrayLike<number>, classes: number, options: ClassTargetOptions): HostTensor {
  const { labelSmoothing, classWeights } = options;
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
    const weight = classWeights?.[label] ?? 1;
    const row = n * classes;
    data.fill((weight * labelSmoothing) / classes, row, row + classes);
    data[row + label]! += weight * (1 - labelSmoothing);
  }
  return { type: 'float32', dims: [labels.length, classes], data };
}

/** Weights that make all classes count alike, with mean 1 over the samples. */
export function balancedWeights(labels: ArrayLike<number>, classes: number): number[] {
  const counts = new Array<number>(classes).fill(0);
  for (let n = 0; n < labels.length; n++) counts[labels[n]!]!++;
  const present = counts.filter((count) => count > 0).length;
  return counts.map((count) => (count > 0 ? labels.length / (present * count) : 1));
}
