/** A tiny valid model that has every kind of content an ONNX file may have, for tests of reading, writing and checking. */
import { create } from '@bufbuild/protobuf';
import { WireType } from '@bufbuild/protobuf/wire';
import {
  AttributeProto_AttributeType as Kind,
  AttributeProtoSchema,
  FunctionProtoSchema,
  GraphProtoSchema,
  ModelProtoSchema,
  NodeProtoSchema,
  SparseTensorProtoSchema,
  TensorProtoSchema,
  TypeProtoSchema,
  ValueInfoProtoSchema,
  type GraphProto,
  type ModelProto,
  type NodeProto,
  type TensorProto,
  type ValueInfoProto,
} from 'onnx-buf';
import { DATA_TYPES, DataType } from '../onnx/dtypes.js';
import { makeTensor, packedByteLength } from '../onnx/tensor.js';

/** A float value with the given name and shape; strings are symbolic dimensions. */
export function floatValue(name: string, dims: readonly (number | string)[]): ValueInfoProto {
  const dim = dims.map((size) => ({
    value:
      typeof size === 'string'
        ? { case: 'dimParam' as const, value: size }
        : { case: 'dimValue' as const, value: BigInt(size) },
  }));
  const type = create(TypeProtoSchema, {
    value: { case: 'tensorType', value: { elemType: DataType.FLOAT, shape: { dim } } },
  });
  return create(ValueInfoProtoSchema, { name, type });
}

export function node(opType: string, input: string[], output: string[], rest: Partial<NodeProto> = {}): NodeProto {
  return Object.assign(create(NodeProtoSchema, { opType, input, output, name: `${opType}_${output[0] ?? ''}` }), rest);
}

/** A model of opset 21 around this graph. */
export function modelOf(graph: GraphProto): ModelProto {
  return create(ModelProtoSchema, { irVersion: 10n, opsetImport: [{ domain: '', version: 21n }], graph });
}

/** `layers` times y = x + w, with `size` weights each. */
export function chainModel(layers: number, size: number): ModelProto {
  const initializer = Array.from({ length: layers }, (_, i) =>
    makeTensor(
      `w${i}`,
      DataType.FLOAT,
      [size],
      Float32Array.from({ length: size }, (_, j) => Math.sin(i + j)),
    ),
  );
  return modelOf(
    create(GraphProtoSchema, {
      name: 'chain',
      node: initializer.map((_, i) => node('Add', [`x${i}`, `w${i}`], [`x${i + 1}`])),
      initializer,
      input: [floatValue('x0', ['N', size])],
      output: [floatValue(`x${layers}`, ['N', size])],
    }),
  );
}

function onesOf(code: DataType): TensorProto {
  const type = DATA_TYPES.find((candidate) => candidate.code === code)!;
  const dims = [3n, 5n];
  if (type.kind === 'string') return makeTensor('t_string', code, [2], ['a', 'ü']);
  const rawData = new Uint8Array(packedByteLength(15, type)).map((_, i) => (type.kind === 'bool' ? i % 2 : i * 37));
  return create(TensorProtoSchema, { name: `t_${type.name}`, dataType: code, dims, rawData });
}

function branch(name: string): GraphProto {
  return create(GraphProtoSchema, {
    name,
    node: [node('Add', ['x', `${name}_w`], [`${name}_y`])],
    initializer: [makeTensor(`${name}_w`, DataType.FLOAT, [2], new Float32Array([1, 2]))],
    output: [floatValue(`${name}_y`, ['N', 2])],
  });
}

