/** Arrays of targets as losses take them: shapes and values checked, by sample. */
import { FlowCompressError } from '../../errors.js';
import type { HostTensor } from '../../runtime/engine.js';
import type { LossName } from '../../training/losses.js';

/**
 * @param found shape of the array, [samples, ...]
 * @param dims shape of the output for some number of samples
 * @throws FlowCompressError `bad-input` when they differ in more than the first axis and axes of length 1
 */
export function checkTargetShape(
  found: readonly number[],
  dims: readonly number[],
  output: string,
  source: string,
): void {
  const long = (shape: readonly number[]): string =>
    shape
      .slice(1)
      .filter((size) => size !== 1)
      .join();
  if (long(found) === long(dims)) return;
  const show = (shape: readonly number[]): string => `[${['samples', ...shape.slice(1)].join(', ')}]`;
  throw new FlowCompressError(
    'bad-input',
    `The array ${output} in ${source} has the shape ${show(found)}, the output ${output} of the model ${show(dims)}.`,
    { node: source, hint: 'Save what this output should be for every sample, in its own shape.' },
  );
}

interface TargetUse {
  readonly loss: LossName;
  readonly dims: readonly number[];
  readonly output: string;
  /** Whether the output is a softmax, so that targets for it are probabilities. */
  readonly isProbability: boolean;
}

/** How far rows of probabilities may be from a sum of 1. */
const SUM_TOLERANCE = 1e-3;
/** Smallest probability of a teacher whose logarithm is taken. */
const LEAST = 1e-12;

/**
 * The targets of a batch in the shape of the output.
 * @throws FlowCompressError `bad-input` for values that the loss cannot be given: probabilities that are none
 */
export function checkedTargets(tensor: HostTensor, { loss, dims, output, isProbability }: TargetUse): HostTensor {
  const rows = tensor.dims[0]!;
  const shape = [rows, ...dims.slice(1)];
  const data = tensor.data as Float32Array;
  const refuse = (what: string, hint: string): FlowCompressError =>
    new FlowCompressError('bad-input', `The loss ${loss} takes ${what}, but the array ${output} holds others.`, {
      node: output,
      hint,
    });
  if (loss === 'bce' && data.some((v) => v < 0 || v > 1))
    throw refuse('targets from 0 to 1', 'Scale them to 0..1, or use mse, l1 or huber.');
  const areProbabilities = loss === 'cross-entropy' || (loss === 'kl' && isProbability);
  if (areProbabilities && !sumToOne(data, shape))
    throw refuse(
      'probabilities that sum to 1 over the classes (axis 1)',
      loss === 'kl'
        ? `${output} ends in a softmax: give the teacher's softmax too.`
        : 'Use kl for logits of a teacher.',
    );
  // Softmax of the logarithm is the probability itself.
  const values = loss === 'kl' && isProbability ? data.map((p) => Math.log(Math.max(p, LEAST))) : data;
  return { type: 'float32', dims: shape, data: values };
}

/** Whether the numbers along axis 1 are probabilities. */
function sumToOne(data: Float32Array, [rows, classes, ...rest]: readonly number[]): boolean {
  const inner = rest.reduce((a, b) => a * b, 1);
  for (let n = 0; n < rows!; n++)
    for (let k = 0; k < inner; k++) {
      let sum = 0;
      for (let c = 0; c < classes!; c++) {
        const p = data[(n * classes! + c) * inner + k]!;
        if (p < 0) return false;
        sum += p;
      }
      if (Math.abs(sum - 1) > SUM_TOLERANCE) return false;
    }
  return true;
}
