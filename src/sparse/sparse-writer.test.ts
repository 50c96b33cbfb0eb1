import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import type { ModelProto } from 'onnx-buf';
import { describe, expect, it } from 'vitest';
import { intAttribute, intsAttribute } from '../onnx/attributes.js';
import { Graph, rewrite } from '../onnx/graph.js';
import { findLayers, fromMatrix, weightMatrix, type WeightLayer } from '../onnx/layers.js';
import { decodeModel } from '../onnx/read.js';
import { makeTensor, readFloats } from '../onnx/tensor.js';
import { DataType } from '../onnx/dtypes.js';
import { toBytes } from '../onnx/to-bytes.js';
import { int8Candidates } from '../quantization/execution/candidates.js';
import { quantizedValues } from '../quantization/execution/quantized-values.js';
import type { Deployment, QuantizedWeights } from '../quantization/placement.js';
import { dequantize, roundLayerNearest } from '../quantization/round-layer.js';
import { simulate } from '../quantization/simulate.js';
import { compareWithSimulation, countOperators } from '../quantization/verify.js';
import type { HostTensor } from '../runtime/engine.js';
import { traceShapes } from '../runtime/trace.js';
import { runOnce } from '../runtime/run-once.js';
import { engine, info, op, tensorFeed, tinyModel, weights } from '../testing/graph-writing.js';
import { tinyResNet } from '../testing/tiny-models.js';
import { packSparse, sparseBytes, unpackSparse, type SparseValues } from './sparse-pack.js';
import { deploySparse, isSmallerSparse, storeSparse } from './sparse-writer.js';

describe('packSparse', () => {
  const values: fc.Arbitrary<SparseValues> = fc.oneof(
    fc.array(fc.constantFrom(0, 0, 0, -127, -1, 5, 127), { minLength: 1, maxLength: 70 }).map((v) => Int8Array.from(v)),
    fc
      .array(fc.constantFrom(0, 0, 0, 1e-40, -2.5, 3e30), { minLength: 1, maxLength: 70 })
      .map((v) => Float32Array.from(v)),
  );

  it('is undone by unpackSparse, in the bytes that are predicted', () => {
    fc.assert(
      fc.property(values, (all) => {
        const packed = packSparse(all);
        expect(unpackSparse(packed, all.length)).toEqual(all);
        expect(packed.mask.length + packed.values.byteLength).toBe(
          sparseBytes(all.length, all.filter((v) => v !== 0).length, all instanceof Int8Array ? 1 : 4),
        );
      }),
    );
  });

  it('sets the bits of i, i + M, ... in byte i', () => {
    const all = new Int8Array(20);
    all.set([7, 8, 9], 3);
    all[19] = 4;
    const { mask, values: stored } = packSparse(all);
    // M = 3: element 3 is bit 1 of byte 0, 4 of byte 1, 5 of byte 2; 19 is bit 6 of byte 1.
    expect([...mask]).toEqual([0b10, 0b1000010, 0b10]);
    expect([...stored]).toEqual([0, 7, 8, 9, 4]);
  });
});

/** Every kind of layer behind the other. */
function kinds(opset: number, groupedUp: boolean): ModelProto {
  const pads = intsAttribute('pads', [1, 1, 1, 1]);
  return tinyModel({
    opset,
    inputs: [info('x', ['N', 4, 6, 6])],
    outputs: [info('y', ['N', 6, 9]), info('z', ['N', 5])],
    nodes: [
      op('Conv x plain b -> a', [pads], 'plain'),
      op('Relu a -> ar'),
      op('Conv ar grouped -> c', [pads, intAttribute('group', 2)], 'grouped'),
      op('Conv c depthwise -> d', [pads, intAttribute('group', 8)], 'depthwise'),
      op('ConvTranspose d up -> e', [intAttribute('group', groupedUp ? 2 : 1)], 'up'),
      op('Flatten e -> f'),
      op('Gemm f gemm gb -> z', [intAttribute('transB', 1)], 'gemm'),
      op('ReduceMean e -> g', [intsAttribute('axes', [2]), intAttribute('keepdims', 0)]),
      op('MatMul g matmul -> y', [], 'matmul'),
    ],
    initializers: [
      weights('plain', [8, 4, 3, 3], 1),
      weights('b', [8], 2),
      weights('grouped', [8, 4, 3, 3], 3),
      weights('depthwise', [8, 1, 3, 3], 4),
      weights('up', groupedUp ? [8, 3, 2, 2] : [8, 6, 2, 2], 5),
      weights('gemm', [5, 294], 6),
      weights('gb', [5], 7),
      weights('matmul', [7, 9], 8),
    ],
  });
}

