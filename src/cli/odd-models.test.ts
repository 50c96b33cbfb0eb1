/** Valid but unusual models through the whole program: each one works, or is refused by name with a remedy. */
import { create } from '@bufbuild/protobuf';
import { AttributeProto_AttributeType as Kind, AttributeProtoSchema, type ModelProto } from 'onnx-buf';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { writeNpz } from '../data/npz-write.js';
import { intAttribute } from '../onnx/attributes.js';
import { DataType } from '../onnx/dtypes.js';
import { makeTensor } from '../onnx/tensor.js';
import { parseReport, type QuantizeReport } from '../report/report.js';
import { workbench, type Workbench } from '../testing/command-line.js';
import { info, ints, op, tinyGraph, tinyModel, weights } from '../testing/graph-writing.js';
import { normals, tinyResNet } from '../testing/tiny-models.js';

const SAMPLES = 40;
/** A fixed batch: one batch size is timed instead of two. */
const ROWS = 4;
const X = info('x', [ROWS, 8]);

let bench: Workbench;

beforeAll(async () => {
  bench = await workbench();
});
afterAll(() => bench.remove());

const floats = (...dims: number[]) =>
  ({
    type: 'float32',
    dims: [SAMPLES, ...dims],
    data: normals(
      dims.reduce((a, b) => a * b, SAMPLES),
      5,
    ),
  }) as const;
const tokens = {
  type: 'int64',
  dims: [SAMPLES, 8],
  data: BigInt64Array.from({ length: SAMPLES * 8 }, (_, i) => BigInt(i % 100)),
} as const;

type Arrays = Parameters<typeof writeNpz>[0];

async function files(model: ModelProto, arrays: Arrays): Promise<{ path: string; data: string }> {
  return { path: await bench.model('model.onnx', model), data: await bench.write('data.npz', writeNpz(arrays)) };
}

const FLAGS = ['--latency-runs', '2', '--execution', 'float', '--bits', '8', '--force', '--json', '--quiet'];

async function quantize(path: string, data: string): ReturnType<Workbench['run']> {
  return bench.run(['quantize', path, '-o', bench.at('out.onnx'), '--data', data, ...FLAGS]);
}

/** Inspects, evaluates, profiles and quantizes; the result must be as good as 8 bits are. */
async function works(model: ModelProto, arrays: Arrays): Promise<QuantizeReport> {
  const { path, data } = await files(model, arrays);
  for (const args of [
    ['inspect', path],
    ['evaluate', path, '--data', data, '--latency-runs', '1'],
    ['profile', path, '--data', data, '--widths', '2,8'],
  ]) {
    const { code, stderr } = await bench.run([...args, '--quiet']);
    expect({ command: args[0], code, stderr }).toEqual({ command: args[0], code: 0, stderr: '' });
  }
  const { code, stdout, stderr } = await quantize(path, data);
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  const report = parseReport(JSON.parse(stdout));
  if (report.command !== 'quantize') throw new Error('not a report of quantize');
  expect(report.after.metric).toMatchObject({ name: 'sqnrDb' });
  expect(report.after.metric!.value).toBeGreaterThan(25);
  return report;
}

const branch = (name: string, seed: number) =>
  tinyGraph(
    {
      outputs: [info(`${name}.y`, [ROWS, 5])],
      initializers: [weights(`${name}.w`, [16, 5], seed)],
      nodes: [op(`MatMul h ${name}.w -> ${name}.y`)],
    },
    name,
  );

