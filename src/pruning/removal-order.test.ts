import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { ModelProto } from 'onnx-buf';
import { gatherGrams } from '../flow/gather-grams.js';
import { DataType } from '../onnx/dtypes.js';
import { Graph, rewrite } from '../onnx/graph.js';
import { makeTensor, readFloats } from '../onnx/tensor.js';
import { traceDims, traceShapes } from '../runtime/trace.js';
import { engine, tensorFeed } from '../testing/graph-writing.js';
import { normalBatches, normals, tinyResNet } from '../testing/tiny-models.js';
import { dependencyGroups } from './groups.js';
import { layerUnits } from './layer-units.js';
import { removalOrders, type OrderRequest } from './removal-order.js';
import { cutRanked } from './share-out.js';
import type { WidthSite } from './sites.js';

const MODEL = tinyResNet(17, 8);
const dependencies = dependencyGroups(MODEL, await traceDims(engine, MODEL, { x: tensorFeed([2, 3, 8, 8]) }));

function requestFor(model: ModelProto, more: Partial<OrderRequest>): OrderRequest {
  const graph = new Graph(model);
  const layers = layerUnits(graph, dependencies);
  return { graph, dependencies, layers, grams: new Map(), score: 'l1', order: 'lowest', seed: 1, ...more };
}

describe('the order of removal', () => {
  /** The model with other weights in the convolution inside the block, which is a group of its own. */
  const weighted = fc
    .integer({ min: 1, max: 1e6 })
    .map((seed) =>
      rewrite(MODEL, (graph) =>
        graph.setInitializer(
          graph.mustGet('block.a.w'),
          makeTensor('block.a.w', DataType.FLOAT, [8, 8, 3, 3], normals(576, seed)),
        ),
      ),
    );

  it('takes filters of larger norms with the highest first, of smaller ones with the lowest', () => {
    fc.assert(
      fc.property(weighted, fc.integer({ min: 1, max: 7 }), (model, count) => {
        const weights = readFloats(new Graph(model).mustGet('block.a.w').initializer!);
        const made = layerUnits(new Graph(model), dependencies).find(({ layer }) => layer.name === 'block.a')!.made;
        const norm = (unit: number): number => {
          const c = made.indexOf(unit);
          return weights.subarray(72 * c, 72 * c + 72).reduce((sum, v) => sum + Math.abs(v), 0);
        };
        const group = dependencies.groups.findIndex(({ layers }) => layers.join() === 'block.a');
        const orders = (['lowest', 'highest'] as const).map(
          (order) => removalOrders(requestFor(model, { order }))[group]!.units,
        );
        const [lowest, highest] = orders.map((units) => ({
          gone: units.slice(0, count).map(norm),
          left: units.slice(count).map(norm),
        }));
        expect(Math.max(...lowest!.gone)).toBeLessThanOrEqual(Math.min(...lowest!.left));
        expect(Math.min(...highest!.gone)).toBeGreaterThanOrEqual(Math.max(...highest!.left));
      }),
      { numRuns: 20 },
    );
  });

  it('turns an order of elimination around', async () => {
    const shapes = await traceShapes(engine, MODEL, { x: tensorFeed([1, 3, 8, 8]) });
    const layers = layerUnits(new Graph(MODEL), dependencies).map(({ layer }) => layer);
    const batches = () => normalBatches('x', [3, 8, 8], 32, 16);
    const grams = await gatherGrams({ engine, model: MODEL, shapes, layers, batches, samples: 32 });
    const [lowest, highest] = (['lowest', 'highest'] as const).map((order) =>
      removalOrders(requestFor(MODEL, { grams, score: 'obs', order })),
    );
    dependencies.groups.forEach((_, i) => {
      expect(highest![i]!.units).toEqual([...lowest![i]!.units].reverse());
      expect(lowest![i]!.scores).toBeUndefined();
    });
  });

  it('ranks groups together by what is worth most, too', () => {
    const orders = removalOrders(
      requestFor(MODEL, {
        score: 'taylor',
        order: 'highest',
        measured: Float64Array.from({ length: dependencies.units.classOf.length }, (_, unit) => unit),
      }),
    );
    const sites = dependencies.groups.map(({ index, units }): WidthSite => ({
      ...{ kind: 'width', group: index, order: orders[index]!.units },
      widths: Array.from(units, (__, i) => units.length - i),
    }));
    const classes = dependencies.units.classOf.length;
    const all = dependencies.groups.flatMap(({ units }) => [...units]);
    const costOf = ({ removed }: { readonly removed: Uint8Array }): number =>
      all.length - removed.reduce((sum, one) => sum + one, 0);
    const { widths } = cutRanked({ sites, orders, classes, costOf, goal: all.length - 3 });
    // Classes bear rising numbers: the three largest of all are those of the last group.
    const largest = [...all].sort((a, b) => b - a).slice(0, 3);
    const last = dependencies.groups.findIndex(({ units }) => largest.every((unit) => units.includes(unit)));
    expect([...widths]).toEqual([[last, 5]]);
  });

  it('leaves out a group of which the score cannot tell', () => {
    const scales = new Map([['block.a', Float64Array.of(3, 1, 2, 8, 7, 6, 5, 4)]]);
    const orders = removalOrders(requestFor(MODEL, { score: 'bn-scale', normScales: scales }));
    const made = layerUnits(new Graph(MODEL), dependencies).find(({ layer }) => layer.name === 'block.a')!.made;
    const told = dependencies.groups.findIndex(({ layers }) => layers.join() === 'block.a');
    orders.forEach((order, i) => {
      if (i !== told) expect(order).toBeUndefined();
      else {
        expect(order!.units).toEqual([1, 2, 0, 7, 6, 5, 4, 3].map((c) => made[c]));
        expect(order!.scores).toEqual([1, 2, 3, 4, 5, 6, 7, 8]);
      }
    });
  });
});
