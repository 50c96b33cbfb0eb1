/** The whole profile: flowChange of layers and blocks, its invariants, and what is reported when there is none. */
import { describe, expect, it } from 'vitest';
import type { AttributeProto, ModelProto } from 'onnx-buf';
import { intsAttribute } from '../onnx/attributes.js';
import { Graph, type Value } from '../onnx/graph.js';
import { nodeEngine } from '../node/onnxruntime.js';
import { traceShapes, traceValues } from '../runtime/trace.js';
import { attentionModel, batchesOf, Builder, HEAD_DIM, TOKENS } from '../testing/flow-models.js';
import { emptyChannelSums, solveChannelMap } from './channel-map.js';
import { flowProfile, type FlowProfile } from './profile.js';

const engine = nodeEngine({ threads: 1 });
const GRID = 6;

async function profile(
  model: ModelProto,
  dims: number[],
  total: number,
  batchSize: number,
  options: { pad?: boolean; scale?: number } = {},
): Promise<FlowProfile> {
  const { value } = await batchesOf('x', dims, 1, 1)().next();
  const shapes = await traceShapes(engine, model, value!.feeds);
  return flowProfile(engine, model, shapes, batchesOf('x', dims, total, batchSize, options), total);
}

const convAttributes = (stride: number): AttributeProto[] => [
  intsAttribute('pads', [1, 1, 1, 1]),
  intsAttribute('strides', [stride, stride]),
];

/** conv - relu - residual block - strided conv - relu - pool - gemm, without biases when `scalable`. */
function net(options: { branch?: number; scalable?: boolean } = {}): ModelProto {
  const b = new Builder(17, 2);
  const conv = (x: Value, out: number, inputs: number, stride = 1): Value =>
    options.scalable
      ? b.op('Conv', [x, b.weight([out, inputs, 3, 3])], convAttributes(stride))
      : b.conv(x, [out, inputs, 3, 3], stride);
  const x = b.input('x', [3, GRID, GRID]);
  const stem = b.op('Relu', [conv(x, 4, 3)]);
  const inner = b.op('Relu', [conv(stem, 4, 4)]);
  const branch = b.op('Conv', [inner, b.weight([4, 4, 3, 3], options.branch ?? 1)], convAttributes(1));
  const sum = b.op('Relu', [b.op('Add', [branch, stem])]);
  const down = b.op('Relu', [conv(sum, 6, 4, 2)]);
  const pooled = b.op('Flatten', [b.op('GlobalAveragePool', [down])]);
  return b.done(b.op('Gemm', [pooled, b.weight([6, 3])]));
}