describe('models that work', () => {
  it('single samples only, although the batch is declared free', async () => {
    const model = tinyModel({
      inputs: [info('x', ['N', 8])],
      outputs: [info('y', ['M', 3, 2])],
      initializers: [weights('w', [8, 6]), ints('flat', [1, 8]), ints('cube', [1, 3, 2])],
      nodes: [op('Reshape x flat -> r'), op('MatMul r w -> m'), op('Reshape m cube -> y')],
    });
    const report = await works(model, { x: floats(8) });
    expect(report.warnings?.join()).toContain('works for single samples only');
    expect(report.after.latency?.batch).toBe(1);
  });

  it('two inputs and two outputs', async () => {
    const model = tinyModel({
      inputs: [X, info('z', [ROWS, 4])],
      outputs: [info('y', [ROWS, 6]), info('h', [ROWS, 16])],
      initializers: [weights('w', [8, 16]), weights('v', [4, 16], 3), weights('u', [16, 6], 4)],
      nodes: [op('MatMul x w -> a'), op('MatMul z v -> b'), op('Add a b -> h'), op('MatMul h u -> y')],
    });
    await works(model, { x: floats(8), z: floats(4) });
    const { data } = await files(model, { x: floats(8) });
    const { code, stderr } = await quantize(bench.at('model.onnx'), data);
    expect(code).toBe(2);
    expect(stderr).toMatch(/no array for the model's input z; arrays found: x/);
  });

  it('a scalar output', async () => {
    const model = tinyModel({
      inputs: [X],
      outputs: [info('y', [])],
      initializers: [weights('w', [8, 16])],
      nodes: [op('MatMul x w -> h'), op('ReduceL2 h -> y', [intAttribute('keepdims', 0)])],
    });
    await works(model, { x: floats(8) });
  });

  it('weights in the branches of an If, which stay as they are', async () => {
    const attribute = (name: string, seed: number) =>
      create(AttributeProtoSchema, { name: `${name}_branch`, type: Kind.GRAPH, g: branch(name, seed) });
    const model = tinyModel({
      inputs: [X],
      // Two outputs, none of them named as scores, are compared by their values.
      outputs: [info('y', [ROWS, 5]), info('wide', [ROWS, 16])],
      initializers: [weights('w', [8, 16]), makeTensor('zero', DataType.FLOAT, [], new Float32Array(1))],
      nodes: [
        op('MatMul x w -> h'),
        op('ReduceSum h -> sum', [intAttribute('keepdims', 0)]),
        op('Greater sum zero -> positive'),
        op('If positive -> y', [attribute('then', 5), attribute('else', 6)]),
        op('Identity h -> wide'),
      ],
    });
    const report = await works(model, { x: floats(8) });
    expect(report.layers.map((layer) => layer.bits)).toEqual([8]);
  });

  it('one weight in two layers, which is stored once', async () => {
    const size = 64;
    const model = tinyModel({
      inputs: [X],
      outputs: [info('y', [ROWS, size]), info('h', [ROWS, size])],
      initializers: [weights('u', [8, size]), weights('w', [size, size])],
      nodes: [op('MatMul x u -> a'), op('MatMul a w -> h'), op('Relu h -> r'), op('MatMul r w -> y')],
    });
    const { before, after, layers } = await works(model, { x: floats(8) });
    expect(layers).toHaveLength(3);
    expect(after.params).toBe(before.params);
    expect(after.bytes).toBeLessThan(2 * size * size);
  });

  it('nothing but an embedding', async () => {
    const model = tinyModel({
      inputs: [info('x', [ROWS, 8], DataType.INT64)],
      outputs: [info('y', [ROWS, 8, 4])],
      initializers: [weights('table', [100, 4])],
      nodes: [op('Gather table x -> y')],
    });
    await works(model, { x: tokens });
    const { path, data } = await files(model, { x: floats(8) });
    const { code, stderr } = await quantize(path, data);
    expect(code).toBe(2);
    expect(stderr).toMatch(/x in .*: a value of sample \d+ is .*, which the model's int64 input cannot hold/);
  });
});

describe('models that are refused', () => {
  const half = makeTensor('w', DataType.FLOAT16, [8, 5], new Uint16Array(40).fill(0x3800));
  const scalar = (name: string, value: number) => makeTensor(name, DataType.FLOAT, [], Float32Array.of(value));
  it.each<[string, ModelProto]>([
    ['without weights', tinyModel({ inputs: [X], outputs: [info('y', [ROWS, 8])], nodes: [op('Relu x -> y')] })],
    [
      'in float16',
      tinyModel({
        inputs: [info('x', [ROWS, 8], DataType.FLOAT16)],
        outputs: [info('y', [ROWS, 5], DataType.FLOAT16)],
        initializers: [half],
        nodes: [op('MatMul x w -> y')],
      }),
    ],
    [
      'quantized by another tool',
      tinyModel({
        inputs: [X],
        outputs: [info('y', [ROWS, 5])],
        initializers: [
          scalar('s', 0.05),
          makeTensor('z', DataType.INT8, [], new Int8Array(1)),
          makeTensor(
            'q',
            DataType.INT8,
            [8, 5],
            Int8Array.from({ length: 40 }, (_, i) => ((i * 37) % 120) - 60),
          ),
        ],
        nodes: [
          op('QuantizeLinear x s z -> a'),
          op('DequantizeLinear a s z -> b'),
          op('DequantizeLinear q s z -> w'),
          op('MatMul b w -> y'),
        ],
      }),
    ],
  ])('%s', async (_, model) => {
    const { path, data } = await files(model, { x: floats(8) });
    expect((await bench.run(['inspect', path])).code).toBe(0);
    expect((await bench.run(['evaluate', path, '--data', data, '--latency-runs', '1'])).code).toBe(0);
    for (const command of [['quantize', '-o', bench.at('new.onnx')], ['profile']]) {
      const { code, stderr, changed } = await bench.run([...command, path, '--data', data, '--quiet']);
      expect({ code, changed }).toEqual({ code: 2, changed: [] });
      expect(stderr).toMatch(/no layer with constant float32 weights .*\n {2}node: .*model\.onnx\n {2}hint: .*float32/);
    }
  });

  it('that were quantized by Flow Compress', async () => {
    const { path, data } = await files(tinyResNet(), { x: floats(3, 8, 8) });
    expect((await quantize(path, data)).code).toBe(0);
    const { code, stderr, changed } = await bench.run([
      ...['quantize', bench.at('out.onnx'), '-o', bench.at('again.onnx'), '--data', data, '--quiet'],
    ]);
    expect({ code, changed }).toEqual({ code: 2, changed: [] });
    expect(stderr).toMatch(/no layer with constant float32 weights .*\n.*\n {2}hint: .*quantized already/);
  });

  it('whose weights hold NaN', async () => {
    const w = weights('w', [8, 5]);
    w.rawData = new Uint8Array(w.rawData);
    new DataView(w.rawData.buffer).setFloat32(12, NaN, true);
    const model = tinyModel({
      inputs: [X],
      outputs: [info('y', [ROWS, 5])],
      initializers: [w],
      nodes: [op('MatMul x w -> y', [], 'only')],
    });
    const { path, data } = await files(model, { x: floats(8) });
    for (const method of ['faaq', 'uniform', 'static-int8', 'dynamic-int8']) {
      const { code, stderr, changed } = await bench.run([
        ...['quantize', path, '-o', bench.at('nan.onnx'), '--data', data, '--quiet', '--method', method],
        ...['--execution', 'float'],
      ]);
      expect({ method, code, changed }).toEqual({ method, code: 2, changed: [] });
      expect(stderr).toMatch(/NaN/);
    }
  });
});
