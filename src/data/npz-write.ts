/** Writes .npz files: a ZIP of .npy arrays, as numpy.savez and numpy.savez_compressed make them. */
import { zipSync } from 'fflate';
import { FlowCompressError } from '../errors.js';
import type { HostTensor } from '../runtime/engine.js';
import { writeNpy } from './npy.js';

/**
 * The bytes of a .npz file. Uncompressed by default, which lets readers seek to single samples.
 * @param arrays tensors by name; the data must hold product(dims) elements
 * @throws FlowCompressError `internal` when a tensor's data and dims disagree
 */
export function writeNpz(
  arrays: Readonly<Record<string, HostTensor>>,
  options: { compress?: boolean } = {},
): Uint8Array {
  const members: Record<string, Uint8Array> = {};
  for (const [name, tensor] of Object.entries(arrays)) {
    const count = tensor.dims.reduce((product, dim) => product * dim, 1);
    if (tensor.data.length !== count) {
      throw new FlowCompressError(
        'internal',
        `Array ${name} has ${tensor.data.length} elements, its shape [${tensor.dims.join(', ')}] says ${count}.`,
        { node: name },
      );
    }
    members[`${name}.npy`] = writeNpy(tensor);
  }
  // A fixed time stamp: the same arrays always give the same bytes.
  return zipSync(members, { level: options.compress ? 6 : 0, mtime: new Date(1980, 0, 1) });
}