describe('flowProfile', () => {
  it('a block without effect scores 0, one with effect ||F|| / ||x + F||', async () => {
    const silent = await profile(net({ branch: 0 }), [3, GRID, GRID], 3, 2);
    expect(silent.blocks).toEqual([expect.objectContaining({ identity: true, flowChange: 0 })]);
    const model = net();
    const { blocks } = await profile(model, [3, GRID, GRID], 3, 2);
    const add = new Graph(model).nodes.find((node) => node.is('Add'))!;
    let expected = 0;
    for await (const batch of batchesOf('x', [3, GRID, GRID], 3, 1)()) {
      const values = await traceValues(engine, model, batch.feeds);
      expected += norm(values.get(add.inputs[0]!.name)!.data) / norm(values.get(add.outputs[0]!.name)!.data) / 3;
    }
    expect(blocks[0]!.flowChange).toBeCloseTo(expected, 4);
  });

  it('equal shapes: ||T_l - T_{l-1}|| / ||T_l|| of the post-activation tensors', async () => {
    const model = net();
    const { layers } = await profile(model, [3, GRID, GRID], 4, 3);
    const [stem, inner] = new Graph(model).nodes.filter((node) => node.is('Relu')).map((node) => node.outputs[0]!.name);
    let expected = 0;
    for await (const batch of batchesOf('x', [3, GRID, GRID], 4, 1)()) {
      const values = await traceValues(engine, model, batch.feeds);
      const [before, after] = [stem!, inner!].map((name) => Array.from(values.get(name)!.data as Float32Array));
      expected += norm(after!.map((v, i) => v - before![i]!)) / norm(after!) / 4;
    }
    expect(layers[1]!.flowChange).toBeCloseTo(expected, 4);
  });

  it('does not change with a common scale of all tensors', async () => {
    const model = net({ scalable: true });
    const base = await profile(model, [3, GRID, GRID], 8, 4);
    const scaled = await profile(model, [3, GRID, GRID], 8, 4, { scale: 8 });
    base.layers.forEach((layer, i) => {
      if (layer.flowChange === undefined) expect(scaled.layers[i]!.flowChange).toBeUndefined();
      else expect(scaled.layers[i]!.flowChange! / layer.flowChange).toBeCloseTo(1, 3);
    });
    expect(base.layers.filter((layer) => layer.flowChange !== undefined).length).toBeGreaterThanOrEqual(3);
    expect(scaled.layers[0]!.flowRaw / base.layers[0]!.flowRaw).toBeCloseTo(8, 3);
  });

  it('does not depend on batch size or padding', async () => {
    const model = net();
    const runs = [
      await profile(model, [3, GRID, GRID], 9, 1),
      await profile(model, [3, GRID, GRID], 9, 8),
      await profile(model, [3, GRID, GRID], 9, 8, { pad: true }),
    ];
    const changes = runs.map((run) => [...run.layers, ...run.blocks].map((entry) => entry.flowChange ?? -1));
    for (const other of changes.slice(1)) {
      other.forEach((change, i) => {
        expect(change).toBeCloseTo(changes[0]![i]!, 4);
      });
    }
  });

  it('a strided convolution that only averages and mixes channels is explained by its map', async () => {
    const explained = async (nonlinear: boolean): Promise<number> => {
      const b = new Builder(17, 4);
      const stem = b.op('Relu', [b.conv(b.input('x', [3, GRID, GRID]), [4, 3, 3, 3])]);
      const mix = b.weight([8, 4, 1, 1]);
      const down = b.op('Conv', [
        b.op('AveragePool', [stem], [intsAttribute('kernel_shape', [2, 2]), intsAttribute('strides', [2, 2])]),
        mix,
        b.weight([8]),
      ]);
      const end = nonlinear ? b.op('Relu', [down]) : down;
      const { layers } = await profile(b.done(b.op('GlobalMaxPool', [end])), [3, GRID, GRID], 8, 4);
      return layers[1]!.flowChange!;
    };
    const linear = await explained(false);
    expect(linear).toBeLessThan(0.02);
    expect(await explained(true)).toBeGreaterThan(5 * linear);
  });

  it('says why a layer has no flowChange', async () => {
    const { layers } = await profile(net(), [3, GRID, GRID], 8, 4);
    const notes = layers.map((layer) => layer.flowChangeNote);
    expect(notes[0]).toBe('no layer lies before it');
    expect(notes[notes.length - 1]).toContain('linear map');
    for (const layer of layers) expect(layer.flowChange === undefined).toBe(layer.flowChangeNote !== undefined);
    const few = await profile(net(), [3, GRID, GRID], 1, 1);
    expect(few.layers[3]!.flowChangeNote).toContain('too few samples');
  });

  it('lists depth, weight statistics and the attention a layer belongs to', async () => {
    const result = await profile(attentionModel(), [TOKENS, 2 * HEAD_DIM], 4, 4);
    expect(result.samples).toBe(4);
    expect(result.layers.map((layer) => layer.depth)).toEqual([0, 1 / 3, 2 / 3, 1]);
    expect(result.layers.map((layer) => layer.attention)).toEqual([0, 0, 0, 0]);
    expect(result.attention).toEqual([expect.objectContaining({ heads: 2 })]);
    const [q] = result.layers;
    const n = (2 * HEAD_DIM) ** 2;
    expect(q!.weightNorm ** 2).toBeCloseTo(n * (q!.weightStd ** 2 + q!.weightMean ** 2), 4);
  });

  it('stops when it is told to', async () => {
    const model = net();
    const { value } = await batchesOf('x', [3, GRID, GRID], 1, 1)().next();
    const shapes = await traceShapes(engine, model, value!.feeds);
    const controller = new AbortController();
    const seen: string[] = [];
    const run = flowProfile(
      engine,
      model,
      shapes,
      batchesOf('x', [3, GRID, GRID], 40, 1),
      40,
      {},
      {
        signal: controller.signal,
        onProgress: ({ stage, done }) => {
          seen.push(stage);
          if (done === 2) controller.abort();
        },
      },
    );
    await expect(run).rejects.toMatchObject({ code: 'aborted' });
    expect(seen.length).toBeLessThan(10);
  });
});

describe('solveChannelMap', () => {
  it('recovers a known map and its bias, up to the ridge', () => {
    const truth = [
      [1, -2, 0.5],
      [0, 3, 1],
    ];
    const sums = emptyChannelSums(3, 2);
    for (let t = 0; t < 500; t++) {
      const x = [Math.sin(t), Math.cos(2.3 * t) + 4, Math.sin(1.7 * t + 1)];
      const y = truth.map((row, o) => row.reduce((sum, w, i) => sum + w * x[i]!, 0) + o - 2);
      x.forEach((a, i) => {
        sums.sumX[i]! += a;
        x.forEach((b, j) => (sums.gram[i * 3 + j]! += a * b));
        y.forEach((b, o) => (sums.cross[o * 3 + i]! += b * a));
      });
      y.forEach((b, o) => (sums.sumY[o]! += b));
      sums.count++;
    }
    const { matrix, bias } = solveChannelMap(sums);
    truth.flat().forEach((w, i) => {
      expect(Math.abs(matrix[i]! - w)).toBeLessThan(0.01);
    });
    expect(Math.abs(bias[0]! + 2)).toBeLessThan(0.03);
    expect(Math.abs(bias[1]! + 1)).toBeLessThan(0.03);
  });

  it('keeps only the means of inputs that never vary', () => {
    const sums = emptyChannelSums(2, 1);
    sums.count = 10;
    sums.sumX.fill(30);
    sums.gram.fill(90);
    sums.sumY.fill(50);
    sums.cross.fill(150);
    expect([...solveChannelMap(sums).matrix]).toEqual([0, 0]);
    expect([...solveChannelMap(sums).bias]).toEqual([5]);
  });
});

function norm(values: ArrayLike<number | bigint>): number {
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += Number(values[i]) ** 2;
  return Math.sqrt(sum);
}
