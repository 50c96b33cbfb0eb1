/** Checks class labels and brings them to the form every dataset uses. */
import { FlowCompressError } from '../errors.js';
import type { HostTensor } from '../runtime/engine.js';
import { isFloatType } from './elements.js';

/**
 * Class index per sample. Whether an index is below the number of classes is checked by whoever knows the model.
 * @param tensor integers of shape [samples] or [samples, 1]
 * @param source file (and array) the labels come from
 * @throws FlowCompressError `bad-input` when labels are not integers, not one per sample, negative or above 2^31
 */
export function parseLabels(tensor: HostTensor, samples: number, source: string): Int32Array {
  const { type, dims, data } = tensor;
  const refuse = (message: string, hint: string): FlowCompressError =>
    new FlowCompressError('bad-input', `${source}: ${message}`, { node: source, hint });
  if (isFloatType(type)) {
    throw refuse(
      `labels must be integers, found ${type}.`,
      'Save them with labels.astype(np.int64); class probabilities with probabilities.argmax(1).',
    );
  }
  if (dims.length !== 1 && !(dims.length === 2 && dims[1] === 1)) {
    throw refuse(
      `labels must have shape [samples], found [${dims.join(', ')}].`,
      'Give one class index per sample; one-hot labels with labels.argmax(1).',
    );
  }
  if (dims[0] !== samples) {
    throw refuse(
      `there are ${dims[0]} labels for ${samples} samples.`,
      'Give one label per sample, in the same order.',
    );
  }
  const labels = new Int32Array(samples);
  for (let i = 0; i < samples; i++) {
    if (data[i] < 0 || data[i] > 0x7fffffff) {
      throw refuse(
        `label ${data[i]} of sample ${i} is not a class index.`,
        'Labels count classes from 0; leave out samples without a class.',
      );
    }
    labels[i] = Number(data[i]);
  }
  return labels;
}
