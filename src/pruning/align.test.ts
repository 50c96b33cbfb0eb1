import type { ModelProto } from 'onnx-buf';
import { describe, expect, it } from 'vitest';
import { Graph } from '../onnx/graph.js';
import { intAttribute } from '../onnx/attributes.js';
import { findLayers } from '../onnx/layers.js';
import { relativeError } from '../runtime/output-divergence.js';
import { runOnce } from '../runtime/run-once.js';
import { traceDims, traceShapes } from '../runtime/trace.js';
import { engine, info, op, tensorFeed, tinyModel } from '../testing/graph-writing.js';
import { normalBatches, normals, tinyResNet } from '../testing/tiny-models.js';
import { makeTensor, readFloats } from '../onnx/tensor.js';
import { alignLayers } from './align.js';
import { removableBranches, removeBranches } from './branches.js';
import { cutUnits } from './cut.js';
import { dependencyGroups } from './groups.js';
import { keptChannels, layerUnits } from './layer-units.js';

const SAMPLES = 120;

/** The model without the first `count` units of every group and without these branches, and the same aligned. */
async function cutAndAligned(
  model: ModelProto,
  dims: readonly number[],
  count: number,
  branches: readonly string[] = [],
): Promise<{ cut: ModelProto; aligned: ModelProto; fitted: string[] }> {
  const feeds = (rows: number) => ({ x: tensorFeed([rows, ...dims]) });
  const graph = new Graph(model);
  const originalShapes = await traceShapes(engine, model, feeds(1));
  const dependencies = dependencyGroups(graph, await traceDims(engine, model, feeds(2)));
  const removed = new Uint8Array(dependencies.units.classOf.length);
  for (const { units } of dependencies.groups) for (const unit of units.slice(0, count)) removed[unit] = 1;
  const gone = removableBranches(graph, originalShapes).filter(({ name }) => branches.includes(name));
  const cut = removeBranches(cutUnits(model, { dependencies, removed }), new Set(branches));
  const { model: aligned, fitted } = await alignLayers({
    ...{ engine, original: model, originalShapes, model: cut, shapes: await traceShapes(engine, cut, feeds(1)) },
    ...{ kept: keptChannels(layerUnits(graph, dependencies), removed), gone, samples: SAMPLES },
    batches: () => normalBatches('x', dims, SAMPLES, 40),
  });
  return { cut, aligned, fitted };
}

async function errorOf(original: ModelProto, model: ModelProto, dims: readonly number[]): Promise<number> {
  const feeds = (await normalBatches('x', dims, SAMPLES, SAMPLES).next()).value!.feeds;
  const [a, b] = [await runOnce(engine, original, feeds), await runOnce(engine, model, feeds)];
  return relativeError(Object.keys(a), a, b);
}

