import type { ModelProto } from 'onnx-buf';
import { describe, expect, it } from 'vitest';
import { DataType } from '../onnx/dtypes.js';
import { intAttribute } from '../onnx/attributes.js';
import { Graph } from '../onnx/graph.js';
import { findLayers } from '../onnx/layers.js';
import { modelMacs } from '../onnx/macs.js';
import { parameterCount } from '../onnx/parameters.js';
import { tensorInfo } from '../onnx/value-info.js';
import { runOnce } from '../runtime/run-once.js';
import { exposeValue, traceDims, traceShapes } from '../runtime/trace.js';
import { engine, tensorFeed } from '../testing/graph-writing.js';
import { declareOutput, normalBatches, plainNet, startGraph, tinyResNet, weight } from '../testing/tiny-models.js';
import { applyChoice } from './apply-choice.js';
import { compareCut, relativeDifference } from './check-cut.js';
import { costModel } from './cost.js';
import { maskedModel } from './cut.js';
import { dependencyGroups } from './groups.js';
import { layerUnits } from './layer-units.js';
import { planCuts } from './plan.js';
import { projectionSums, withMaskedProjections, withProjections } from './project.js';
import { findProjections, type Projection } from './projections.js';
import { NOTHING, takenBy, type Choice, type Site } from './sites.js';

const DIMS = [3, 12, 12];
const SAMPLES = 90;
const batches = () => normalBatches('x', DIMS, SAMPLES, 30);
const feeds = (rows: number) => ({ x: tensorFeed([rows, ...DIMS]) });

async function prepared(model: ModelProto) {
  const graph = new Graph(model);
  const shapes = await traceShapes(engine, model, feeds(1));
  const dependencies = dependencyGroups(graph, await traceDims(engine, model, feeds(2)));
  const found = findProjections(graph, shapes, 1);
  const sums = await projectionSums({ engine, model, shapes, batches, samples: SAMPLES }, found.projections);
  const sites = found.projections.map((unit): Site => ({ kind: 'layers', unit }));
  const layers = layerUnits(graph, dependencies);
  return { ...found, base: { model, dependencies, layers, grams: new Map(), sites, sums }, graph, shapes };
}

/** What a model gives for a value inside. */
async function valueOf(
  model: ModelProto,
  name: string,
  rows = SAMPLES,
): Promise<{ dims: number[]; data: Float32Array }> {
  const graph = new Graph(model);
  const value = graph.mustGet(name);
  graph.outputs.splice(0);
  exposeValue(graph, value);
  graph.removeDead();
  const input = (await normalBatches('x', DIMS, rows, rows).next()).value!.feeds;
  const found = (await runOnce(engine, graph.toModel(), input))[name]!;
  return { dims: [...found.dims], data: found.data as Float32Array };
}

/** Average pooling of [N, C, H, W], the kernel as large as the stride, in plain loops. */
function pooled(
  { dims, data }: { dims: number[]; data: Float32Array },
  size: number,
): { dims: number[]; data: Float32Array } {
  const [n, c, h] = dims as [number, number, number];
  const stride = h / size;
  const result = new Float32Array(n * c * size * size);
  for (let plane = 0; plane < n * c; plane++)
    for (let y = 0; y < h; y++)
      for (let x = 0; x < h; x++) {
        const at = plane * size * size + Math.floor(y / stride) * size + Math.floor(x / stride);
        result[at]! += data[(plane * h + y) * h + x]! / stride ** 2;
      }
  return { dims: [n, c, size, size], data: result };
}

/** P x + b at every position, in plain loops. */
function projected(
  { dims, data }: { dims: number[]; data: Float32Array },
  { matrix, bias }: { matrix: Float32Array; bias: Float32Array },
): { dims: number[]; data: Float32Array } {
  const [n, c, ...grid] = dims as [number, number, ...number[]];
  const area = grid.reduce((a, b) => a * b, 1);
  const rows = bias.length;
  const result = new Float32Array(n * rows * area);
  for (let s = 0; s < n; s++)
    for (let row = 0; row < rows; row++)
      for (let p = 0; p < area; p++) {
        let sum = bias[row]!;
        for (let i = 0; i < c; i++) sum += matrix[row * c + i]! * data[(s * c + i) * area + p]!;
        result[(s * rows + row) * area + p] = sum;
      }
  return { dims: [n, rows, ...grid], data: result };
}

const only = (...projections: Projection[]): Choice => ({
  ...NOTHING,
  layers: new Set(projections.map(({ name }) => name)),
});
const byEnds = (all: readonly Projection[], ...names: string[]): Projection =>
  all.find(({ layer, layers }) => [...layers, layer].join() === names.join())!;

