import type { ModelProto } from 'onnx-buf';
import { describe, expect, it } from 'vitest';
import { Graph } from '../onnx/graph.js';
import { findLayers } from '../onnx/layers.js';
import { modelMacs } from '../onnx/macs.js';
import { parameterCount } from '../onnx/parameters.js';
import { makeTensor } from '../onnx/tensor.js';
import { runOnce } from '../runtime/run-once.js';
import { exposeValue, traceShapes } from '../runtime/trace.js';
import { engine, tensorFeed } from '../testing/graph-writing.js';
import { smallNetwork, zooFeeds } from '../testing/zoo-models.js';
import { tinyResNet } from '../testing/tiny-models.js';
import { removableBranches, removeBranches, type Branch } from './branches.js';
import { relativeDifference } from './check-cut.js';
import { costModel } from './cost.js';
import { dependencyGroups } from './groups.js';

const NETWORKS = {
  'tiny residual network': { model: tinyResNet(), feeds: { x: tensorFeed([2, 3, 8, 8]) } },
  ...Object.fromEntries(
    ['resnet8', 'mobilenet-v2', 'vit-ti'].map((name) => {
      const model = smallNetwork(name);
      return [name, { model, feeds: zooFeeds(model, 2) }];
    }),
  ),
};

/** The original with zeros in every layer that ends the branch: it adds nothing. */
function silenced(model: ModelProto, branches: readonly Branch[]): ModelProto {
  const graph = new Graph(model);
  for (const { name, skip } of branches) {
    const add = graph.nodes.find((node) => node.label === name)!;
    const zero = graph.addInitializer(makeTensor(graph.uniqueName('zero'), 1, [], new Float32Array([0])));
    const index = add.inputs.findIndex((input) => input!.name !== skip);
    graph.setInput(add, index, graph.insertOp('Mul', [add.inputs[index]!, zero]));
  }
  return graph.toModel();
}

describe('removing branches', () => {
  it.each(Object.entries(NETWORKS))(
    '%s: gives what the original gives when they add nothing',
    async (_, { model, feeds }) => {
      const known = await traceShapes(engine, model, feeds);
      const branches = removableBranches(new Graph(model), known);
      expect(branches.length).toBeGreaterThan(0);
      for (const chosen of [branches.slice(0, 1), branches.slice(-2), branches]) {
        const names = new Set(chosen.map(({ name }) => name));
        const left = removeBranches(model, names);
        const expected = await runOnce(engine, silenced(model, chosen), feeds);
        const found = await runOnce(engine, left, feeds);
        for (const [name, value] of Object.entries(expected))
          expect(relativeDifference(value, found[name])).toBeLessThan(1e-5);
        const labels = new Set(findLayers(new Graph(left)).map((layer) => layer.name));
        for (const { layers } of chosen) for (const layer of layers) expect(labels.has(layer)).toBe(false);
      }
    },
  );

  it.each(Object.entries(NETWORKS))('%s: costs what it is said to cost', async (_, { model, feeds }) => {
    const shapes = await traceShapes(engine, model, feeds);
    const graph = new Graph(model);
    const branches = removableBranches(graph, shapes);
    const total = costModel(graph, shapes, dependencyGroups(graph, shapes), 2);
    const { units } = dependencyGroups(graph, shapes);
    const nothing = new Uint8Array(units.classOf.length);
    const [first] = branches;
    const left = removeBranches(model, new Set([first!.name]));
    const after = modelMacs(new Graph(left), await traceShapes(engine, left, feeds), 2);
    expect(total(nothing, first!.nodes).macs).toBeCloseTo(after!, 3);
    const saved = total(nothing).params - total(nothing, first!.nodes).params;
    expect(saved).toBe(parameterCount(model) - parameterCount(left));
  });

  it('leaves alone what is not named, and a branch that something else reads', async () => {
    const model = tinyResNet();
    expect(removeBranches(model, new Set(['other']))).toEqual(model);
    const graph = new Graph(model);
    exposeValue(graph, graph.mustGet('block.a.y'));
    const watched = graph.toModel();
    const shapes = await traceShapes(engine, watched, { x: tensorFeed([1, 3, 8, 8]) });
    // What is watched stays, what is behind it goes.
    expect(removableBranches(new Graph(watched), shapes).map(({ layers }) => layers)).toEqual([['block.b']]);
  });
});
