/** Makers of node attributes, one per kind in use. */
import { create } from '@bufbuild/protobuf';
import {
  AttributeProto_AttributeType as Kind,
  AttributeProtoSchema,
  type AttributeProto,
  type TensorProto,
} from 'onnx-buf';

export function intAttribute(name: string, value: number): AttributeProto {
  return create(AttributeProtoSchema, { name, type: Kind.INT, i: BigInt(value) });
}

export function intsAttribute(name: string, values: readonly number[]): AttributeProto {
  return create(AttributeProtoSchema, { name, type: Kind.INTS, ints: values.map(BigInt) });
}

export function floatAttribute(name: string, value: number): AttributeProto {
  return create(AttributeProtoSchema, { name, type: Kind.FLOAT, f: value });
}

export function stringAttribute(name: string, value: string): AttributeProto {
  return create(AttributeProtoSchema, { name, type: Kind.STRING, s: new TextEncoder().encode(value) });
}

export function tensorAttribute(name: string, value: TensorProto): AttributeProto {
  return create(AttributeProtoSchema, { name, type: Kind.TENSOR, t: value });
}

/** Inside a function: the value of the attribute `from` that the caller passes. */
export function referenceAttribute(name: string, from: string, type: Kind): AttributeProto {
  return create(AttributeProtoSchema, { name, refAttrName: from, type });
}
