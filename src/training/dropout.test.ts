import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { Shape } from '../autodiff/rule.js';
import { Graph } from '../onnx/graph.js';
import { makeTensor } from '../onnx/tensor.js';
import { info, op, opsOf, run, tensorFeed, tinyModel, type TinyModel } from '../testing/graph-writing.js';
import { drawMask, feedDropoutMasks, type DropoutMask } from './dropout.js';

const ratio = (value: number) => makeTensor('ratio', 1, [], [value]);
const DIMS = [2, 3];

function dropping(spec: Partial<TinyModel>): Graph {
  return new Graph(
    tinyModel({
      inputs: [info('x', DIMS)],
      outputs: [info('y')],
      nodes: [op('Relu x -> h'), op('Dropout h ratio -> d', [], 'drop'), op('Neg d -> y')],
      initializers: [ratio(0.25)],
      ...spec,
    }),
  );
}
const shapes = (): Map<string, Shape> => new Map(['x', 'h', 'd', 'y', 'z'].map((name) => [name, DIMS]));

describe('feedDropoutMasks', () => {
  it('puts a product with a fed mask in the place of a Dropout', async () => {
    for (const nodes of [
      [op('Relu x -> h'), op('Dropout h ratio -> d'), op('Neg d -> y')],
      // The last node, with a training mode of its own.
      [op('Relu x -> h'), op('Neg h -> z'), op('Dropout z ratio on -> y')],
    ]) {
      const graph = dropping({ nodes, initializers: [ratio(0.25), makeTensor('on', 9, [], [1])] });
      const known = shapes();
      const masks = feedDropoutMasks(graph, known, 1);
      expect(masks).toEqual([{ input: 'dropout mask', dims: DIMS, ratio: 0.25, seed: masks[0]!.seed }]);
      graph.removeDead();
      const model = graph.toModel();
      expect(opsOf(model).sort()).toEqual(['Mul', 'Neg', 'Relu']);
      for (const name of opsOf(model).flatMap((_, i) => model.graph!.node[i]!.output))
        expect(known.has(name)).toBe(true);
      const mask = Float32Array.of(0, 4 / 3, 0, 4 / 3, 0, 1);
      const x = tensorFeed(DIMS);
      const { y } = await run(model, { x, 'dropout mask': { type: 'float32', dims: DIMS, data: mask } });
      (x.data as Float32Array).forEach((v, i) => {
        expect(y!.data[i]).toBeCloseTo(-Math.max(v, 0) * mask[i]!, 6);
      });
    }
  });

  it('drops half where no ratio is given, and gives every node a seed of its own', () => {
    const graph = dropping({ nodes: [op('Dropout x -> d'), op('Dropout d -> y')] });
    const [a, b] = feedDropoutMasks(graph, shapes(), 1);
    expect([a!.ratio, b!.ratio]).toEqual([0.5, 0.5]);
    expect(a!.seed).not.toBe(b!.seed);
    const other = feedDropoutMasks(dropping({ nodes: [op('Dropout x -> y')] }), shapes(), 2);
    expect(other[0]!.seed).not.toBe(a!.seed);
  });

  it('needs no mask for a ratio of 0', async () => {
    const graph = dropping({
      nodes: [op('Dropout x ratio on -> y')],
      initializers: [ratio(0), makeTensor('on', 9, [], [1])],
    });
    expect(feedDropoutMasks(graph, shapes(), 1)).toEqual([]);
    const x = tensorFeed(DIMS);
    expect((await run(graph.toModel(), { x })).y!.data).toEqual(x.data);
  });

  it.each([
    ['a computed ratio', { nodes: [op('Abs ratio -> r'), op('Dropout x r -> y', [], 'drop')] }],
    ['a ratio of 1', { initializers: [ratio(1)] }],
    ['a mask that is read', { nodes: [op('Dropout x ratio -> d m', [], 'drop'), op('Where m d x -> y')] }],
  ])('refuses %s', (_, spec) => {
    expect(() => feedDropoutMasks(dropping(spec), shapes(), 1)).toThrow(
      expect.objectContaining({ code: 'unsupported', node: 'drop' }),
    );
  });
});

describe('drawMask', () => {
  const draw = (mask: Partial<DropoutMask>, batch: number, size = 4000): Float32Array =>
    drawMask({ input: 'm', dims: [size], ratio: 0.3, seed: 1, ...mask }, batch, new Float32Array(size))
      .data as Float32Array;

  it('keeps the share and the mean, whatever the seed and the batch', () => {
    fc.assert(
      fc.property(fc.integer(), fc.nat(1e6), fc.double({ min: 0.05, max: 0.9, noNaN: true }), (seed, batch, p) => {
        const values = draw({ seed, ratio: p }, batch);
        const kept = Math.fround(1 / (1 - p));
        expect(values.every((v) => v === 0 || v === kept)).toBe(true);
        const dropped = values.filter((v) => v === 0).length / values.length;
        // Five standard deviations.
        expect(Math.abs(dropped - p)).toBeLessThan(5 * Math.sqrt((p * (1 - p)) / values.length));
      }),
    );
  });

  it('is the same again for the same batch, and independent of its neighbours', () => {
    expect(draw({}, 7)).toEqual(draw({}, 7));
    const share = (a: Float32Array, b: Float32Array): number =>
      a.reduce((sum, v, i) => sum + (v === 0 && b[i] === 0 ? 1 : 0), 0) / a.length;
    const mask = draw({}, 7);
    // Independent masks drop the same element in 0.09 of the cases; so do a mask and the same one, moved.
    for (const other of [draw({}, 8), draw({ seed: 2 }, 7)])
      expect(Math.abs(share(mask, other) - 0.09)).toBeLessThan(0.025);
    for (const lag of [1, 2, 64])
      expect(Math.abs(share(mask.subarray(0, 3900), mask.subarray(lag, 3900 + lag)) - 0.09)).toBeLessThan(0.025);
  });
});
