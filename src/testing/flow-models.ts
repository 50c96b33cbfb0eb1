/** Small models and batches for tests of the flow measurements, built with the Graph API and seeded weights. */
import { create } from '@bufbuild/protobuf';
import type { AttributeProto, ModelProto } from 'onnx-buf';
import type { Batch } from '../data/dataset.js';
import { intAttribute, intsAttribute } from '../onnx/attributes.js';
import { DataType } from '../onnx/dtypes.js';
import { emptyModel, Graph, Value } from '../onnx/graph.js';
import { constantOf, reshape, transpose } from '../onnx/ops.js';
import { makeTensor } from '../onnx/tensor.js';
import { TypeProtoSchema, ValueInfoProtoSchema } from 'onnx-buf';

/** Deterministic numbers in [-1, 1). */
export function seeded(seed: number): () => number {
  let state = (seed * 2654435761 + 1) >>> 0;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 31 - 1;
  };
}

/** Writes a model: values are made by calling operators, weights are drawn from the seed. */
export class Builder {
  readonly graph: Graph;
  private readonly random: () => number;
  private count = 0;

  constructor(
    opset = 17,
    seed = 1,
    private readonly prefix = '',
  ) {
    this.graph = new Graph(emptyModel(opset, 9));
    this.random = seeded(seed);
  }

  name(base: string): string {
    return `${this.prefix}${base}_${String(this.count++)}`;
  }

  /** A float input [N, ...dims]. */
  input(name: string, dims: readonly number[]): Value {
    const value = new Value(this.prefix + name);
    const dim = [
      { value: { case: 'dimParam' as const, value: 'N' } },
      ...dims.map((size) => ({ value: { case: 'dimValue' as const, value: BigInt(size) } })),
    ];
    const type = create(TypeProtoSchema, {
      value: { case: 'tensorType', value: { elemType: DataType.FLOAT, shape: { dim } } },
    });
    value.info = create(ValueInfoProtoSchema, { name: value.name, type });
    this.graph.inputs.push(value);
    return value;
  }

  weight(dims: readonly number[], scale = 1): Value {
    const data = Float32Array.from({ length: dims.reduce((a, b) => a * b, 1) }, () => this.random() * scale);
    return this.constant(dims, data);
  }

  constant(dims: readonly number[], data: Float32Array): Value {
    return this.graph.addInitializer(makeTensor(this.name('w'), DataType.FLOAT, dims, data));
  }

  scalar(value: number): Value {
    return constantOf(this.graph, [value], 'float32', { scalar: true, name: this.name('k') });
  }

  ints(values: readonly number[]): Value {
    return constantOf(this.graph, values, 'int64', { name: this.name('i') });
  }

  op(opType: string, inputs: (Value | undefined)[], attributes: AttributeProto[] = [], domain = ''): Value {
    const name = this.name(opType);
    const node = this.graph.insert({ opType, domain, name, inputs, outputs: [`${name}_out`], attributes });
    return node.outputs[0]!;
  }

  conv(x: Value, dims: readonly [number, number, number, number], stride = 1, weight = this.weight(dims)): Value {
    const pad = Math.floor(dims[2] / 2);
    const attributes = [intsAttribute('pads', [pad, pad, pad, pad]), intsAttribute('strides', [stride, stride])];
    return this.op('Conv', [x, weight, this.weight([dims[0]], 0.1)], attributes);
  }

  /** x W + b on the last axis. */
  dense(x: Value, inputs: number, outputs: number, weight = this.weight([inputs, outputs])): Value {
    return this.op('Add', [this.op('MatMul', [x, weight]), this.weight([outputs], 0.1)]);
  }

  done(...outputs: Value[]): ModelProto {
    for (const value of outputs) {
      value.info ??= create(ValueInfoProtoSchema, { name: value.name });
      this.graph.outputs.push(value);
    }
    return this.graph.toModel();
  }
}

export interface AttentionSpec {
  /** One MatMul for Q, K and V together. */
  fused?: boolean;
  heads?: number;
  /** Fewer key and value heads than query heads, repeated by Expand (separate layers only). */
  keyHeads?: number;
  scale?: 'after' | 'both';
  mask?: 'add' | 'where';
  prefix?: string;
}

export const TOKENS = 5;
export const HEAD_DIM = 3;

