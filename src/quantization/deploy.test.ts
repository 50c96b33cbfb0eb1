import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ModelProto } from 'onnx-buf';
import { describe, expect, it } from 'vitest';
import { nodeEngine } from '../node/onnxruntime.js';
import { rangeProbe, type Range } from '../flow/activation-probe.js';
import { Graph, rewrite } from '../onnx/graph.js';
import { findLayers, weightMatrix, type WeightLayer } from '../onnx/layers.js';
import { compactNames } from '../onnx/passes/compact.js';
import { decodeModel } from '../onnx/read.js';
import { toBytes } from '../onnx/to-bytes.js';
import { modelByteLength } from '../onnx/write.js';
import { runProbes } from '../runtime/probe.js';
import { traceShapes } from '../runtime/trace.js';
import { normalBatches, tinyResNet } from '../testing/tiny-models.js';
import { quantizerOf } from './activation-range.js';
import { deploy } from './deploy.js';
import { formatOf, storedBytes, type StorageFormat } from './format.js';
import type { Deployment } from './placement.js';
import { int8Candidates } from './execution/candidates.js';
import { quantizedValues } from './execution/quantized-values.js';
import { roundLayerNearest, roundLayerToCodebook, type RoundedLayer } from './round-layer.js';
import { CODEBOOK_FUNCTIONS } from './pack.js';
import { simulate } from './simulate.js';
import { compareWithSimulation, countOperators } from './verify.js';

const engine = nodeEngine({ threads: 1 });
const DIMS = [3, 8, 8];

async function planFor(
  model: ModelProto,
  bits: number,
  execution: 'int8' | 'float',
  kind: StorageFormat['kind'] = 'uniform',
): Promise<Deployment> {
  const rounded = (l: WeightLayer, weights: Float32Array): RoundedLayer =>
    kind === 'codebook' ? roundLayerToCodebook(l, weights, bits) : roundLayerNearest(l, weights, bits, true);
  const one = (await normalBatches('x', DIMS, 1, 1).next()).value!;
  const shapes = await traceShapes(engine, model, one.feeds);
  const graph = new Graph(model);
  const int8 = new Set(execution === 'float' ? [] : int8Candidates(graph, shapes, 'cpu').keys());
  const names = quantizedValues(graph, int8).map((q) => q.value.name);
  const probes = names.map((name) => rangeProbe(name));
  await runProbes({
    engine,
    model,
    shapes,
    batches: normalBatches('x', DIMS, 16, 8),
    probes,
    total: 16,
    stage: 'test',
  });
  return {
    weights: new Map(findLayers(graph).map((l) => [l.name, rounded(l, weightMatrix(graph, l))] as const)),
    activations: new Map(names.map((name, i) => [name, quantizerOf(probes[i]!.result() satisfies Range)] as const)),
    int8,
  };
}

async function optimised(model: ModelProto): Promise<Record<string, number>> {
  const folder = await mkdtemp(join(tmpdir(), 'deploy-test-'));
  try {
    const file = join(folder, 'optimised.onnx');
    const session = await engine.createSession(toBytes(model), { optimizedModelPath: file });
    await session.release();
    return countOperators(decodeModel(await readFile(file), file));
  } finally {
    await rm(folder, { recursive: true });
  }
}

