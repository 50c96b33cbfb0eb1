import { unzipSync } from 'fflate';
import { describe, expect, it } from 'vitest';
import type { HostTensor } from '../runtime/engine.js';
import { parseNpyHeader, writeNpy } from './npy.js';
import { writeNpz } from './npz-write.js';

/** A .npy file with the given header text, as numpy lays it out. */
function npy(header: string, version = 1): Uint8Array {
  const text = header + '\n';
  const prefix = version === 1 ? [text.length & 255, text.length >> 8] : [text.length & 255, text.length >> 8, 0, 0];
  return Uint8Array.from([
    0x93,
    ...new TextEncoder().encode('NUMPY'),
    version,
    0,
    ...prefix,
    ...new TextEncoder().encode(text),
  ]);
}
const header = (descr: string, order = 'False', shape = '(2, 3)'): string =>
  `{'descr': ${descr}, 'fortran_order': ${order}, 'shape': ${shape}, }`;

describe('.npy headers', () => {
  it('are read in all versions and shapes', () => {
    expect(parseNpyHeader(npy(header("'<f4'")), 'a')).toMatchObject({ type: 'float32', dims: [2, 3] });
    expect(parseNpyHeader(npy(header("'|u1'", 'False', '(7,)'), 2), 'a')).toMatchObject({ type: 'uint8', dims: [7] });
    expect(parseNpyHeader(npy(header("'<i8'", 'False', '()'), 3), 'a')).toMatchObject({ type: 'int64', dims: [] });
    expect(parseNpyHeader(npy(header("'>u1'", 'True', '(1, 5)')), 'a')).toMatchObject({ type: 'uint8', dims: [1, 5] });
    expect(parseNpyHeader(npy("{'shape': (4,), 'fortran_order': False, 'descr': '|b1'}"), 'a')).toMatchObject({
      type: 'bool',
      dims: [4],
    });
  });

  it.each([
    [header("'<f4'", 'True'), 'Fortran'],
    [header("'>f4'"), 'big-endian'],
    [header("'|O'"), 'object'],
    [header("'<U5'"), '<U5'],
    [header("'<c8'"), '<c8'],
    [header("[('a', '<f4')]"), 'structured'],
    ['{}', 'header'],
  ])('refuse %s', (text, reason) => {
    expect(() => parseNpyHeader(npy(text), 'pixels')).toThrow(reason);
    expect(() => parseNpyHeader(npy(text), 'pixels')).toThrow('pixels');
  });

  it('refuse other files and truncated ones', () => {
    expect(() => parseNpyHeader(new Uint8Array(64), 'a')).toThrow('NumPy');
    expect(() => parseNpyHeader(new Uint8Array(3), 'a')).toThrow('NumPy');
    expect(() => parseNpyHeader(npy(header("'<f4'")).slice(0, 40), 'a')).toThrow('ends inside');
  });

  it('come back from what is written', () => {
    const tensors: HostTensor[] = [
      { type: 'float32', dims: [2, 2], data: new Float32Array([1, 2, 3, 4]) },
      { type: 'int64', dims: [3], data: new BigInt64Array([1n, -2n, 3n]) },
      { type: 'uint8', dims: [0, 4], data: new Uint8Array(0) },
    ];
    for (const tensor of tensors) {
      const bytes = writeNpy(tensor);
      const { type, dims, dataOffset } = parseNpyHeader(bytes, 'a');
      expect({ type, dims }).toEqual({ type: tensor.type, dims: tensor.dims });
      expect(dataOffset % 64).toBe(0);
      expect(bytes.slice(dataOffset)).toEqual(new Uint8Array(tensor.data.buffer));
    }
  });
});

describe('.npz files', () => {
  it('are ZIP archives of .npy files, the same bytes every time', () => {
    const arrays = { x: { type: 'float32', dims: [2], data: new Float32Array([1, 2]) } } as const;
    for (const compress of [false, true]) {
      const bytes = writeNpz(arrays, { compress });
      expect(unzipSync(bytes)).toEqual({ 'x.npy': writeNpy(arrays.x) });
      expect(writeNpz(arrays, { compress })).toEqual(bytes);
    }
    expect(() => writeNpz({ x: { type: 'float32', dims: [3], data: new Float32Array(2) } })).toThrow('x');
  });
});
