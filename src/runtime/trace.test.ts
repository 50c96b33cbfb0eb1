import { describe, expect, it } from 'vitest';
import { nodeEngine } from '../node/onnxruntime.js';
import { Graph } from '../onnx/graph.js';
import { toBytes } from '../onnx/to-bytes.js';
import { normalBatches, tinyResNet } from '../testing/tiny-models.js';
import { exposeValue, traceShapes } from './trace.js';

const engine = nodeEngine({ threads: 1 });
const feeds = async (): Promise<Parameters<typeof traceShapes>[2]> =>
  (await normalBatches('x', [3, 8, 8], 2, 2).next()).value!.feeds;

describe('exposeValue', () => {
  it('reads intermediate values and model inputs back, each once', async () => {
    const graph = new Graph(tinyResNet());
    for (const name of ['stem.relu', 'x', 'stem.relu']) exposeValue(graph, graph.mustGet(name));
    const session = await engine.createSession(toBytes(graph.toModel()));
    const fed = await feeds();
    const out = await session.run(fed);
    await session.release();
    expect(Object.keys(out).sort()).toEqual(['logits', 'stem.relu', 'x']);
    expect(out['x']!.data).toEqual(fed['x']!.data);
    expect(out['stem.relu']!.dims).toEqual([2, 8, 8, 8]);
  });
});

describe('traceShapes', () => {
  it('finds the dims of every computed value', async () => {
    const shapes = await traceShapes(engine, tinyResNet(), await feeds());
    expect(shapes.get('block.sum')).toEqual({ type: 'float32', dims: [2, 8, 8, 8] });
    expect(shapes.get('flat')?.dims).toEqual([2, 8]);
    expect(shapes.get('x')?.dims).toEqual([2, 3, 8, 8]);
  });
});