describe('deploy', () => {
  const batch = { size: 8 };

  it.each([13, 17, 21].flatMap((opset) => [2, 3, 8].map((bits) => ({ opset, bits }))))(
    'runs $bits-bit weights on integer kernels and agrees with the simulation at opset $opset',
    async ({ opset, bits }) => {
      const model = tinyResNet(opset);
      const plan = await planFor(model, bits, 'int8');
      const shipped = deploy(model, plan);
      const counts = await optimised(shipped);
      expect(counts['QLinearConv']).toBe(3);
      expect(counts['QGemm'] ?? counts['Gemm']).toBe(1);
      expect(counts['Conv'] ?? 0).toBe(0);
      expect(counts['BitShift'] ?? 0).toBe(0);
      const { feeds } = (await normalBatches('x', DIMS, 8, 8, 5).next()).value!;
      const comparison = await compareWithSimulation(engine, toBytes(shipped), simulate(model, plan), {
        ...batch,
        feeds,
      });
      expect(comparison.relativeRms).toBeLessThan(0.05);
    },
  );

  it.each([2, 3, 5, 8])('executes %i-bit weights in float exactly as the simulation does', async (bits) => {
    const model = tinyResNet();
    const plan = await planFor(model, bits, 'float');
    const shipped = deploy(model, plan);
    const counts = await optimised(shipped);
    expect(counts['BitShift'] ?? 0).toBe(0);
    expect(counts['QuantizeLinear'] ?? 0).toBe(0);
    const { feeds } = (await normalBatches('x', DIMS, 8, 8, 5).next()).value!;
    const comparison = await compareWithSimulation(engine, toBytes(shipped), simulate(model, plan), {
      ...batch,
      feeds,
    });
    expect(comparison.relativeRms).toBeLessThan(1e-5);
  });

  it.each([13, 17, 21].flatMap((opset) => [2, 4, 5].map((bits) => ({ opset, bits }))))(
    'runs codebooks of $bits bits on integer kernels, decoded at load, at opset $opset',
    async ({ opset, bits }) => {
      const model = tinyResNet(opset);
      const plan = await planFor(model, bits, 'int8', 'codebook');
      const shipped = deploy(model, plan);
      const counts = await optimised(shipped);
      expect(counts['QLinearConv']).toBe(3);
      expect(counts['Conv'] ?? 0).toBe(0);
      for (const op of ['BitShift', 'Gather', 'MatMul', ...Object.values(CODEBOOK_FUNCTIONS)])
        expect(counts[op] ?? 0).toBe(0);
      const { feeds } = (await normalBatches('x', DIMS, 8, 8, 5).next()).value!;
      const comparison = await compareWithSimulation(engine, toBytes(shipped), simulate(model, plan), {
        ...batch,
        feeds,
      });
      expect(comparison.relativeRms).toBeLessThan(0.05);
    },
  );

  it('executes codebooks in float exactly as the simulation does, nothing left of them in the graph', async () => {
    const model = tinyResNet();
    const plan = await planFor(model, 3, 'float', 'codebook');
    const counts = await optimised(deploy(model, plan));
    expect([...Object.keys(counts)].sort()).toEqual(Object.keys(await optimised(model)).sort());
    const { feeds } = (await normalBatches('x', DIMS, 8, 8, 5).next()).value!;
    const file = toBytes(deploy(model, plan));
    const comparison = await compareWithSimulation(engine, file, simulate(model, plan), { ...batch, feeds });
    expect(comparison.relativeRms).toBeLessThan(1e-5);
  });

  it.each([2, 5])('takes the bytes that the allocation counts for codebooks of %i bits', async (bits) => {
    const model = tinyResNet(17, 32);
    const [even, own] = [await planFor(model, bits, 'float'), await planFor(model, bits, 'float', 'codebook')];
    const bytesOf = (plan: Deployment): number =>
      modelByteLength(rewrite(deploy(model, plan), (graph) => compactNames(graph)));
    const counted = (plan: Deployment): number =>
      [...plan.weights.values()].reduce((sum, { codes, grid }) => sum + storedBytes(codes.length, formatOf(grid)), 0);
    const functions = 64 + 2 * 16;
    const [inFile, inBudget] = [bytesOf(own) - bytesOf(even), counted(own) - counted(even)];
    expect(Math.abs(inFile - inBudget)).toBeLessThan(functions + 6 * own.weights.size);
  });

  it('leaves the model it was given as it was, and stores codes in few bits', async () => {
    const model = tinyResNet(17, 32);
    const before = toBytes(model);
    const small = toBytes(deploy(model, await planFor(model, 2, 'float')));
    expect(toBytes(model)).toEqual(before);
    expect(small.length).toBeLessThan(before.length / 5);
  });

  it('refuses an int8 node whose activation was never measured, by name', async () => {
    const model = tinyResNet();
    const plan = await planFor(model, 8, 'int8');
    expect(() => deploy(model, { ...plan, activations: new Map() })).toThrow(/No activation range was measured for '/);
  });
});
