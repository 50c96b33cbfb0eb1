import { create } from '@bufbuild/protobuf';
import {
  AttributeProto_AttributeType as Kind,
  FunctionProtoSchema,
  GraphProtoSchema,
  type ModelProto,
  type NodeProto,
  type TensorProto,
} from 'onnx-buf';
import { describe, expect, it } from 'vitest';
import { floatValue, modelOf, node } from '../testing/rich-model.js';
import { convNet, weights } from '../testing/tiny-net.js';
import { intAttribute, intsAttribute, referenceAttribute } from './attributes.js';
import { DataType } from './dtypes.js';
import { parameterCount } from './parameters.js';
import { makeTensor } from './tensor.js';

function linear(nodes: NodeProto[], initializer: TensorProto[]): ModelProto {
  return modelOf(
    create(GraphProtoSchema, {
      name: 'linear',
      node: [...nodes, node('MatMul', ['x', 'w'], ['m']), node('Add', ['m', 'b'], ['y'])],
      initializer: [...initializer, weights('b', [6])],
      input: [floatValue('x', ['N', 4])],
      output: [floatValue('y', ['N', 6])],
    }),
  );
}

describe('parameterCount', () => {
  it('counts weights, biases and learned norms, not running statistics', () => {
    expect(parameterCount(convNet())).toBe(4 * 27 + 2 * 4 + (4 * 9 + 4) + 16 + (20 + 5));
  });

  it('counts a weight alike however it is stored', () => {
    const float = linear([], [weights('w', [4, 6])]);
    expect(parameterCount(float)).toBe(30);

    const codes = makeTensor('q', DataType.INT4, [4, 6], new Int8Array(24));
    const scale = weights('s', [6]);
    const dequantized = linear(
      [
        node('Cast', ['q'], ['c'], { attribute: [intAttribute('to', DataType.INT8)] }),
        node('DequantizeLinear', ['c', 's'], ['w'], { attribute: [intAttribute('axis', 1)] }),
      ],
      [codes, scale],
    );
    expect(parameterCount(dequantized)).toBe(30);

    const planes = makeTensor('p', DataType.UINT8, [3, 3], new Uint8Array(9));
    const decode = node('D', ['p', 's'], ['w'], { domain: 'local', attribute: [intsAttribute('s', [4, 6])] });
    const packed = linear([decode], [planes, scale]);
    packed.opsetImport.push({ ...packed.opsetImport[0], domain: 'local', version: 1n });
    packed.functions.push(
      create(FunctionProtoSchema, {
        name: 'D',
        domain: 'local',
        input: ['p', 's'],
        output: ['w'],
        attribute: ['s'],
        node: [
          node('Constant', [], ['shape'], { attribute: [referenceAttribute('value_ints', 's', Kind.INTS)] }),
          node('Expand', ['s', 'shape'], ['w']),
        ],
      }),
    );
    expect(parameterCount(packed)).toBe(30);
  });

  it('counts a shared weight once and constants of formulas not at all', () => {
    const model = modelOf(
      create(GraphProtoSchema, {
        name: 'shared',
        node: [
          node('MatMul', ['x', 'w'], ['a']),
          node('Mul', ['a', 'half'], ['b']),
          node('Clip', ['b', 'low', 'high'], ['c']),
          node('MatMul', ['c', 'w'], ['y']),
        ],
        initializer: [
          weights('w', [4, 4]),
          makeTensor('half', DataType.FLOAT, [], [0.5]),
          makeTensor('low', DataType.FLOAT, [], [0]),
          makeTensor('high', DataType.FLOAT, [], [6]),
        ],
        input: [floatValue('x', ['N', 4])],
        output: [floatValue('y', ['N', 4])],
      }),
    );
    expect(parameterCount(model)).toBe(16);
  });
});
