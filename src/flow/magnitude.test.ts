/** flowMagnitude against a direct computation from traced activations, and its invariants. */
import { describe, expect, it } from 'vitest';
import type { ModelProto } from 'onnx-buf';
import type { Batch } from '../data/dataset.js';
import { FlowCompressError } from '../errors.js';
import { Graph, type Value } from '../onnx/graph.js';
import { findLayers, weightMatrix } from '../onnx/layers.js';
import { transpose } from '../onnx/ops.js';
import { nodeEngine } from '../node/onnxruntime.js';
import { runProbes } from '../runtime/probe.js';
import { traceShapes, traceValues } from '../runtime/trace.js';
import { attentionModel, batchesOf, Builder, HEAD_DIM, TOKENS } from '../testing/flow-models.js';
import { findAttention } from './attention.js';
import { magnitudeProbes, type MagnitudeOptions, type MagnitudeResult } from './magnitude.js';

const engine = nodeEngine({ threads: 1 });

async function first(batches: () => AsyncIterable<Batch>): Promise<Batch> {
  for await (const batch of batches()) return batch;
  throw new Error('no batch');
}

async function measure(
  model: ModelProto,
  input: string,
  dims: number[],
  total: number,
  batchSize: number,
  options: MagnitudeOptions & { pad?: boolean; scale?: number } = {},
): Promise<MagnitudeResult> {
  const shapes = await traceShapes(engine, model, (await first(batchesOf(input, dims, 1, 1))).feeds);
  const graph = new Graph(model);
  const layers = findLayers(graph);
  const { probes, result } = magnitudeProbes(graph, layers, findAttention(graph, layers, shapes).blocks, options);
  const batches = batchesOf(input, dims, total, batchSize, options)();
  await runProbes({ engine, model, shapes, batches, probes, total, stage: 'flow' });
  return result();
}

const SIZE = 8;

/** conv - relu - depthwise conv - pool - gemm - gelu - matmul, softmax. */
function convNet(prefix = ''): ModelProto {
  const b = new Builder(17, 3, prefix);
  const x = b.input('x', [3, SIZE, SIZE]);
  const conv = b.op('Relu', [b.conv(x, [6, 3, 3, 3])]);
  const pooled = b.op('Flatten', [b.op('GlobalAveragePool', [b.conv(conv, [4, 6, 1, 1], 2)])]);
  const z = b.op('Gemm', [pooled, b.weight([4, 5]), b.weight([5])]);
  const erf = b.op('Add', [b.op('Erf', [b.op('Div', [z, b.scalar(Math.SQRT2)])]), b.scalar(1)]);
  const gelu = b.op('Mul', [b.op('Mul', [z, erf]), b.scalar(0.5)]);
  return b.done(b.op('Softmax', [b.dense(b.op('Relu', [b.dense(gelu, 5, 7)]), 7, 3)]));
}

const norm = (values: ArrayLike<number>): number => Math.sqrt(Array.from(values).reduce((sum, v) => sum + v * v, 0));
const normalPdf = (z: number): number => Math.exp((-z * z) / 2) / Math.sqrt(2 * Math.PI);

/** Phi(z) by Simpson's rule. */
function normalCdf(z: number): number {
  const n = 400;
  let sum = 0;
  for (let i = 0; i <= n; i++) sum += (i === 0 || i === n ? 1 : i % 2 ? 4 : 2) * normalPdf((z * i) / n);
  return 0.5 + (sum * z) / n / 3;
}

/** [layer][sample], straight from the definition. */
async function direct(model: ModelProto, total: number, kind: 'rms' | 'paper'): Promise<number[][]> {
  const graph = new Graph(model);
  const layers = findLayers(graph);
  const flows: number[][] = layers.map(() => []);
  for await (const batch of batchesOf('x', [3, SIZE, SIZE], total, 1)()) {
    const values = await traceValues(engine, model, batch.feeds);
    const read = (name: string): number[] => Array.from(values.get(name)!.data as Float32Array);
    layers.forEach((layer, l) => {
      const bias = [...layer.output.uses][0]!.node;
      const z = bias.is('Add') && layer.op === 'MatMul' ? bias.outputs[0]!.name : layer.output.name;
      const relu = [...graph.mustGet(z).uses].find((use) => use.node.is('Relu'));
      const gelu = layer.op === 'Gemm';
      const output = gelu
        ? read(graph.nodes.filter((node) => node.is('Mul'))[1]!.outputs[0]!.name)
        : read(relu?.node.outputs[0]!.name ?? z);
      const slope = read(z).map((v) => (gelu ? normalCdf(v) + v * normalPdf(v) : relu ? Number(v > 0) : 1));
      const n = output.length;
      const weight = norm(weightMatrix(graph, layer)) / (kind === 'rms' ? Math.sqrt(layer.channels) : 1);
      const rms = norm(output) / Math.sqrt(n);
      if (layer.op === 'Conv') flows[l]!.push(kind === 'rms' ? rms * weight : (norm(output) * weight) / n);
      else
        flows[l]!.push(
          kind === 'rms' ? (norm(slope) / Math.sqrt(n)) * rms * weight : norm(slope) * norm(output) * weight,
        );
    });
  }
  return flows;
}

