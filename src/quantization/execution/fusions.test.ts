import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fromBinary } from '@bufbuild/protobuf';
import { ModelProtoSchema, type AttributeProto, type ModelProto, type TensorProto } from 'onnx-buf';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { intAttribute, intsAttribute, stringAttribute } from '../../onnx/attributes.js';
import { DataType } from '../../onnx/dtypes.js';
import { Graph } from '../../onnx/graph.js';
import { makeTensor } from '../../onnx/tensor.js';
import { toBytes } from '../../onnx/to-bytes.js';
import { engine, info, ints, op, opsOf, tinyModel, weights } from '../../testing/graph-writing.js';
import { FUSED_OPERATORS, fusionOf } from './fusions.js';

interface Sample {
  /** Node that reads x (and x2) and the constants named after it, and makes y (and y2). */
  readonly node: string;
  readonly dims?: readonly number[];
  readonly attributes?: AttributeProto[];
  readonly constants?: TensorProto[];
  /** Shape of the int8 weight `w` and its channel axis. */
  readonly weight?: { dims: readonly number[]; axis: number };
}

const kernel = intsAttribute('kernel_shape', [2, 2]);
const floats = (name: string, values: number[]): TensorProto =>
  makeTensor(name, DataType.FLOAT, [values.length], Float32Array.from(values));

const SAMPLES: Readonly<Record<string, Sample>> = {
  Conv: { node: 'Conv x w -> y', weight: { dims: [16, 16, 3, 3], axis: 0 } },
  Gemm: { node: 'Gemm x w -> y', dims: [4, 16], weight: { dims: [16, 8], axis: 1 } },
  MatMul: { node: 'MatMul x w -> y', dims: [2, 4, 16], weight: { dims: [16, 8], axis: 1 } },
  Add: { node: 'Add x x2 -> y' },
  Mul: { node: 'Mul x x2 -> y' },
  GlobalAveragePool: { node: 'GlobalAveragePool x -> y' },
  AveragePool: { node: 'AveragePool x -> y', attributes: [kernel] },
  LeakyRelu: { node: 'LeakyRelu x -> y' },
  Sigmoid: { node: 'Sigmoid x -> y' },
  MaxPool: { node: 'MaxPool x -> y', attributes: [kernel] },
  ReduceMax: { node: 'ReduceMax x -> y', attributes: [intsAttribute('axes', [2, 3])] },
  Concat: { node: 'Concat x x2 -> y', attributes: [intAttribute('axis', 1)] },
  Resize: { node: 'Resize x _ scales -> y', constants: [floats('scales', [1, 1, 2, 2])] },
  Reshape: { node: 'Reshape x shape -> y', constants: [ints('shape', [1, -1])] },
  Flatten: { node: 'Flatten x -> y' },
  Transpose: { node: 'Transpose x -> y', attributes: [intsAttribute('perm', [0, 2, 3, 1])] },
  Squeeze: { node: 'Squeeze x axes -> y', dims: [1, 16, 1, 8], constants: [ints('axes', [2])] },
  Unsqueeze: { node: 'Unsqueeze x axes -> y', constants: [ints('axes', [1])] },
  Slice: {
    node: 'Slice x starts ends axes steps -> y',
    constants: [ints('starts', [0]), ints('ends', [99]), ints('axes', [2]), ints('steps', [2])],
  },
  Split: { node: 'Split x parts -> y y2', attributes: [intAttribute('axis', 1)], constants: [ints('parts', [8, 8])] },
  Expand: { node: 'Expand x shape -> y', constants: [ints('shape', [2, 16, 8, 8])] },
  Tile: { node: 'Tile x repeats -> y', constants: [ints('repeats', [1, 1, 2, 1])] },
  Gather: {
    node: 'Gather x indices -> y',
    attributes: [intAttribute('axis', 1)],
    constants: [ints('indices', [3, 1])],
  },
  DepthToSpace: { node: 'DepthToSpace x -> y', attributes: [intAttribute('blocksize', 2)] },
};

const UNFUSED: Readonly<Record<string, Sample>> = {
  Relu: { node: 'Relu x -> y' },
  Sub: { node: 'Sub x x2 -> y' },
  Tanh: { node: 'Tanh x -> y' },
  Pad: { node: 'Pad x pads -> y', constants: [ints('pads', [0, 0, 1, 1, 0, 0, 1, 1])] },
  LinearResize: {
    node: 'Resize x _ scales -> y',
    attributes: [stringAttribute('mode', 'linear')],
    constants: [floats('scales', [1, 1, 2, 2])],
  },
};

interface Variant {
  /** Another scale at the output than at the input. */
  otherScale?: boolean;
  /** Operator between the node and the quantizer behind it. */
  clamp?: 'Relu';
  /** A Max of one input stands between the quantizer and the node. */
  guard?: boolean;
}

