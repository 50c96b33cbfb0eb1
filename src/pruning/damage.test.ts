import { expect, it } from 'vitest';
import { Graph } from '../onnx/graph.js';
import { weightMatrix } from '../onnx/layers.js';
import { readFloats } from '../onnx/tensor.js';
import { parameterCount } from '../onnx/parameters.js';
import { gatherGrams } from '../flow/gather-grams.js';
import { traceDims, traceShapes } from '../runtime/trace.js';
import { engine, tensorFeed } from '../testing/graph-writing.js';
import { normalBatches, tinyResNet } from '../testing/tiny-models.js';
import { applyChoice } from './apply-choice.js';
import { measureDamage } from './damage.js';
import { dependencyGroups } from './groups.js';
import { layerUnits } from './layer-units.js';
import { refit } from './refit.js';
import { findSites, GUARDS, NOTHING } from './sites.js';

async function prepared() {
  const model = tinyResNet(17, 32);
  const dependencies = dependencyGroups(model, await traceDims(engine, model, { x: tensorFeed([2, 3, 8, 8]) }));
  const layers = layerUnits(new Graph(model), dependencies);
  const orders = dependencies.groups.map(({ units }) => ({ units: [...units] }));
  const first = dependencies.groups.map(({ units }) => units.length);
  const guards = { ...GUARDS, align: 4, least: 4 };
  const sites = findSites(dependencies, orders, first, [], guards, { filters: true, layers: false });
  return { model, dependencies, layers, grams: new Map(), sums: new Map(), sites };
}

it('measures some widths, and puts those between on a rising curve', async () => {
  const base = await prepared();
  const whole = parameterCount(base.model);
  let measured = 0;
  const divergenceOf = (model: typeof base.model) => {
    measured++;
    return Promise.resolve((whole - parameterCount(model)) ** 2);
  };
  for (const { site, of } of await measureDamage(base, divergenceOf)) {
    if (site.kind !== 'width') continue;
    expect(of(32)).toBe(0);
    const narrow = { ...NOTHING, widths: new Map([[site.group, 4]]) };
    expect(of(4) / (whole - parameterCount(applyChoice(base, narrow).model)) ** 2).toBeCloseTo(1, 9);
    const curve = site.widths.map((width) => of(width));
    for (let i = 1; i < curve.length; i++) expect(curve[i]).toBeGreaterThan(curve[i - 1]!);
  }
  expect(measured).toBe(1 + 3 * base.sites.length);
});

it('re-fits the readers with their own bias moved by what went', async () => {
  const base = await prepared();
  const { model, layers } = base;
  const shapes = await traceShapes(engine, model, { x: tensorFeed([1, 3, 8, 8]) });
  const grams = await gatherGrams({
    ...{ engine, model, shapes, layers: layers.map(({ layer }) => layer), samples: 60 },
    batches: () => normalBatches('x', [3, 8, 8], 60, 30),
  });
  const inner = base.dependencies.groups.find(({ layers: names }) => names.join() === 'block.a')!;
  const graph = new Graph(model);
  const reader = layers.find(({ layer }) => layer.name === 'block.b')!;
  const kept = [...reader.read!.keys()].slice(8).flatMap((c) => Array.from({ length: 9 }, (_, tap) => 9 * c + tap));
  const { shift } = refit(weightMatrix(graph, reader.layer), grams.get('block.b')!, kept);
  const cut = applyChoice({ ...base, grams }, { ...NOTHING, widths: new Map([[inner.index, 24]]) });
  const before = readFloats(graph.mustGet('block.b.b').initializer!);
  const after = readFloats(new Graph(cut.model).mustGet('block.b.b').initializer!);
  before.forEach((bias, i) => expect(after[i]).toBeCloseTo(bias + shift[i]!, 5));
});

it('counts a cut that leaves no finite answers as one that nothing is worth', async () => {
  const base = await prepared();
  for (const not of [NaN, Infinity])
    for (const { site, of } of await measureDamage(base, (model) => Promise.resolve(model === base.model ? 0 : not)))
      if (site.kind === 'width')
        expect(
          site.widths
            .slice(1)
            .map(of)
            .every((damage) => damage === Infinity),
        ).toBe(true);
});
