import type { ModelProto } from 'onnx-buf';
import { describe, expect, it } from 'vitest';
import { Graph } from '../onnx/graph.js';
import { traceDims, traceShapes, traceValues } from '../runtime/trace.js';
import { engine, info, op, tensorFeed, tinyModel, weights } from '../testing/graph-writing.js';
import { normalBatches, tinyResNet } from '../testing/tiny-models.js';
import { removableBranches, removeBranches } from './branches.js';
import { cutUnits } from './cut.js';
import { dependencyGroups } from './groups.js';
import { keptChannels, layerUnits } from './layer-units.js';
import { samePlaces, sharedPlaces, type CutModel } from './places.js';

async function cutOf(
  model: ModelProto,
  dims: readonly number[],
  removedUnits: readonly number[],
  branches: readonly string[] = [],
): Promise<CutModel> {
  const graph = new Graph(model);
  const dependencies = dependencyGroups(graph, await traceDims(engine, model, { x: tensorFeed([2, ...dims]) }));
  const removed = new Uint8Array(dependencies.units.classOf.length);
  for (const { units } of dependencies.groups) for (const place of removedUnits) removed[units[place]!] = 1;
  const shapes = await traceShapes(engine, model, { x: tensorFeed([1, ...dims]) });
  return {
    original: model,
    model: removeBranches(cutUnits(model, { dependencies, removed }), new Set(branches)),
    kept: keptChannels(layerUnits(graph, dependencies), removed),
    gone: removableBranches(graph, shapes).filter(({ name }) => branches.includes(name)),
  };
}

describe('shared places', () => {
  it('are the sums of residual branches behind their activation, with the channels that are left', async () => {
    const cut = await cutOf(tinyResNet(17, 8), [3, 8, 8], [1, 4]);
    expect(sharedPlaces(cut)).toEqual([
      { student: 'block.out', teacher: 'block.out', part: { axis: 1, channels: [0, 2, 3, 5, 6, 7] } },
    ]);
  });

  it('are whole where no channel went, and hold the same numbers then', async () => {
    const model = tinyResNet(17, 8);
    const cut = await cutOf(model, [3, 8, 8], []);
    const [place] = sharedPlaces(cut);
    expect(place).toEqual({ student: 'block.out', teacher: 'block.out' });
    const { feeds } = (await normalBatches('x', [3, 8, 8], 4, 4).next()).value!;
    const [own, theirs] = await Promise.all(
      [cut.model, model].map((one) => traceValues(engine, one, feeds, new Set(['block.out']))),
    );
    expect(own!.get(place!.student)!.data).toEqual(theirs!.get(place!.teacher)!.data);
  });

  it('are what activation functions give where nothing is summed, at the end of rows for products of matrices', async () => {
    const plain = tinyModel({
      inputs: [info('x', ['N', 2, 3])],
      outputs: [info('y', ['N', 2, 2])],
      nodes: [op('MatMul x w -> m'), op('Relu m -> h'), op('MatMul h v -> y')],
      initializers: [weights('w', [3, 6], 1), weights('v', [6, 2], 2)],
    });
    const cut = await cutOf(plain, [2, 3], [0]);
    expect(sharedPlaces(cut)).toEqual([{ student: 'h', teacher: 'h', part: { axis: -1, channels: [1, 2, 3, 4, 5] } }]);
  });

  it('face the sum behind branches that went', async () => {
    const three = tinyModel({
      inputs: [info('x', ['N', 4])],
      outputs: [info('y', ['N', 2])],
      nodes: [
        op('MatMul x a -> p'),
        op('Add p pb -> s0'),
        op('MatMul s0 b -> q'),
        op('Add q qb -> f1'),
        op('Add s0 f1 -> s1'),
        op('MatMul s1 c -> r'),
        op('Add r rb -> f2'),
        op('Add s1 f2 -> s2'),
        op('MatMul s2 d -> y'),
      ],
      initializers: [
        ...[weights('a', [4, 4], 1), weights('b', [4, 4], 2), weights('c', [4, 4], 3), weights('d', [4, 2], 4)],
        ...[weights('pb', [4], 5), weights('qb', [4], 6), weights('rb', [4], 7)],
      ],
    });
    const shapes = await traceShapes(engine, three, { x: tensorFeed([1, 4]) });
    const branches = removableBranches(new Graph(three), shapes);
    const last = branches.find(({ output }) => output === 's2')!;
    const cut = await cutOf(three, [4], [], [last.name]);
    expect(sharedPlaces(cut)).toEqual([{ student: 's1', teacher: 's2' }]);
  });

  it('are those of the original in a model of the same channels, where the names are the same', () => {
    const model = tinyResNet(17, 8);
    expect(samePlaces(model, model)).toEqual([{ student: 'block.out', teacher: 'block.out' }]);
    const graph = new Graph(model);
    graph.rename(graph.mustGet('block.out'), 'elsewhere');
    expect(samePlaces(model, graph.toModel())).toEqual([]);
  });
});
