/**
 * NumPy's .npy format: reading a header and writing a whole array. The header is one small Python dict literal; no npm
 * package that parses it also leaves the array data unread, which constant memory needs, so it is parsed here.
 * Format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
 */
import { FlowCompressError } from '../errors.js';
import type { HostTensor, HostType } from '../runtime/engine.js';
import { BYTES_PER_ELEMENT } from './elements.js';

/** What a .npy header says: `data` starts at byte `dataOffset` and holds product(dims) little-endian elements in C order. */
export interface NpyHeader {
  readonly type: HostType;
  readonly dims: readonly number[];
  readonly dataOffset: number;
}

const CODES: Readonly<Record<HostType, string>> = {
  float64: 'f8',
  int64: 'i8',
  uint64: 'u8',
  float32: 'f4',
  int32: 'i4',
  uint32: 'u4',
  float16: 'f2',
  int16: 'i2',
  uint16: 'u2',
  int8: 'i1',
  uint8: 'u1',
  bool: 'b1',
};
const TYPES: ReadonlyMap<string, HostType> = new Map(
  (Object.keys(CODES) as HostType[]).map((type) => [CODES[type], type] as const),
);

const MAGIC = [0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59] as const; // \x93NUMPY
const HEADER_LIMIT = 1 << 20;

/**
 * How many bytes from the start of the file the header takes, magic included.
 * @param prefix at least the first 12 bytes of the file
 * @throws FlowCompressError `bad-input` when this is not a .npy file
 */
export function npyHeaderLength(prefix: Uint8Array, name: string): number {
  if (prefix.length < 12 || MAGIC.some((byte, i) => prefix[i] !== byte)) {
    throw new FlowCompressError('bad-input', `${name} is not a NumPy array: the \\x93NUMPY signature is missing.`, {
      node: name,
      hint: 'Write the file with numpy.savez(path, name=array, ..., labels=labels).',
    });
  }
  const view = new DataView(prefix.buffer, prefix.byteOffset, prefix.byteLength);
  const length = prefix[6] === 1 ? 10 + view.getUint16(8, true) : 12 + view.getUint32(8, true);
  if (prefix[6] < 1 || prefix[6] > 3 || length > HEADER_LIMIT) {
    throw new FlowCompressError(
      'bad-input',
      `${name}: NumPy format version ${prefix[6]} with a header of ${length} bytes cannot be read.`,
      {
        node: name,
        hint: 'Write the file again with numpy.savez.',
      },
    );
  }
  return length;
}

/**
 * Parses a .npy header.
 * @param bytes the start of the file, at least npyHeaderLength() bytes
 * @param name names the array in messages
 * @throws FlowCompressError `bad-input` for object, string, big-endian and Fortran-ordered arrays, each with its remedy
 */
export function parseNpyHeader(bytes: Uint8Array, name: string): NpyHeader {
  const dataOffset = npyHeaderLength(bytes, name);
  const refuse = (reason: string, hint: string): FlowCompressError =>
    new FlowCompressError('bad-input', `${name}: ${reason}`, { node: name, hint });
  if (bytes.length < dataOffset)
    throw refuse('the file ends inside its header.', 'The file is truncated; copy or write it again.');
  const text = new TextDecoder('latin1').decode(bytes.subarray(bytes[6] === 1 ? 10 : 12, dataOffset));

  const descr = /['"]descr['"]\s*:\s*(?:['"]([^'"]*)['"]|\[)/.exec(text);
  const order = /['"]fortran_order['"]\s*:\s*(True|False)/.exec(text);
  const shape = /['"]shape['"]\s*:\s*\(([^)]*)\)/.exec(text);
  if (!descr || !order || !shape)
    throw refuse(
      `the header cannot be understood: ${text.trim().slice(0, 200)}`,
      'Write the file again with numpy.savez.',
    );
  if (descr[1] === undefined)
    throw refuse('structured arrays are not supported.', 'Save one plain array per model input.');

  const [, endian, code] = /^([<>=|]?)(.*)$/.exec(descr[1])!;
  if (code.startsWith('O')) {
    throw refuse(
      'it is an object array (Python objects, not numbers).',
      'Convert it first, for example np.stack(list_of_arrays).astype(np.float32).',
    );
  }
  const type = TYPES.get(code);
  if (!type)
    throw refuse(
      `element type ${descr[1]} is not supported.`,
      'Save integers or floats, for example array.astype(np.float32).',
    );
  if (endian === '>' && BYTES_PER_ELEMENT[type] > 1) {
    throw refuse('its elements are big-endian.', "Save it with array.astype(array.dtype.newbyteorder('<')).");
  }
  const dims = shape[1]
    .split(',')
    .map((part) => part.trim().replace(/L$/, ''))
    .filter((part) => part !== '')
    .map(Number);
  if (dims.some((dim) => !Number.isSafeInteger(dim) || dim < 0)) {
    throw refuse(`its shape (${shape[1]}) is not a list of sizes.`, 'Write the file again with numpy.savez.');
  }
  if (order[1] === 'True' && dims.filter((dim) => dim > 1).length > 1) {
    throw refuse('it is stored in Fortran (column-major) order.', 'Save it with np.ascontiguousarray(array).');
  }
  return { type, dims, dataOffset };
}

/** The bytes of a .npy file (version 1.0) holding the tensor. The data must be on a little-endian machine, as all of today's are. */
export function writeNpy(tensor: HostTensor): Uint8Array {
  const shape = tensor.dims.length === 1 ? `${tensor.dims[0]},` : tensor.dims.join(', ');
  const endian = BYTES_PER_ELEMENT[tensor.type] === 1 ? '|' : '<';
  const dict = `{'descr': '${endian}${CODES[tensor.type]}', 'fortran_order': False, 'shape': (${shape}), }`;
  const length = Math.ceil((10 + dict.length + 1) / 64) * 64;
  const data = new Uint8Array(tensor.data.buffer, tensor.data.byteOffset, tensor.data.byteLength);
  const out = new Uint8Array(length + data.length);
  out.set(MAGIC);
  out.set([1, 0], 6);
  new DataView(out.buffer).setUint16(8, length - 10, true);
  out.set(new TextEncoder().encode(dict.padEnd(length - 11, ' ') + '\n'), 10);
  out.set(data, length);
  return out;
}
