/** Small models and data sets for tests of whole commands: built in code, running in milliseconds. */
import { create } from '@bufbuild/protobuf';
import { GraphProtoSchema, type ModelProto, type TensorProto } from 'onnx-buf';
import { writeNpz } from '../data/npz-write.js';
import { intAttribute, intsAttribute } from '../onnx/attributes.js';
import { DataType } from '../onnx/dtypes.js';
import { makeTensor } from '../onnx/tensor.js';
import { floatValue, modelOf, node } from './rich-model.js';

/** A float tensor with reproducible values of about `size`. */
export function weights(name: string, dims: readonly number[], size = 0.5): TensorProto {
  const count = dims.reduce((product, dim) => product * dim, 1);
  return makeTensor(
    name,
    DataType.FLOAT,
    dims,
    Float32Array.from({ length: count }, (_, i) => size * Math.sin(i * 1.7 + name.length)),
  );
}

/** image [batch, 3, 8, 8] -> Conv, BatchNormalization, Relu, depthwise Conv, Conv + residual, pooling, Gemm -> scores [batch, 5]. */
export function convNet(batch: number | string = 'N'): ModelProto {
  const pads = intsAttribute('pads', [1, 1, 1, 1]);
  return modelOf(
    create(GraphProtoSchema, {
      name: 'conv-net',
      node: [
        node('Conv', ['image', 'w1'], ['a'], { name: 'first', attribute: [pads] }),
        node('BatchNormalization', ['a', 'gamma', 'beta', 'mean', 'var'], ['b']),
        node('Relu', ['b'], ['c']),
        node('Conv', ['c', 'w2', 'b2'], ['d'], { name: 'depthwise', attribute: [pads, intAttribute('group', 4)] }),
        node('Conv', ['d', 'w3'], ['e'], { name: 'point' }),
        node('Add', ['e', 'c'], ['f']),
        node('GlobalAveragePool', ['f'], ['g']),
        node('Flatten', ['g'], ['h']),
        node('Gemm', ['h', 'w4', 'b4'], ['scores'], { name: 'head', attribute: [intAttribute('transB', 1)] }),
      ],
      initializer: [
        weights('w1', [4, 3, 3, 3]),
        weights('gamma', [4], 1),
        weights('beta', [4], 0.1),
        weights('mean', [4], 0.1),
        makeTensor('var', DataType.FLOAT, [4], Float32Array.of(0.5, 1, 1.5, 2)),
        weights('w2', [4, 1, 3, 3]),
        weights('b2', [4], 0.1),
        weights('w3', [4, 4, 1, 1]),
        weights('w4', [5, 4], 2),
        weights('b4', [5], 0.1),
      ],
      input: [floatValue('image', [batch, 3, 8, 8])],
      output: [floatValue('scores', [batch, 5])],
    }),
  );
}

/** x [N, n] -> scores = x W, W being the given rows; with the identity the samples are the scores. */
export function linearNet(rows: readonly (readonly number[])[]): ModelProto {
  const [first] = rows;
  return modelOf(
    create(GraphProtoSchema, {
      name: 'linear',
      node: [node('MatMul', ['x', 'w'], ['scores'], { name: 'linear' })],
      initializer: [makeTensor('w', DataType.FLOAT, [rows.length, first.length], Float32Array.from(rows.flat()))],
      input: [floatValue('x', ['N', rows.length])],
      output: [floatValue('scores', ['N', first.length])],
    }),
  );
}

/** The file of a data set: `samples` rows of shape `dims` under the name `input`, and labels if given. */
export function npzOf(
  input: string,
  dims: readonly number[],
  values: Float32Array,
  labels?: readonly number[],
): Uint8Array {
  const count = dims.reduce((product, dim) => product * dim, 1);
  return writeNpz({
    [input]: { type: 'float32', dims: [values.length / count, ...dims], data: values },
    ...(labels && { labels: { type: 'int64', dims: [labels.length], data: BigInt64Array.from(labels, BigInt) } }),
  });
}