/** The model; every call makes a new one. The initializer `large` has 2 x `side` elements, enough by default to be written without a copy. */
export function richModel(side = 1024): ModelProto {
  const unknown = { no: 777, wireType: WireType.LengthDelimited, data: new Uint8Array([3, 1, 2, 3]) };
  const conditional = node('If', ['flag'], ['y'], {
    attribute: [
      create(AttributeProtoSchema, { name: 'then_branch', type: Kind.GRAPH, g: branch('then') }),
      create(AttributeProtoSchema, { name: 'else_branch', type: Kind.GRAPH, g: branch('else') }),
    ],
  });
  const constant = node('Constant', [], ['flag'], {
    attribute: [
      create(AttributeProtoSchema, {
        name: 'value',
        type: Kind.TENSOR,
        t: makeTensor('', DataType.BOOL, [], new Uint8Array([1])),
      }),
    ],
    docString: 'Ünïcode',
    $unknown: [unknown],
  });
  const call = node('Scale', ['y'], ['z'], {
    domain: 'local',
    attribute: [create(AttributeProtoSchema, { name: 'factor', type: Kind.FLOAT, f: 0.5 })],
  });
  const typed = [
    create(TensorProtoSchema, { name: 'typed_float', dataType: DataType.FLOAT, dims: [2n], floatData: [1.5, -2] }),
    create(TensorProtoSchema, {
      name: 'typed_half',
      dataType: DataType.FLOAT16,
      dims: [2n],
      int32Data: [0x3c00, 0xc000],
    }),
    create(TensorProtoSchema, {
      name: 'typed_int64',
      dataType: DataType.INT64,
      dims: [2n],
      int64Data: [-1n, 2n ** 40n],
    }),
    create(TensorProtoSchema, {
      name: 'typed_uint32',
      dataType: DataType.UINT32,
      dims: [1n],
      uint64Data: [2n ** 32n - 1n],
    }),
    create(TensorProtoSchema, { name: 'typed_double', dataType: DataType.DOUBLE, dims: [1n], doubleData: [Math.PI] }),
    create(TensorProtoSchema, { name: 'typed_int4', dataType: DataType.INT4, dims: [3n], int32Data: [0xf7, 0x08] }),
  ];
  const sparse = create(SparseTensorProtoSchema, {
    values: makeTensor('sparse', DataType.FLOAT, [2], new Float32Array([5, 6])),
    indices: makeTensor('', DataType.INT64, [2], [1, 3]),
    dims: [4n],
  });
  const graph = create(GraphProtoSchema, {
    name: 'rich',
    node: [constant, conditional, call],
    initializer: [
      ...DATA_TYPES.map(({ code }) => onesOf(code)),
      ...typed,
      makeTensor('large', DataType.FLOAT, [2, side], new Float32Array(2 * side).fill(0.25)),
    ],
    sparseInitializer: [sparse],
    input: [floatValue('x', ['N', 2])],
    output: [floatValue('z', ['N', 2])],
    valueInfo: [floatValue('y', ['N', 2])],
    docString: 'graph',
    quantizationAnnotation: [
      { tensorName: 'y', quantParameterTensorNames: [{ key: 'SCALE_TENSOR', value: 'typed_float' }] },
    ],
    metadataProps: [{ key: 'origin', value: 'test' }],
  });
  const model = modelOf(graph);
  model.opsetImport.push(...create(ModelProtoSchema, { opsetImport: [{ domain: 'local', version: 1n }] }).opsetImport);
  model.producerName = 'rich';
  model.metadataProps = create(ModelProtoSchema, {
    metadataProps: [{ key: 'author', value: 'someone' }],
  }).metadataProps;
  model.functions = [
    create(FunctionProtoSchema, {
      name: 'Scale',
      domain: 'local',
      input: ['a'],
      output: ['b'],
      attribute: ['factor'],
      opsetImport: [{ domain: '', version: 21n }],
      node: [
        node('Constant', [], ['c'], {
          attribute: [create(AttributeProtoSchema, { name: 'value_float', refAttrName: 'factor', type: Kind.FLOAT })],
        }),
        node('Mul', ['a', 'c'], ['b']),
      ],
    }),
  ];
  model.trainingInfo = create(ModelProtoSchema, {
    trainingInfo: [{ initialization: branch('start'), initializationBinding: [{ key: 'large', value: 'start_y' }] }],
  }).trainingInfo;
  model.$unknown = [unknown];
  return model;
}