describe('magnitudeProbes', () => {
  it.each(['rms', 'paper'] as const)('equals the definition (%s)', async (kind) => {
    const model = convNet();
    const samples = 5;
    const expected = await direct(model, samples, kind);
    const { layers } = await measure(model, 'x', [3, SIZE, SIZE], samples, 2, { norm: kind });
    [...layers.values()].forEach((layer, l) => {
      const mean = expected[l]!.reduce((a, b) => a + b, 0) / samples;
      const variance = expected[l]!.reduce((sum, v) => sum + (v - mean) ** 2, 0) / samples;
      expect(layer.flowRaw / mean).toBeCloseTo(1, 5);
      expect(layer.cv).toBeCloseTo(Math.sqrt(variance) / mean, 4);
      expect(layer.flow).toBeCloseTo(layer.flowRaw / (1 + layer.cv ** 2), 6);
      expect(layer.samples).toBe(samples);
    });
  });

  it('does not depend on the batch size, nor on padding', async () => {
    const model = convNet();
    const dims = [3, SIZE, SIZE];
    const one = await measure(model, 'x', dims, 11, 1);
    const eight = await measure(model, 'x', dims, 11, 8);
    const padded = await measure(model, 'x', dims, 11, 8, { pad: true });
    for (const [name, layer] of one.layers) {
      for (const other of [eight, padded]) {
        expect(Math.abs(other.layers.get(name)!.flow / layer.flow - 1)).toBeLessThan(1e-5);
        expect(other.layers.get(name)!.cv).toBeCloseTo(layer.cv, 5);
      }
    }
  });

  it('does not depend on names', async () => {
    const flows = (result: MagnitudeResult): number[] => [...result.layers.values()].map((layer) => layer.flow);
    const plain = await measure(convNet(), 'x', [3, SIZE, SIZE], 3, 3);
    const renamed = await measure(convNet('block/'), 'block/x', [3, SIZE, SIZE], 3, 3);
    expect(flows(renamed)).toEqual(flows(plain));
  });

  it('damping: none leaves the mean, paper divides by at most two and compares layers', async () => {
    const run = (damping: MagnitudeOptions['damping']): Promise<MagnitudeResult> =>
      measure(convNet(), 'x', [3, SIZE, SIZE], 6, 4, { damping });
    for (const layer of (await run('none')).layers.values()) expect(layer.flow).toBe(layer.flowRaw);
    const ratios = [...(await run('paper')).layers.values()].map((layer) => layer.flowRaw / layer.flow);
    expect(Math.max(...ratios)).toBeCloseTo(2, 6);
    expect(Math.min(...ratios)).toBeGreaterThanOrEqual(1);
    expect(new Set(ratios.map((r) => r.toFixed(6))).size).toBeGreaterThan(2);
  });

  it('two layers that share their weights are measured each for itself', async () => {
    const b = new Builder();
    const weight = b.weight([4, 4]);
    const first = b.op('Relu', [b.op('MatMul', [b.input('x', [4]), weight])]);
    const { layers } = await measure(b.done(b.op('Tanh', [b.op('MatMul', [first, weight])])), 'x', [4], 4, 2);
    const [one, two] = [...layers.values()].map((layer) => layer.flow);
    expect(layers.size).toBe(2);
    expect(one).not.toBeCloseTo(two!, 3);
  });

  it('leaves samples out that are not finite, and refuses a layer that never is', async () => {
    const b = new Builder();
    const x = b.input('x', [4]);
    const log = b.op('Log', [b.op('Add', [b.dense(x, 4, 1), b.scalar(0)])]);
    const model = b.done(b.dense(log, 1, 2));
    const { layers } = await measure(model, 'x', [4], 12, 4);
    const [, last] = [...layers.values()];
    expect(last!.skipped).toBeGreaterThan(0);
    expect(last!.samples + last!.skipped).toBe(12);
    expect(Number.isFinite(last!.flow)).toBe(true);

    const c = new Builder();
    const never = c.op('Log', [c.op('Sub', [c.op('Relu', [c.dense(c.input('x', [4]), 4, 1)]), c.scalar(1e9)])]);
    const broken = measure(c.done(c.dense(never, 1, 2)), 'x', [4], 4, 4);
    await expect(broken).rejects.toBeInstanceOf(FlowCompressError);
    await expect(broken).rejects.toMatchObject({ code: 'bad-input' });
  });

  it('samples folded into the first axis are told apart', async () => {
    const b = new Builder();
    const x = b.input('x', [TOKENS, 4]);
    const model = b.done(b.op('Relu', [b.dense(b.op('Reshape', [x, b.ints([-1, 4])]), 4, 3)]));
    const one = await measure(model, 'x', [TOKENS, 4], 6, 1);
    const all = await measure(model, 'x', [TOKENS, 4], 6, 6);
    const [a, c] = [one, all].map((result) => [...result.layers.values()][0]!);
    expect(a!.samples).toBe(6);
    expect(c!.samples).toBe(6);
    expect(c!.flow).toBeCloseTo(a!.flow, 5);
    expect(a!.cv).toBeGreaterThan(0.01);
  });
});