/** x -> attention over heads -> output projection; the weights depend on the seed and head counts alone. */
export function attentionModel(spec: AttentionSpec = {}): ModelProto {
  const { fused = false, heads = 2, keyHeads = heads, scale = 'after', mask, prefix = '' } = spec;
  const b = new Builder(17, 7, prefix);
  const width = heads * HEAD_DIM;
  const random = seeded(11);
  const matrix = (columns: number): Float32Array => Float32Array.from({ length: width * columns }, random);
  const widths = [width, keyHeads * HEAD_DIM, keyHeads * HEAD_DIM];
  const weights = widths.map(matrix);
  const x = b.input('x', [TOKENS, width]);
  const split = (v: Value, count: number): Value =>
    transpose(b.graph, reshape(b.graph, v, [0, TOKENS, count, HEAD_DIM]), [0, 2, 1, 3]);
  let q: Value;
  let k: Value;
  let v: Value;
  if (fused) {
    const joined = new Float32Array(width * width * 3);
    weights.forEach((w, part) => {
      w.forEach((value, i) => (joined[Math.floor(i / width) * 3 * width + part * width + (i % width)] = value));
    });
    const qkv = b.op('MatMul', [x, b.constant([width, 3 * width], joined)]);
    const parted = transpose(b.graph, reshape(b.graph, qkv, [0, TOKENS, 3, heads, HEAD_DIM]), [2, 0, 3, 1, 4]);
    [q, k, v] = [0, 1, 2].map((i) =>
      b.op('Gather', [parted, constantOf(b.graph, [i], 'int64', { scalar: true })], [intAttribute('axis', 0)]),
    ) as [Value, Value, Value];
  } else {
    const [a, c, d] = weights.map((w, i) => b.op('MatMul', [x, b.constant([width, widths[i]!], w)])) as [
      Value,
      Value,
      Value,
    ];
    q = split(a, heads);
    const group = heads / keyHeads;
    [k, v] = [c, d].map((part) => {
      const own = split(part, keyHeads);
      if (group === 1) return own;
      const grouped = b.op('Unsqueeze', [own, b.ints([2])]);
      const repeated = b.op('Expand', [grouped, b.ints([1, 1, group, 1, 1])]);
      return reshape(b.graph, repeated, [-1, heads, TOKENS, HEAD_DIM]);
    }) as [Value, Value];
  }
  let keys = transpose(b.graph, k, [0, 1, 3, 2]);
  if (scale === 'both') {
    const root = b.scalar(HEAD_DIM ** -0.25);
    q = b.op('Mul', [q, root]);
    keys = b.op('Mul', [keys, root]);
  }
  let scores = b.op('MatMul', [q, keys]);
  if (scale === 'after') scores = b.op('Div', [scores, b.scalar(Math.sqrt(HEAD_DIM))]);
  if (mask === 'add') scores = b.op('Add', [b.constant([TOKENS, TOKENS], new Float32Array(TOKENS * TOKENS)), scores]);
  if (mask === 'where') {
    const ones = makeTensor(b.name('mask'), DataType.BOOL, [TOKENS, TOKENS], new Uint8Array(TOKENS * TOKENS).fill(1));
    scores = b.op('Where', [b.graph.addInitializer(ones), scores, b.scalar(-1e9)]);
  }
  const weightsOfTokens = b.op('Softmax', [scores], [intAttribute('axis', -1)]);
  const context = b.op('MatMul', [weightsOfTokens, v]);
  const merged = reshape(b.graph, transpose(b.graph, context, [0, 2, 1, 3]), [0, TOKENS, width]);
  return b.done(b.dense(merged, width, width));
}

/** Samples [total, ...dims] drawn from the seed, in batches of `batchSize`, optionally padded to full batches. */
export function batchesOf(
  name: string,
  dims: readonly number[],
  total: number,
  batchSize: number,
  options: { pad?: boolean; scale?: number } = {},
): () => AsyncGenerator<Batch> {
  const size = dims.reduce((a, b) => a * b, 1);
  const random = seeded(5);
  const all = Float32Array.from({ length: total * size }, () => random() * (options.scale ?? 1));
  return async function* () {
    for (let at = 0; at < total; at += batchSize) {
      const count = Math.min(batchSize, total - at);
      const rows = options.pad ? batchSize : count;
      const data = new Float32Array(rows * size).fill(9);
      data.set(all.subarray(at * size, (at + count) * size));
      yield await Promise.resolve({ feeds: { [name]: { type: 'float32', dims: [rows, ...dims], data } }, size: count });
    }
  };
}