describe('projections', () => {
  it('are found for layers in a row that cost more, and the others are named with the reason', async () => {
    const { projections, kept } = await prepared(plainNet());
    expect(projections.map(({ layers, layer }) => [...layers, layer].join())).toEqual([
      ...['down', 'same', 'down,same', 'same,pointwise', 'down,same,pointwise'],
      ...['pointwise,deep', 'same,pointwise,deep', 'deep,next', 'pointwise,deep,next'],
    ]);
    const reasons = Object.fromEntries(kept.map(({ layer, reason }) => [layer, reason]));
    expect(reasons).toEqual({
      stem: 'it reads an input of the model',
      head: 'it makes an output of the model',
      fc1: 'a projection would cost 100 % of it',
    });
  });

  it('are none inside residual blocks', () => {
    const model = tinyResNet();
    const graph = new Graph(model);
    return traceShapes(engine, model, { x: tensorFeed([1, 3, 8, 8]) }).then((shapes) => {
      const { projections, kept } = findProjections(graph, shapes, 1);
      expect(projections).toEqual([]);
      expect(kept.find(({ layer }) => layer === 'block.a')!.reason).toContain('residual block');
    });
  });

  it('compute in the file what pooling and the fitted map do, and leave the rest as it is', async () => {
    const model = plainNet();
    const { projections, base } = await prepared(model);
    for (const projection of projections) {
      const applied = applyChoice(base, only(projection));
      const [{ map, inputs, outputs }] = applied.projections as [(typeof applied.projections)[number]];
      const { from, to } = projection.step;
      expect([inputs.length, outputs.length]).toEqual([from.channels, to.channels]);
      const read = await valueOf(model, from.name);
      const expected = projected(from.grid.length > 0 ? pooled(read, to.grid[0]!) : read, map);
      const found = await valueOf(applied.model, to.name);
      const asTensor = (one: { dims: number[]; data: Float32Array }) => ({ ...one, type: 'float32' as const });
      expect(relativeDifference(asTensor(expected), asTensor(found))).toBeLessThan(1e-5);
      // The rest of the original, fed with that value, gives what the written graph gives.
      const rest = new Graph(model);
      rest.feed(rest.mustGet(to.name), tensorInfo(to.name, DataType.FLOAT, ['N', ...expected.dims.slice(1)]));
      rest.removeDead();
      rest.dropUnreadInputs();
      const input = (await batchesOf()).feeds;
      const whole = await runOnce(engine, applied.model, input);
      const tail = await runOnce(engine, rest.toModel(), { [to.name]: asTensor(expected) });
      expect(relativeDifference(tail['logits']!, whole['logits'])).toBeLessThan(1e-5);
      const names = findLayers(new Graph(applied.model)).map(({ name }) => name);
      expect(names).toContain(projection.layer);
      for (const gone of projection.layers) expect(names).not.toContain(gone);
    }
  });

  it('are the nearest such map: no other is nearer to what the layer gave', async () => {
    const model = plainNet();
    const { projections, base } = await prepared(model);
    const projection = byEnds(projections, 'down');
    const { map } = applyChoice(base, only(projection)).projections[0]!;
    const { from, to } = projection.step;
    const x = pooled(await valueOf(model, from.name), to.grid[0]!);
    const y = await valueOf(model, to.name);
    const loss = (other: typeof map): number => {
      const { data } = projected(x, other);
      let squared = 0;
      for (let i = 0; i < data.length; i++) squared += (data[i]! - y.data[i]!) ** 2;
      const positions = data.length / to.channels;
      // The ridge is a thousandth of the mean variance of the inputs.
      const channels = from.channels;
      const area = x.data.length / x.dims[0]! / channels;
      let variance = 0;
      for (let c = 0; c < channels; c++) {
        let [sum, squares] = [0, 0];
        for (let s = 0; s < x.dims[0]!; s++)
          for (let p = 0; p < area; p++) {
            const value = x.data[(s * channels + c) * area + p]!;
            sum += value;
            squares += value ** 2;
          }
        variance += squares / positions - (sum / positions) ** 2;
      }
      const ridge = (1e-3 * variance) / channels;
      return squared / positions + ridge * other.matrix.reduce((a, b) => a + b * b, 0);
    };
    const least = loss(map);
    for (const part of ['matrix', 'bias'] as const)
      for (let i = 0; i < Math.min(map[part].length, 12); i++)
        for (const by of [-0.05, 0.05]) {
          const moved = map[part].map((value, j) => (j === i ? value + by : value));
          expect(loss({ ...map, [part]: moved })).toBeGreaterThan(least);
        }
  });

  it('are cut along with the channels on both sides, and cost what they are said to', async () => {
    const model = plainNet();
    const { projections, base, graph, shapes } = await prepared(model);
    const projection = byEnds(projections, 'down', 'same');
    const { groups } = base.dependencies;
    const widths = groups.flatMap(({ index, units, layers }): Site[] =>
      ['stem', 'same'].includes(layers.join())
        ? [{ kind: 'width', group: index, order: [...units].reverse(), widths: [units.length, units.length - 3] }]
        : [],
    );
    expect(widths).toHaveLength(2);
    const sites = [...widths, ...base.sites];
    const choice: Choice = {
      ...only(projection),
      widths: new Map(widths.flatMap((site) => (site.kind === 'width' ? [[site.group, site.widths[1]!]] : []))),
    };
    const applied = applyChoice({ ...base, sites }, choice);
    const [fitted] = applied.projections as [(typeof applied.projections)[number]];
    const { from, to } = projection.step;
    expect([fitted.inputs.length, fitted.outputs.length]).toEqual([from.channels - 3, to.channels - 3]);
    const masked = withMaskedProjections(maskedModel(model, applied.selection), applied.projections);
    expect(await compareCut(engine, masked, withProjections(applied.cut, applied.projections), feeds(3))).toBeLessThan(
      1e-5,
    );
    // A map of the wrong channels is noticed.
    const wrong = [{ ...fitted, inputs: fitted.inputs.map((channel) => channel + 1) }];
    const other = withMaskedProjections(maskedModel(model, applied.selection), wrong);
    await expect(compareCut(engine, other, applied.plain, feeds(3))).rejects.toMatchObject({ code: 'internal' });
    const total = costModel(graph, shapes, base.dependencies, 1);
    const { removed, gone, added } = takenBy(choice, sites, base.dependencies.units.classOf.length);
    const left = total(removed, gone, added);
    const own = await traceShapes(engine, applied.model, feeds(1));
    expect(left.macs).toBeCloseTo(modelMacs(new Graph(applied.model), own, 1)!, 3);
    expect(left.params).toBe(parameterCount(applied.model));
  });

  it('do not stand for one layer twice', async () => {
    const { base, graph, shapes } = await prepared(plainNet());
    const total = costModel(graph, shapes, base.dependencies, 1);
    const { choice } = planCuts({
      ...{ dependencies: base.dependencies, sites: base.sites, goal: 0 },
      costOf: ({ removed, gone, added }) => total(removed, gone, added).macs!,
      damages: base.sites.map((site, i) => ({ site, of: () => 1 + i })),
    });
    const chosen = base.sites.flatMap((site) =>
      site.kind === 'layers' && choice.layers.has(site.unit.name) ? [site.unit] : [],
    );
    expect(chosen.length).toBeGreaterThan(0);
    const nodes = chosen.flatMap((unit) => [...unit.nodes]);
    expect(new Set(nodes).size).toBe(nodes.length);
    applyChoice(base, choice);
  });

  it('need samples enough to fit, and finite values', async () => {
    const { graph, x } = startGraph(17, ['N', 12]);
    const dense = (input: typeof x, name: string, outputs: number, inputs: number, seed: number) =>
      graph.insert({
        ...{ opType: 'Gemm', name, attributes: [intAttribute('transB', 1)], outputs: [`${name}.y`] },
        inputs: [
          input,
          weight(graph, `${name}.w`, [outputs, inputs], seed),
          weight(graph, `${name}.b`, [outputs], seed),
        ],
      }).outputs[0]!;
    const first = dense(x, 'first', 12, 12, 1);
    const a = graph.insertOp('Relu', [dense(first, 'a', 48, 12, 2)]);
    const b = graph.insertOp('Relu', [dense(a, 'b', 12, 48, 3)]);
    declareOutput(graph, dense(b, 'head', 4, 12, 4), ['N', 4]);
    const model = graph.toModel();
    const shapes = await traceShapes(engine, model, { x: tensorFeed([1, 12]) });
    const { projections } = findProjections(new Graph(model), shapes, 1);
    expect(projections.map(({ layers, layer }) => [...layers, layer].join())).toEqual(['a,b']);
    const sumsOf = (count: number) =>
      projectionSums(
        { engine, model, shapes, samples: count, batches: () => normalBatches('x', [12], count, count) },
        projections,
      );
    expect((await sumsOf(47)).size).toBe(0);
    expect((await sumsOf(48)).size).toBe(1);
    const broken = new Graph(model);
    broken.setInput(broken.nodes[0]!, 2, weight(broken, 'none', [12], 1, NaN));
    const none = await projectionSums(
      { engine, model: broken.toModel(), shapes, samples: 60, batches: () => normalBatches('x', [12], 60, 60) },
      projections,
    );
    expect(none.size).toBe(0);
  });
});

async function batchesOf() {
  return (await normalBatches('x', DIMS, SAMPLES, SAMPLES).next()).value!;
}