/** The sample between quantizers: every activation passes QuantizeLinear and DequantizeLinear before and behind it. */
function quantized(sample: Sample, variant: Variant = {}): ModelProto {
  const dims = sample.dims ?? [1, 16, 8, 8];
  const [left, right] = sample.node.split(' -> ') as [string, string];
  const words = left.split(' ').slice(1);
  const inputs = ['x', 'x2'].filter((name) => words.includes(name));
  const outputs = right.split(' ');
  const initializers = [
    makeTensor('s', DataType.FLOAT, [], Float32Array.of(0.02)),
    makeTensor('s2', DataType.FLOAT, [], Float32Array.of(variant.otherScale ? 0.03 : 0.02)),
    makeTensor('z', DataType.UINT8, [], Uint8Array.of(100)),
    makeTensor('z2', DataType.UINT8, [], Uint8Array.of(variant.clamp ? 0 : 100)),
    ...(sample.constants ?? []),
  ];
  const nodes = inputs.flatMap((x) => [
    op(`QuantizeLinear ${x}_in s z -> ${x}_q`),
    op(`DequantizeLinear ${x}_q s z -> ${x}`),
  ]);
  if (sample.weight) {
    const channels = sample.weight.dims[sample.weight.axis]!;
    const count = sample.weight.dims.reduce((a, b) => a * b, 1);
    const codes = Int8Array.from({ length: count }, (_, i) => ((i * 37) % 255) - 127);
    initializers.push(
      makeTensor('codes', DataType.INT8, sample.weight.dims, codes),
      makeTensor('ws', DataType.FLOAT, [channels], new Float32Array(channels).fill(0.01)),
      makeTensor('wz', DataType.INT8, [channels], new Int8Array(channels)),
    );
    nodes.push(op('DequantizeLinear codes ws wz -> w', [intAttribute('axis', sample.weight.axis)]));
  }
  if (variant.guard) nodes.push(op('Max x -> guarded'));
  nodes.push(op(variant.guard ? sample.node.replace(' x ', ' guarded ') : sample.node, sample.attributes));
  const results = variant.clamp ? outputs.map((y) => `${y}_clamped`) : outputs;
  if (variant.clamp) for (const y of outputs) nodes.push(op(`${variant.clamp} ${y} -> ${y}_clamped`));
  for (const y of results)
    nodes.push(op(`QuantizeLinear ${y} s2 z2 -> ${y}_q`), op(`DequantizeLinear ${y}_q s2 z2 -> ${y}_out`));
  return tinyModel({
    opset: 17,
    inputs: inputs.map((x) => info(`${x}_in`, dims)),
    outputs: results.map((y) => info(`${y}_out`)),
    initializers,
    nodes,
  });
}

describe('the table of int8 kernels, asked of the engine', () => {
  let folder = '';
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'flow-compress-fusions-'));
  });
  afterAll(() => rm(folder, { recursive: true, force: true }));

  /** How many more Quantize and Dequantize nodes the engine keeps than the inputs and outputs need. */
  async function leftOver(model: ModelProto): Promise<number> {
    const optimizedModelPath = join(folder, 'optimized.onnx');
    const session = await engine.createSession(toBytes(model), { optimizedModelPath });
    await session.release();
    const optimized = fromBinary(ModelProtoSchema, await readFile(optimizedModelPath));
    const count = (type: string): number => opsOf(optimized).filter((name) => name === type).length;
    const outputs = model.graph!.output.length;
    return count('QuantizeLinear') - model.graph!.input.length + count('DequantizeLinear') - outputs;
  }

  const fusion = (sample: Sample) => {
    const graph = new Graph(quantized(sample));
    return fusionOf(graph.mustGet('y').producer!, graph);
  };

  it('has a sample of every operator', () => {
    expect(Object.keys(SAMPLES).sort()).toEqual([...FUSED_OPERATORS].sort());
  });

  it.each(Object.entries(SAMPLES))('%s runs on uint8', async (name, sample) => {
    const { tied, foldsClamp } = fusion(sample)!;
    expect(await leftOver(quantized(sample))).toBe(0);
    // Concat accepts any quantizers; it is tied because that makes it a copy.
    if (name !== 'Concat') {
      const other = await leftOver(quantized(sample, { otherScale: true }));
      if (tied) expect(other).toBeGreaterThan(0);
      else expect(other).toBe(0);
    }
    if (foldsClamp) expect(await leftOver(quantized(sample, { clamp: 'Relu', otherScale: true }))).toBe(0);
  });

  it.each(Object.entries(UNFUSED))('%s does not', async (_, sample) => {
    expect(fusion(sample)).toBeUndefined();
    expect(await leftOver(quantized(sample))).toBeGreaterThan(0);
  });

  it.each<[string, readonly number[], readonly number[]]>([
    ['Conv', [1, 16, 8, 8], [16, 16, 3, 3]],
    ['Gemm', [4, 16], [16, 8]],
  ])(
    'rounds the float weights of a %s between quantizers by itself, unless a Max of one input stands before it',
    async (name, dims, shape) => {
      const sample: Sample = { node: `${name} x w -> y`, dims, constants: [weights('w', shape)] };
      expect(await leftOver(quantized(sample))).toBe(0);
      expect(await leftOver(quantized(sample, { guard: true }))).toBe(2);
    },
  );
});
