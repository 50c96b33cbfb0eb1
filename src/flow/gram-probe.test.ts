import { describe, expect, it } from 'vitest';
import { nodeEngine } from '../node/onnxruntime.js';
import { intAttribute, intsAttribute, stringAttribute } from '../onnx/attributes.js';
import { Graph } from '../onnx/graph.js';
import { findLayers } from '../onnx/layers.js';
import { toBytes } from '../onnx/to-bytes.js';
import { traceShapes } from '../runtime/trace.js';
import { runProbes } from '../runtime/probe.js';
import { declareOutput, normalBatches, normals, startGraph, weight } from '../testing/tiny-models.js';
import type { ModelProto } from 'onnx-buf';
import { gramProbe, type Gram } from './gram-probe.js';

const engine = nodeEngine({ threads: 1 });

async function measure(model: ModelProto, dims: number[], positions: number, total = 3, batchSize = 2): Promise<Gram> {
  const layer = findLayers(new Graph(model))[0]!;
  const first = (await normalBatches('x', dims, 1, 1).next()).value;
  if (!first) throw new Error('no batch');
  const shapes = await traceShapes(engine, model, first.feeds);
  const probe = gramProbe(layer, positions);
  await runProbes({
    engine,
    model,
    shapes,
    batches: normalBatches('x', dims, total, batchSize),
    probes: [probe],
    total,
    stage: 'test',
  });
  return probe.result();
}

describe('gramProbe', () => {
  // Strides, uneven padding, dilation, groups and auto_pad, against patches cut out by hand.
  it.each([
    {
      name: 'plain',
      attributes: [intsAttribute('pads', [1, 1, 1, 1])],
      groups: 1,
      pads: [1, 1],
      strides: [1, 1],
      dilations: [1, 1],
    },
    {
      name: 'strided and padded unevenly',
      attributes: [intsAttribute('pads', [0, 1, 2, 1]), intsAttribute('strides', [2, 1])],
      groups: 1,
      pads: [0, 1],
      strides: [2, 1],
      dilations: [1, 1],
    },
    {
      name: 'dilated',
      attributes: [intsAttribute('dilations', [2, 2])],
      groups: 1,
      pads: [0, 0],
      strides: [1, 1],
      dilations: [2, 2],
    },
    {
      name: 'grouped',
      attributes: [intAttribute('group', 2)],
      groups: 2,
      pads: [0, 0],
      strides: [1, 1],
      dilations: [1, 1],
    },
    {
      name: 'auto_pad',
      attributes: [stringAttribute('auto_pad', 'SAME_UPPER')],
      groups: 1,
      pads: [1, 1],
      strides: [1, 1],
      dilations: [1, 1],
    },
  ])('equals the Gram matrix of unfolded patches: $name', async ({ attributes, groups, pads, strides, dilations }) => {
    const channels = 4;
    const size = 7;
    const { graph, x } = startGraph(17, ['N', channels, size, size]);
    const w = weight(graph, 'w', [6, channels / groups, 3, 3], 1);
    const y = graph.insertOp('Conv', [x, w], attributes, 'y');
    declareOutput(graph, y, ['N', 6, '?', '?']);
    const model = graph.toModel();
    const gram = await measure(model, [channels, size, size], 10_000);

    const session = await engine.createSession(toBytes(model));
    const samples = 3;
    const data = normals(samples * channels * size * size, 11);
    const out = await session.run({ x: { type: 'float32', dims: [samples, channels, size, size], data } });
    await session.release();
    const [, , height, width] = out['y']!.dims as [number, number, number, number];
    const cols = (channels / groups) * 9;
    const expected = new Float64Array(groups * cols * cols);
    const rows = samples * height * width;
    for (let n = 0; n < samples; n++)
      for (let g = 0; g < groups; g++)
        for (let oy = 0; oy < height; oy++)
          for (let ox = 0; ox < width; ox++) {
            const patch = new Float64Array(cols);
            for (let c = 0; c < channels / groups; c++)
              for (let ky = 0; ky < 3; ky++)
                for (let kx = 0; kx < 3; kx++) {
                  const iy = oy * strides[0]! + ky * dilations[0]! - pads[0]!;
                  const ix = ox * strides[1]! + kx * dilations[1]! - pads[1]!;
                  if (iy < 0 || ix < 0 || iy >= size || ix >= size) continue;
                  const channel = (g * channels) / groups + c;
                  patch[c * 9 + ky * 3 + kx] = data[((n * channels + channel) * size + iy) * size + ix]!;
                }
            for (let i = 0; i < cols; i++)
              for (let j = 0; j < cols; j++) expected[(g * cols + i) * cols + j]! += (patch[i]! * patch[j]!) / rows;
          }
    expect(gram.count).toBe(rows);
    gram.data.forEach((v, i) => {
      expect(v).toBeCloseTo(expected[i]!, 4);
    });
  });

  it('takes a strided sample of large grids, near the full matrix', async () => {
    const { graph, x } = startGraph(17, ['N', 2, 24, 24]);
    const y = graph.insertOp('Conv', [x, weight(graph, 'w', [3, 2, 3, 3], 1)], [], 'y');
    declareOutput(graph, y, ['N', 3, 22, 22]);
    const sampled = await measure(graph.toModel(), [2, 24, 24], 100, 40, 8);
    expect(sampled.count).toBeGreaterThanOrEqual(40 * 100);
    expect(sampled.count).toBeLessThan(40 * 22 * 22);
    for (let i = 0; i < 18; i++) expect(sampled.data[i * 18 + i]).toBeCloseTo(1, 0);
  });

  it('sums over tokens for MatMul', async () => {
    const { graph, x } = startGraph(17, ['N', 5, 4]);
    declareOutput(graph, graph.insertOp('MatMul', [x, weight(graph, 'w', [4, 3], 1)], [], 'y'), ['N', 5, 3]);
    const gram = await measure(graph.toModel(), [5, 4], 100);
    const data = normals(3 * 20, 11);
    for (let i = 0; i < 4; i++)
      for (let j = 0; j < 4; j++) {
        let sum = 0;
        for (let r = 0; r < 15; r++) sum += data[r * 4 + i]! * data[r * 4 + j]!;
        expect(gram.data[i * 4 + j]).toBeCloseTo(sum / 15, 4);
      }
    expect(gram.count).toBe(15);
  });
});
