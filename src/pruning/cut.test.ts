/** What groups say, what cuts share, state and refuse, and what the original with zeros is. */
import type { ModelProto } from 'onnx-buf';
import { describe, expect, it } from 'vitest';
import { intAttribute } from '../onnx/attributes.js';
import { Graph, rewrite } from '../onnx/graph.js';
import { modelMacs } from '../onnx/macs.js';
import { readFloats } from '../onnx/tensor.js';
import { toBytes } from '../onnx/to-bytes.js';
import { declaredDims } from '../onnx/value-info.js';
import type { Feeds } from '../runtime/engine.js';
import { traceDims } from '../runtime/trace.js';
import { engine, info, ints, op, tensorFeed, tinyModel, weights } from '../testing/graph-writing.js';
import { cutAndCheck, randomSelection, stirred } from '../testing/random-cuts.js';
import { convNet } from '../testing/tiny-net.js';
import { smallNetwork, zooFeeds } from '../testing/zoo-models.js';
import { checkCut } from './check-cut.js';
import { cutUnits, maskedModel } from './cut.js';
import { dependencyGroups, type Dependencies } from './groups.js';
import { selectUnits } from './selection.js';
import { unitCosts } from './unit-costs.js';

const image = { image: tensorFeed([2, 3, 8, 8]) };

async function groupsOf(model: ModelProto, feeds: Feeds = image): Promise<Dependencies> {
  return dependencyGroups(model, await traceDims(engine, model, feeds));
}

describe('dependencyGroups', () => {
  it('ties a residual connection and a depthwise convolution together, and says why the scores stay', async () => {
    const { groups, fixed } = await groupsOf(convNet());
    expect(groups).toHaveLength(1);
    const [group] = groups;
    expect([...group!.layers].sort()).toEqual(['depthwise', 'first', 'point']);
    expect(group!.units).toHaveLength(4);
    expect(group!.kind).toBe('filters');
    const members = group!.members.map(({ initializer, axis, role, slices }) => [initializer, axis, role, slices]);
    expect(members).toEqual([
      ['w1', 0, 'producer', 1],
      ...['gamma', 'beta', 'mean', 'var'].map((name) => [name, 0, 'scale', 1]),
      ...[
        ['w2', 0, 'producer', 1],
        ['b2', 0, 'producer', 1],
      ],
      ...[
        ['w3', 0, 'producer', 1],
        ['w3', 1, 'consumer', 1],
        ['w4', 1, 'consumer', 1],
      ],
    ]);
    expect(fixed).toEqual([{ layer: 'head', op: 'Gemm', count: 5, of: 5, reason: 'output of the model' }]);
  });

  it('gives the same units for any batch', async () => {
    const sizes = async (rows: number): Promise<number[][]> => {
      const model = smallNetwork('vit-s');
      const { groups } = await groupsOf(model, zooFeeds(model, rows));
      return groups.map(({ units, members }) => [units.length, members.length]);
    };
    expect(await sizes(1)).toEqual(await sizes(2));
  });

  it('fixes what has no shape', () => {
    const { groups, fixed } = dependencyGroups(convNet(), new Map());
    expect(groups).toEqual([]);
    expect(fixed).toEqual([]);
  });

  it('counts what a unit costs as the cut model has less of', async () => {
    for (const name of ['resnet8', 'mobilenet-v2', 'vit-s']) {
      const model = smallNetwork(name);
      const feeds = zooFeeds(model, 2);
      const shapes = await traceDims(engine, model, feeds);
      const dependencies = dependencyGroups(model, shapes);
      const costs = unitCosts(new Graph(model), shapes, dependencies, 2);
      const macsOf = async (each: ModelProto): Promise<number> =>
        modelMacs(new Graph(each), await traceDims(engine, each, feeds), 2)!;
      for (const { index } of dependencies.groups.filter((_, at) => at % 3 === 0)) {
        const cut = cutUnits(model, selectUnits(dependencies, [{ group: index, units: [0] }]));
        const sizes = (each: ModelProto): number =>
          each
            .graph!.initializer.filter((tensor) => tensor.dataType === 1)
            .reduce((sum, { rawData }) => sum + rawData.length / 4, 0);
        expect(costs[index]!.params).toBe(sizes(model) - sizes(cut));
        expect(costs[index]!.macs).toBeCloseTo((await macsOf(model)) - (await macsOf(cut)), 0);
      }
    }
  });
});

