/** Whether two models take the same inputs. */
import { FlowCompressError } from '../errors.js';
import type { ValueSignature } from '../runtime/engine.js';

/** `x float32 [?, 3, 8, 8], ...`. */
export function showInputs(inputs: readonly ValueSignature[]): string {
  return inputs
    .map(({ name, type, dims }) => `${name} ${type} [${dims.map((dim) => (dim === -1 ? '?' : dim)).join(', ')}]`)
    .join(', ');
}

/** Whether an input takes what another one takes, whatever they are called; one that insists on a batch size takes less. */
export function matchesInput(own: ValueSignature, other: ValueSignature): boolean {
  const open = (dim: number | string): boolean => typeof dim === 'string' || dim < 0;
  return (
    own.type === other.type &&
    own.dims.length === other.dims.length &&
    own.dims.every(
      (dim, axis) =>
        dim === other.dims[axis] || (axis > 0 && (open(dim) || open(other.dims[axis]))) || (axis === 0 && open(dim)),
    )
  );
}

/** @throws FlowCompressError `bad-input` when one set of samples cannot be fed to both models */
export function assertSameInputs(
  first: readonly ValueSignature[],
  other: readonly ValueSignature[],
  firstName: string,
  otherName: string,
): void {
  const same =
    first.length === other.length &&
    first.every((input) => {
      const match = other.find((candidate) => candidate.name === input.name);
      return match !== undefined && matchesInput(match, input);
    });
  if (same) return;
  throw new FlowCompressError(
    'bad-input',
    `${otherName} takes ${showInputs(other)}, but ${firstName} takes ${showInputs(first)}: they cannot be measured on the same samples.`,
    {
      node: otherName,
      hint: 'Give files whose inputs have the same names, types and shapes; evaluate others by themselves.',
    },
  );
}
