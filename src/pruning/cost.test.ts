import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Graph } from '../onnx/graph.js';
import { modelMacs } from '../onnx/macs.js';
import { parameterCount } from '../onnx/parameters.js';
import { traceShapes } from '../runtime/trace.js';
import { engine } from '../testing/graph-writing.js';
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
    expect(cost(nothing)).toEqual({ macs: modelMacs(graph, shapes, 2), params: parameterCount(model) });
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
});
