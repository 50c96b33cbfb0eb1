/** Tiny models written down in one expression, and their outputs in ONNX Runtime, for tests of graph passes. */
import { create } from '@bufbuild/protobuf';
import {
  GraphProtoSchema,
  ModelProtoSchema,
  NodeProtoSchema,
  TypeProtoSchema,
  ValueInfoProtoSchema,
  type AttributeProto,
  type GraphProto,
  type ModelProto,
  type NodeProto,
  type TensorProto,
  type ValueInfoProto,
} from 'onnx-buf';
import { DataType } from '../onnx/dtypes.js';
import { makeTensor } from '../onnx/tensor.js';
import { toBytes } from '../onnx/to-bytes.js';
import { nodeEngine } from '../node/onnxruntime.js';
import type { Feeds, HostTensor } from '../runtime/engine.js';

export const engine = nodeEngine({ threads: 1 });

/** A declared value; strings are symbolic dims, no dims at all leave the shape open. */
export function info(
  name: string,
  dims?: readonly (number | string)[],
  type: DataType = DataType.FLOAT,
): ValueInfoProto {
  const dim = dims?.map((size) => ({
    value:
      typeof size === 'string'
        ? { case: 'dimParam' as const, value: size }
        : { case: 'dimValue' as const, value: BigInt(size) },
  }));
  const tensor = { elemType: type, ...(dim ? { shape: { dim } } : {}) };
  return create(ValueInfoProtoSchema, {
    name,
    type: create(TypeProtoSchema, { value: { case: 'tensorType', value: tensor } }),
  });
}

/** `op('Add a b -> c', attributes)`: a node; `_` is an empty optional input. */
export function op(text: string, attributes: AttributeProto[] = [], name = ''): NodeProto {
  const [left, right] = text.split('->') as [string, string];
  const names = (part: string): string[] => part.split(/\s+/).filter((word) => word !== '');
  const [opType, ...input] = names(left);
  return create(NodeProtoSchema, {
    opType: opType!,
    input: input.map((word) => (word === '_' ? '' : word)),
    output: names(right),
    attribute: attributes,
    ...(name === '' ? {} : { name }),
  });
}

export interface TinyModel {
  opset?: number;
  irVersion?: number;
  inputs?: ValueInfoProto[];
  outputs: ValueInfoProto[];
  nodes: NodeProto[];
  initializers?: TensorProto[];
}

export function tinyGraph(spec: TinyModel, name = 'tiny'): GraphProto {
  return create(GraphProtoSchema, {
    name,
    node: spec.nodes,
    initializer: spec.initializers ?? [],
    input: spec.inputs ?? [],
    output: spec.outputs,
  });
}

export function tinyModel(spec: TinyModel): ModelProto {
  return create(ModelProtoSchema, {
    irVersion: BigInt(spec.irVersion ?? 8),
    opsetImport: [{ domain: '', version: BigInt(spec.opset ?? 17) }],
    graph: tinyGraph(spec),
  });
}

/** Reproducible values between -1 and 1. */
export function noise(count: number, seed = 1): Float32Array {
  let state = Math.imul(seed, 0x9e3779b1) >>> 0;
  return Float32Array.from({ length: count }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return (state / 2 ** 32) * 2 - 1;
  });
}

function product(dims: readonly number[]): number {
  return dims.reduce((a, b) => a * b, 1);
}

export function weights(name: string, dims: readonly number[], seed = 1): TensorProto {
  return makeTensor(name, DataType.FLOAT, dims, noise(product(dims), seed));
}

export function ints(name: string, values: readonly number[], dims: readonly number[] = [values.length]): TensorProto {
  return makeTensor(name, DataType.INT64, dims, values.map(BigInt));
}

export function tensorFeed(dims: readonly number[], seed = 7): HostTensor {
  return { type: 'float32', dims, data: noise(product(dims), seed) };
}

/** Outputs without graph optimisation: the nodes as they stand in the file. */
export async function run(model: ModelProto, feeds: Feeds): Promise<Record<string, HostTensor>> {
  const session = await engine.createSession(toBytes(model), { optimization: 'disabled' });
  try {
    return await session.run(feeds);
  } finally {
    await session.release();
  }
}

/** Greatest difference of any output, relative to the largest magnitude; Infinity when names, types or dims differ. */
export function distance(a: Record<string, HostTensor>, b: Record<string, HostTensor>): number {
  if (Object.keys(a).sort().join() !== Object.keys(b).sort().join()) return Infinity;
  let worst = 0;
  for (const [name, left] of Object.entries(a)) {
    const right = b[name]!;
    if (left.type !== right.type || left.dims.join() !== right.dims.join()) return Infinity;
    const scale = Math.max(1e-6, ...Array.from<number | bigint, number>(left.data, (v) => Math.abs(Number(v))));
    left.data.forEach((value: number | bigint, i: number) => {
      worst = Math.max(worst, Math.abs(Number(value) - Number(right.data[i])) / scale);
    });
  }
  return worst;
}

/** Operators of the main graph, in order. */
export function opsOf(model: ModelProto): string[] {
  return model.graph!.node.map((node) => node.opType);
}