describe('aligning layers', () => {
  it('brings a cut network much nearer to the original, with the same shapes', async () => {
    const model = tinyResNet(17, 8);
    const { cut, aligned, fitted } = await cutAndAligned(model, [3, 8, 8], 3);
    expect(fitted).toEqual(['stem', 'block.a', 'block.b', 'head']);
    const before = await errorOf(model, cut, [3, 8, 8]);
    const after = await errorOf(model, aligned, [3, 8, 8]);
    expect(before).toBeGreaterThan(0.05);
    expect(after).toBeLessThan(0.25 * before);
    const dimsIn = (one: ModelProto): string[] => findLayers(new Graph(one)).map(({ dims }) => dims.join());
    expect(dimsIn(aligned)).toEqual(dimsIn(cut));
  });

  it('leaves a model alone of which nothing went', async () => {
    const model = tinyResNet();
    const { aligned, fitted } = await cutAndAligned(model, [3, 8, 8], 0);
    expect(fitted).toEqual([]);
    expect(aligned).toEqual(model);
  });

  /** y = W1 x, z = y + W2 y (nothing between), out = W3 z: the branch can go without loss, if W1 takes it over. */
  function linearBranch(tokens: boolean): ModelProto {
    const shape = tokens ? ['N', 3, 6] : ['N', 6];
    const matrix = (name: string, dims: readonly number[], seed: number) =>
      makeTensor(
        name,
        1,
        [...dims],
        normals(
          dims.reduce((a, b) => a * b, 1),
          seed,
          0.5,
        ),
      );
    return tinyModel({
      inputs: [info('x', shape)],
      outputs: [info('out', [...shape.slice(0, -1), 4])],
      nodes: [
        op('MatMul x w1 -> m1'),
        op('Add m1 b1 -> y'),
        op('MatMul y w2 -> m2'),
        op('Add m2 b2 -> f'),
        op('Add y f -> z'),
        op('MatMul z w3 -> m3'),
        op('Add m3 b3 -> out'),
      ],
      initializers: [
        ...[matrix('w1', [6, 8], 1), matrix('b1', [8], 2), matrix('w2', [8, 8], 3), matrix('b2', [8], 4)],
        ...[matrix('w3', [8, 4], 5), matrix('b3', [4], 6)],
      ],
    });
  }

  it.each([false, true])(
    'lets the layer before a branch that went take over what it did (tokens: %s)',
    async (tokens) => {
      const dims = tokens ? [3, 6] : [6];
      const model = linearBranch(tokens);
      const graph = new Graph(model);
      const shapes = await traceShapes(engine, model, { x: tensorFeed([1, ...dims]) });
      const [branch] = removableBranches(graph, shapes);
      const { cut, aligned } = await cutAndAligned(model, dims, 0, [branch!.name]);
      expect(findLayers(new Graph(cut))).toHaveLength(2);
      expect(await errorOf(model, cut, dims)).toBeGreaterThan(0.05);
      // The weights are held back a little by the damping.
      expect(await errorOf(model, aligned, dims)).toBeLessThan(1e-4);
    },
  );

  it('makes up for channels that say what others say', async () => {
    const model = tinyResNet(17, 8);
    const graph = new Graph(model);
    // The first three channels inside the block are copies of the next three.
    for (const name of ['block.a.w', 'block.a.b']) {
      const value = graph.mustGet(name);
      const dims = value.initializer!.dims.map(Number);
      const data = normals(
        dims.reduce((a, b) => a * b, 1),
        name.length,
        0.3,
      );
      const size = data.length / 8;
      for (let c = 0; c < 3; c++) data.copyWithin(c * size, (c + 3) * size, (c + 4) * size);
      graph.setInitializer(value, makeTensor(name, 1, dims, data));
    }
    const twins = graph.toModel();
    const shapes = await traceDims(engine, twins, { x: tensorFeed([2, 3, 8, 8]) });
    const dependencies = dependencyGroups(new Graph(twins), shapes);
    const inner = dependencies.groups.find(({ layers }) => layers.join() === 'block.a')!;
    const removed = new Uint8Array(dependencies.units.classOf.length);
    for (const unit of inner.units.slice(0, 3)) removed[unit] = 1;
    const cut = cutUnits(twins, { dependencies, removed });
    const one = { x: tensorFeed([1, 3, 8, 8]) };
    const { model: aligned } = await alignLayers({
      ...{ engine, original: twins, originalShapes: await traceShapes(engine, twins, one), model: cut },
      ...{ shapes: await traceShapes(engine, cut, one), gone: [], samples: SAMPLES },
      kept: keptChannels(layerUnits(new Graph(twins), dependencies), removed),
      batches: () => normalBatches('x', [3, 8, 8], SAMPLES, 40),
    });
    expect(await errorOf(twins, cut, [3, 8, 8])).toBeGreaterThan(0.01);
    expect(await errorOf(twins, aligned, [3, 8, 8])).toBeLessThan(1e-4);
  });
});

it('leaves layers as they are whose input is not finite, and fits those in front of them', async () => {
  const gemm = (name: string, rows: number, cols: number, seed: number) => [
    makeTensor(`${name}.w`, 1, [rows, cols], normals(rows * cols, seed)),
    makeTensor(`${name}.b`, 1, [rows], normals(rows, seed + 1)),
  ];
  /** The root is of nothing below 0 with the one offset, and no number with the other. */
  const network = (width: number, offset: number): ModelProto =>
    tinyModel({
      inputs: [info('x', ['N', 8])],
      outputs: [info('y', ['N', 8])],
      nodes: [
        op('Gemm x first.w first.b -> a', [intAttribute('transB', 1)], 'first'),
        op('Gemm a second.w second.b -> b', [intAttribute('transB', 1)], 'second'),
        op('Add b offset -> c'),
        op('Sqrt c -> d'),
        op('Gemm d third.w third.b -> y', [intAttribute('transB', 1)], 'third'),
      ],
      initializers: [
        ...[...gemm('first', width, 8, 1), ...gemm('second', 8, width, 3), ...gemm('third', 8, 8, 5)],
        makeTensor('offset', 1, [1], Float32Array.of(offset)),
      ],
    });
  const [original, model] = [network(8, 1000), network(6, -1000)];
  const shapesOf = (one: ModelProto) => traceShapes(engine, one, { x: tensorFeed([1, 8]) });
  const all = Array.from({ length: 8 }, (_, i) => i);
  const { model: aligned } = await alignLayers({
    ...{ engine, original, originalShapes: await shapesOf(original), model, shapes: await shapesOf(model) },
    kept: new Map([
      ['first', all.slice(0, 6)],
      ['second', all],
      ['third', all],
    ]),
    ...{ gone: [], samples: SAMPLES, batches: () => normalBatches('x', [8], SAMPLES, 40) },
  });
  const [before, after] = [new Graph(model), new Graph(aligned)];
  const same = (name: string): boolean =>
    Buffer.from(readFloats(after.mustGet(name).initializer!).buffer).equals(
      Buffer.from(readFloats(before.mustGet(name).initializer!).buffer),
    );
  expect(['second.w', 'third.w', 'third.b'].map(same)).toEqual([false, true, true]);
});
