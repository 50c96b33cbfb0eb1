/** Collects the nodes of one model-local function; inner names are capitals, which those of inputs and outputs are not. */
import { create } from '@bufbuild/protobuf';
import {
  FunctionProtoSchema,
  NodeProtoSchema,
  OperatorSetIdProtoSchema,
  TensorProto_DataType as DataType,
  type AttributeProto,
  type FunctionProto,
  type NodeProto,
} from 'onnx-buf';
import { intAttribute, intsAttribute, tensorAttribute } from './attributes.js';
import { makeTensor } from './tensor.js';

export class FunctionBody {
  private readonly nodes: NodeProto[] = [];
  private next = 0;

  constructor(
    private readonly name: string,
    private readonly opset: number,
  ) {}

  op(opType: string, input: string[], attribute: AttributeProto[] = [], output = this.nextName()): string {
    this.nodes.push(create(NodeProtoSchema, { opType, input, output: [output], attribute }));
    return output;
  }

  /** A, B, ... Z, A1, ...: short, for every byte is in every file. */
  private nextName(): string {
    const round = Math.floor(this.next / 26);
    return String.fromCharCode(65 + (this.next++ % 26)) + (round > 0 ? String(round) : '');
  }

  uint8(dims: readonly number[], values: readonly number[]): string {
    const tensor = makeTensor('', DataType.UINT8, [...dims], Uint8Array.from(values));
    return this.op('Constant', [], [tensorAttribute('value', tensor)]);
  }

  int64(...values: number[]): string {
    return this.op('Constant', [], [intsAttribute('value_ints', values)]);
  }

  int64Scalar(value: number): string {
    return this.op('Constant', [], [intAttribute('value_int', value)]);
  }

  finish(domain: string, input: string[], output: string[], attribute: string[]): FunctionProto {
    return create(FunctionProtoSchema, {
      name: this.name,
      domain,
      input,
      output,
      attribute,
      node: this.nodes,
      opsetImport: [create(OperatorSetIdProtoSchema, { domain: '', version: BigInt(this.opset) })],
    });
  }
}