describe('cutUnits', () => {
  it('copies nothing that it does not change, and leaves the original as it was', async () => {
    const model = smallNetwork('resnet20');
    const bytes = Buffer.from(toBytes(model));
    const feeds = zooFeeds(model, 2);
    const { cut, dependencies } = await cutAndCheck(model, feeds, (found) =>
      selectUnits(found, [{ group: 3, units: [1] }]),
    );
    const touched = new Set(dependencies.groups[3]!.members.map(({ initializer }) => initializer));
    for (const tensor of cut.graph!.initializer) {
      const old = model.graph!.initializer.find(({ name }) => name === tensor.name)!;
      expect(tensor.rawData === old.rawData).toBe(!touched.has(tensor.name));
    }
    expect(Buffer.from(toBytes(model)).equals(bytes)).toBe(true);
    const again = cutUnits(model, selectUnits(dependencies, [{ group: 3, units: [1] }]));
    expect(Buffer.from(toBytes(again)).equals(Buffer.from(toBytes(cut)))).toBe(true);
  });

  it('cuts the same units of a model with other weights, and refuses one of another structure', async () => {
    const model = smallNetwork('resnet8');
    const feeds = zooFeeds(model, 2);
    const dependencies = await groupsOf(model, feeds);
    const selection = randomSelection(dependencies, 0.4, 2);
    const trained = stirred(model, 9);
    expect(await checkCut(engine, trained, cutUnits(trained, selection), selection, feeds)).toBeLessThan(1e-5);
    const once = cutUnits(model, selection);
    expect(() => cutUnits(once, selection)).toThrow(/another model/);
    expect(() => maskedModel(once, selection)).toThrow(/another model/);
  });

  it('refuses to empty a group, and what there is not', async () => {
    const dependencies = await groupsOf(convNet());
    expect(() => selectUnits(dependencies, [{ group: 0, units: [0, 1, 2, 3] }])).toThrow(/All 4 units/);
    expect(() => selectUnits(dependencies, [{ group: 1, units: [0] }])).toThrow(/no dependency group 1/);
    expect(() => selectUnits(dependencies, [{ group: 0, units: [4] }])).toThrow(/no unit 4/);
  });

  it('refuses to leave nothing of a value that several groups make', async () => {
    const model = tinyModel({
      inputs: [info('x', ['N', 3, 6, 6])],
      outputs: [info('y', ['N', 5, 'h', 'w'])],
      nodes: [
        ...[op('Conv x w -> a'), op('Conv x u -> b'), op('Concat a b -> c', [intAttribute('axis', 1)])],
        ...[op('Slice c from to one -> d'), op('Conv d v -> y')],
      ],
      initializers: [
        ...[weights('w', [4, 3, 1, 1]), weights('u', [4, 3, 1, 1], 2), weights('v', [5, 2, 1, 1], 3)],
        ...[ints('from', [3]), ints('to', [5]), ints('one', [1])],
      ],
    });
    const dependencies = await groupsOf(model, { x: tensorFeed([2, 3, 6, 6]) });
    const single = dependencies.groups.filter(({ units }) => units.length === 1);
    expect(single).toHaveLength(2);
    const removed = new Uint8Array(dependencies.units.classOf.length);
    for (const { units } of single) removed[units[0]!] = 1;
    expect(() => cutUnits(model, { dependencies, removed })).toThrow(/Nothing would be left of d/);
  });

  it('states the new sizes in the declared shapes of values', async () => {
    const model = rewrite(convNet(), (graph) => {
      graph.mustGet('d').info = info('d', ['N', 4, 8, 8]);
    });
    const { cut } = await cutAndCheck(model, image, (found) => selectUnits(found, [{ group: 0, units: [0, 2] }]));
    const declared = cut.graph!.valueInfo.find(({ name }) => name === 'd');
    expect(declaredDims(declared)).toEqual(['N', 2, 8, 8]);
  });

  it('keeps weights that are listed as inputs out of the inputs once they are cut', async () => {
    const model = convNet();
    model.irVersion = 3n;
    for (const tensor of model.graph!.initializer) model.graph!.input.push(info(tensor.name, tensor.dims.map(Number)));
    const { cut } = await cutAndCheck(model, image);
    expect(cut.graph!.input.map(({ name }) => name)).not.toContain('w1');
  });
});

describe('maskedModel', () => {
  it('has zeros in every slice of the units but in divisors', async () => {
    const dependencies = await groupsOf(convNet());
    const masked = maskedModel(convNet(), selectUnits(dependencies, [{ group: 0, units: [1] }]));
    const floats = (name: string): number[] => [
      ...readFloats(masked.graph!.initializer.find((tensor) => tensor.name === name)!),
    ];
    expect(floats('gamma')[1]).toBe(0);
    expect(floats('var')[1]).toBe(1);
    expect(floats('w3').filter((x) => x === 0)).toHaveLength(7);
    expect(floats('w4').filter((x) => x === 0)).toHaveLength(5);
  });

  it('is what finds a wrong cut', async () => {
    const model = convNet();
    const dependencies = await groupsOf(model);
    const [one, other] = [1, 2].map((unit) => selectUnits(dependencies, [{ group: 0, units: [unit] }]));
    await expect(checkCut(engine, model, cutUnits(model, one!), other!, image)).rejects.toMatchObject({
      code: 'internal',
      node: 'scores',
    });
  });
});