/** The layers of a model with weights of which one in ten is left. */
function sparse(model: ModelProto): ModelProto {
  return withWeights(model, (graph, layer) =>
    readFloats(graph.constant(layer.weight)!).map((w, i) => ((i * 7) % 10 === 3 ? w : 0)),
  );
}

function withWeights(model: ModelProto, of: (graph: Graph, layer: WeightLayer) => Float32Array): ModelProto {
  return rewrite(model, (graph) => {
    for (const layer of findLayers(graph))
      graph.setInitializer(layer.weight, makeTensor(layer.weight.name, DataType.FLOAT, layer.dims, of(graph, layer)));
  });
}

/** Operators of the graph after loading, and the weights of its layers. */
async function loaded(
  model: ModelProto,
  optimization: 'basic' | 'all' = 'basic',
): Promise<{ counts: Record<string, number>; weights: Map<string, Float32Array> }> {
  const folder = await mkdtemp(join(tmpdir(), 'sparse-test-'));
  try {
    const file = join(folder, 'optimised.onnx');
    const session = await engine.createSession(toBytes(model), { optimizedModelPath: file, optimization });
    await session.release();
    const optimised = decodeModel(await readFile(file), file);
    const graph = new Graph(optimised);
    return {
      counts: countOperators(optimised),
      weights: new Map(findLayers(graph).map((layer) => [layer.name, readFloats(graph.constant(layer.weight)!)])),
    };
  } finally {
    await rm(folder, { recursive: true });
  }
}

const x = tensorFeed([2, 4, 6, 6]);
const outputs = (model: ModelProto): Promise<Record<string, HostTensor>> => runOnce(engine, model, { x });
const DECODING = ['BitShift', 'CumSum', 'Gather', 'Cast', 'Mul', 'Slice', 'Where'];

function planOf(model: ModelProto): Deployment & { weights: Map<string, QuantizedWeights> } {
  const graph = new Graph(model);
  return {
    weights: new Map(
      findLayers(graph).map((layer) => [layer.name, roundLayerNearest(layer, weightMatrix(graph, layer), 8, true)]),
    ),
    activations: new Map(),
    int8: new Set(),
  };
}

describe('sparse float weights', () => {
  it.each([13, 17])('load to the dense model, bit for bit, at opset %i', async (opset) => {
    const dense = sparse(kinds(opset, true));
    const file = storeSparse(dense);
    expect(toBytes(file).length).toBeLessThan(0.75 * toBytes(dense).length);
    const [found, expected] = [await loaded(file), await loaded(dense)];
    expect(found.counts).toEqual(expected.counts);
    expect(found.weights.size).toBe(6);
    expect(found.weights).toEqual(expected.weights);
    expect((await loaded(file, 'all')).counts).toEqual((await loaded(dense, 'all')).counts);
    expect(await outputs(file)).toEqual(await outputs(dense));
  });

  it('stay dense where that is no larger, and are stored once where layers share them', () => {
    const dense = kinds(17, false);
    expect(toBytes(storeSparse(dense))).toEqual(toBytes(dense));
    const shared = tinyModel({
      inputs: [info('x', ['N', 9])],
      outputs: [info('y', ['N', 9])],
      nodes: [op('MatMul x w -> a'), op('MatMul a w -> y')],
      initializers: [weights('w', [9, 9])],
    });
    expect(storeSparse(sparse(shared)).graph!.initializer.map(({ name }) => name)).toEqual(['w_m', 'w_v']);
  });
});