describe('attention heads', () => {
  const width = 2 * HEAD_DIM;

  it('equals the definition per head and adds up to the layers', async () => {
    const model = attentionModel();
    const { heads, layers } = await measure(model, 'x', [TOKENS, width], 3, 2);
    const graph = new Graph(model);
    const [q, k, v] = findLayers(graph);
    const context = graph.nodes.filter((node) => node.is('MatMul'))[4]!.outputs[0]!.name;
    const expected = [0, 0];
    for await (const batch of batchesOf('x', [TOKENS, width], 3, 1)()) {
      const values = Array.from((await traceValues(engine, model, batch.feeds)).get(context)!.data as Float32Array);
      for (const head of [0, 1]) {
        const elements = TOKENS * HEAD_DIM;
        const own = norm(values.slice(head * elements, (head + 1) * elements)) / Math.sqrt(elements);
        const weights = [q!, k!, v!].map((layer) => {
          const rows = weightMatrix(graph, layer).slice(head * HEAD_DIM * width, (head + 1) * HEAD_DIM * width);
          return norm(rows) / Math.sqrt(HEAD_DIM);
        });
        expected[head]! += (own * weights.reduce((a, b) => a + b, 0)) / 3;
      }
    }
    expect(heads[0]![0]! / expected[0]!).toBeCloseTo(1, 5);
    expect(heads[0]![1]! / expected[1]!).toBeCloseTo(1, 5);
    const sum = [q!, k!, v!].reduce((total, layer) => total + layers.get(layer.name)!.flowRaw, 0);
    expect(sum).toBeCloseTo(expected[0]! + expected[1]!, 4);
  });

  it.each(['rms', 'paper'] as const)(
    'fused and separate projections give the same heads and the same sum (%s)',
    async (kind) => {
      const separate = await measure(attentionModel(), 'x', [TOKENS, width], 4, 4, { norm: kind });
      const fused = await measure(attentionModel({ fused: true }), 'x', [TOKENS, width], 4, 2, { norm: kind });
      fused.heads[0]!.forEach((flow, head) => {
        expect(flow / separate.heads[0]![head]!).toBeCloseTo(1, 5);
      });
      const [qkv] = [...fused.layers.values()];
      const parts = [...separate.layers.values()].slice(0, 3).reduce((sum, layer) => sum + layer.flowRaw, 0);
      expect(qkv!.flowRaw / parts).toBeCloseTo(1, 5);
    },
  );

  it('a layer that serves two blocks carries its terms of both', async () => {
    const b = new Builder();
    const x = b.input('x', [TOKENS, HEAD_DIM]);
    const matrix = (): Value => b.op('MatMul', [x, b.weight([HEAD_DIM, HEAD_DIM])]);
    const [q, k] = [matrix(), matrix()];
    const attend = (sharpness: number): Value => {
      const scores = b.op('MatMul', [b.op('Mul', [q, b.scalar(sharpness)]), transpose(b.graph, k, [0, 2, 1])]);
      return b.op('MatMul', [b.op('Softmax', [scores]), matrix()]);
    };
    const model = b.done(b.op('Sub', [attend(1), attend(5)]));
    const { heads, layers } = await measure(model, 'x', [TOKENS, HEAD_DIM], 5, 2);
    const [first, second] = heads.map((flows) => flows[0]!);
    expect(heads).toHaveLength(2);
    const total = [...layers.values()].reduce((sum, layer) => sum + layer.flowRaw, 0);
    expect(total / (first! + second!)).toBeCloseTo(1, 6);
    expect([...layers.values()].map((layer) => layer.samples)).toEqual([5, 5, 5, 5]);
  });

  it('scaling Q and K apart, masks and repeated keys change nothing but what they compute', async () => {
    const dims = [TOKENS, width];
    const plain = await measure(attentionModel(), 'x', dims, 3, 3);
    for (const spec of [{ scale: 'both' as const }, { mask: 'add' as const }, { mask: 'where' as const }]) {
      const other = await measure(attentionModel(spec), 'x', dims, 3, 3);
      other.heads[0]!.forEach((flow, head) => {
        expect(flow).toBeCloseTo(plain.heads[0]![head]!, 4);
      });
    }
    const grouped = await measure(attentionModel({ heads: 4, keyHeads: 2 }), 'x', [TOKENS, 4 * HEAD_DIM], 3, 3);
    expect(grouped.heads[0]).toHaveLength(4);
    expect(grouped.heads[0]!.every((flow) => flow > 0)).toBe(true);
  });
});
