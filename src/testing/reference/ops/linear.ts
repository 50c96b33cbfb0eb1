/** Products of matrices. */
import { at, broadcastDims, build, stridesOf, zip, type NdArray } from '../array.js';
import type { ReferenceOperator } from '../operator.js';

function matMul(a: NdArray, b: NdArray): NdArray {
  if (a.dims.length === 1) {
    const { dims, data } = matMul({ dims: [1, ...a.dims], data: a.data }, b);
    return { dims: dims.filter((_, axis) => axis !== dims.length - (b.dims.length === 1 ? 1 : 2)), data };
  }
  if (b.dims.length === 1) {
    const { dims, data } = matMul(a, { dims: [...b.dims, 1], data: b.data });
    return { dims: dims.slice(0, -1), data };
  }
  const batch = broadcastDims(a.dims.slice(0, -2), b.dims.slice(0, -2));
  const [m, k, n] = [a.dims.at(-2)!, a.dims.at(-1)!, b.dims.at(-1)!];
  const offsetOf = (x: NdArray, index: readonly number[]): number => {
    const strides = stridesOf(x.dims);
    const lead = batch.length - (x.dims.length - 2);
    return x.dims
      .slice(0, -2)
      .reduce((sum, size, axis) => sum + (size === 1 ? 0 : index[axis + lead]! * strides[axis]!), 0);
  };
  return build([...batch, m, n], (index) => {
    const [row, column] = [index.at(-2)!, index.at(-1)!];
    const [fromA, fromB] = [offsetOf(a, index), offsetOf(b, index)];
    let sum = 0;
    for (let i = 0; i < k; i++) sum += a.data[fromA + row * k + i]! * b.data[fromB + i * n + column]!;
    return sum;
  });
}

const transposed = (x: NdArray): NdArray => build([x.dims[1]!, x.dims[0]!], ([i, j]) => at(x, [j!, i!]));

export const linear: Readonly<Record<string, ReferenceOperator>> = {
  MatMul: ([a, b]) => [matMul(a!, b!)],
  Gemm: ([a, b, c], node) => {
    const left = node.int('transA', 0) ? transposed(a!) : a!;
    const right = node.int('transB', 0) ? transposed(b!) : b!;
    const [alpha, beta] = [node.float('alpha', 1), node.float('beta', 1)];
    const product = matMul(left, right);
    return [c ? zip((x, y) => alpha * x + beta * y, product, c) : zip((x) => alpha * x, product)];
  },
};