describe('sparse int8 weights', () => {
  it.each([13, 17, 21])('load to the rounded weights themselves, without a trace at opset %i', async (opset) => {
    const pruned = sparse(kinds(opset === 21 ? 17 : opset, false));
    const model = opset === 21 ? rewrite(pruned, () => undefined) : pruned;
    const plan = planOf(model);
    for (const quantized of plan.weights.values()) expect(isSmallerSparse(quantized)).toBe(true);
    const file = deploySparse(model, plan);
    const rounded = withWeights(model, (_, layer) =>
      fromMatrix(layer, dequantize(layer, plan.weights.get(layer.name)!)),
    );
    const [found, expected] = [await loaded(file), await loaded(rounded)];
    for (const name of DECODING) expect(found.counts[name] ?? 0).toBe(expected.counts[name] ?? 0);
    expect(found.counts).toEqual(expected.counts);
    expect(found.weights).toEqual(expected.weights);
    expect(await outputs(file)).toEqual(await outputs(rounded));
  });

  it('take an eighth of a byte per weight and a byte for what is left', () => {
    const model = sparse(tinyResNet(17, 64));
    const plan = planOf(model);
    const weightBytes = new Map(
      deploySparse(model, plan).graph!.initializer.map(({ name, rawData }) => [name, rawData.length]),
    );
    expect(weightBytes.get('block.a.w_m')).toBe((64 * 64 * 9) / 8);
    const codes = plan.weights.get('block.a')!.codes;
    expect(weightBytes.get('block.a.w_v')).toBe(1 + codes.filter((code) => code !== 0).length);
    expect([...weightBytes.keys()].filter((name) => name.startsWith('block.a.w_'))).toEqual([
      'block.a.w_c',
      'block.a.w_m',
      'block.a.w_v',
    ]);
  });

  it('are bit planes where these are no larger', async () => {
    const model = tinyResNet();
    const plan = planOf(model);
    const pruned = planOf(sparse(model));
    const mixed = new Map(
      [...plan.weights].map(([name, w]) => [name, name === 'block.a' ? pruned.weights.get(name)! : w]),
    );
    const file = deploySparse(model, { ...plan, weights: mixed });
    const names = file.graph!.initializer.map(({ name }) => name);
    expect(names.filter((name) => name.endsWith('_m'))).toEqual(['block.a.w_m']);
    expect(names.filter((name) => name.endsWith('_p'))).toEqual(['stem.w_p', 'block.b.w_p', 'head.w_p']);
    expect(file.functions.map(({ name }) => name).sort()).toEqual(['F', 'S']);
    const feeds = { x: tensorFeed([2, 3, 8, 8]) };
    const simulation = simulate(model, { ...plan, weights: mixed });
    expect(await runOnce(engine, file, feeds)).toEqual(await runOnce(engine, simulation, feeds));
  });

  it('run on integer kernels where the plan says so', async () => {
    const model = sparse(tinyResNet());
    const shapes = await traceShapes(engine, model, { x: tensorFeed([1, 3, 8, 8]) });
    const int8 = new Set(int8Candidates(new Graph(model), shapes, 'cpu').keys());
    const values = quantizedValues(new Graph(model), int8);
    const plan: Deployment = {
      weights: planOf(model).weights,
      activations: new Map(values.map(({ value }) => [value.name, { scale: 0.03, zeroPoint: 0 }])),
      int8,
    };
    const file = deploySparse(model, plan);
    const { counts } = await loaded(file, 'all');
    expect(counts['QLinearConv']).toBe(3);
    for (const name of DECODING) expect(counts[name] ?? 0, name).toBe(0);
    const batch = { size: 2, feeds: { x: tensorFeed([2, 3, 8, 8]) } };
    const { relativeRms } = await compareWithSimulation(engine, toBytes(file), simulate(model, plan), batch);
    expect(relativeRms).toBeLessThan(0.05);
  });
});
