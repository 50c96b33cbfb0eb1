import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Graph } from '../onnx/graph.js';
import { modelMacs } from '../onnx/macs.js';
import { parameterCount } from '../onnx/parameters.js';
import { traceShapes } from '../runtime/trace.js';
import { intAttribute } from '../onnx/attributes.js';
import type { Value } from '../onnx/graph.js';
import { engine, tensorFeed } from '../testing/graph-writing.js';
import { declareOutput, startGraph, weight } from '../testing/tiny-models.js';
import { smallNetwork, zooFeeds } from '../testing/zoo-models.js';
import { costModel } from './cost.js';
import { cutUnits } from './cut.js';
import { dependencyGroups } from './groups.js';

describe('the cost of a model', () => {
  it.each(['resnet8', 'mobilenet-v2', 'vit-ti'])('%s: is that of the model that is really cut', async (name) => {
    const model = smallNetwork(name);
    const feeds = zooFeeds(model, 2);
    const graph = new Graph(model);
    const shapes = await traceShapes(engine, model, feeds);
    const dependencies = dependencyGroups(graph, shapes);
    const cost = costModel(graph, shapes, dependencies, 2);
    const nothing = new Uint8Array(dependencies.units.classOf.length);
    const whole = modelMacs(graph, shapes, 2);
    // One channel at a time there is nothing to fill up.
    expect(cost(nothing)).toEqual({ macs: whole, params: parameterCount(model), blocked: whole });
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 1, max: 1e6 }), async (seed) => {
        const removed = new Uint8Array(nothing.length);
        dependencies.groups.forEach(({ units }, i) => {
          const count = (seed * (i + 3)) % units.length;
          for (const unit of units.slice(0, count)) removed[unit] = 1;
        });
        const cut = cutUnits(model, { dependencies, removed });
        const after = await traceShapes(engine, cut, feeds);
        const found = cost(removed);
        expect(found.params).toBe(parameterCount(cut));
        expect(found.macs).toBeCloseTo(modelMacs(new Graph(cut), after, 2)!, 3);
      }),
      { numRuns: 4 },
    );
  });

  it('counts whole blocks of channels for kernels that compute these', async () => {
    const { graph, x } = startGraph(17, ['N', 3, 4, 4]);
    const conv = (input: Value, dims: number[], group = 1): Value =>
      graph.insertOp('Conv', [input, weight(graph, `w${String(dims)}`, dims, 1)], [intAttribute('group', group)]);
    const inner = conv(conv(conv(x, [20, 3, 1, 1]), [20, 1, 1, 1], 20), [8, 20, 1, 1]);
    declareOutput(graph, inner, ['N', 8, 4, 4]);
    const model = graph.toModel();
    const feeds = { x: tensorFeed([1, 3, 4, 4]) };
    const shapes = await traceShapes(engine, model, feeds);
    const dependencies = dependencyGroups(new Graph(model), shapes);
    const cost = costModel(new Graph(model), shapes, dependencies, 1, 16);
    const { macs, blocked } = cost(new Uint8Array(dependencies.units.classOf.length));
    expect(macs).toBe(16 * (20 * 3 + 20 + 8 * 20));
    // Images have few channels in any model; 20 are two blocks, 8 are one.
    expect(blocked).toBeCloseTo(16 * (32 * 3 + 32 + 16 * 32), 6);
  });
});
