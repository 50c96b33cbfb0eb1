import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Graph } from '../onnx/graph.js';
import { intAttribute } from '../onnx/attributes.js';
import { info, ints, op, tinyModel, weights } from '../testing/graph-writing.js';
import { normals, tinyResNet } from '../testing/tiny-models.js';
import {
  cubicSparsity,
  kernelSparsities,
  localMasks,
  magnitudeMasks,
  sparsifiable,
  type MagnitudeOptions,
} from './magnitude.js';

const tensors = fc.array(
  fc.oneof(
    fc.float32Array({ minLength: 1, maxLength: 30, noNaN: true, noDefaultInfinity: true, min: -4, max: 4 }),
    // Of equal magnitudes.
    fc.array(fc.constantFrom(-2, -1, 0, 1, 2), { minLength: 1, maxLength: 30 }).map((v) => Float32Array.from(v)),
  ),
  { minLength: 1, maxLength: 4 },
);
const named = (all: readonly Float32Array[]): Map<string, Float32Array> =>
  new Map(all.map((w, i) => [`w${String(i)}`, w]));
// Not fc.double, which draws hardly anything but numbers near 0.
const shares = fc.integer({ min: 0, max: 98 }).map((v) => v / 100);
const PLAIN: MagnitudeOptions = { scope: 'global', measure: 'plain' };

/** Pairs of a size and whether the weight stays, of all tensors that are judged together. */
function judged(
  weights: ReadonlyMap<string, Float32Array>,
  masks: ReadonlyMap<string, Uint8Array>,
  { scope, measure }: MagnitudeOptions,
): [number, boolean][][] {
  const parts = [...weights].map(([name, w]) => {
    const rms = Math.sqrt(w.reduce((sum, v) => sum + v * v, 0) / w.length);
    const unit = scope === 'global' && measure === 'rms' && rms > 0 ? rms : 1;
    return [...w].map((v, i): [number, boolean] => [Math.abs(v) / unit, masks.get(name)![i] === 1]);
  });
  return scope === 'local' ? parts : [parts.flat()];
}

describe('masks by magnitude', () => {
  it.each<MagnitudeOptions>([
    PLAIN,
    { scope: 'global', measure: 'rms' },
    { scope: 'local', measure: 'plain' },
    { scope: 'local', measure: 'rms' },
  ])('remove exactly the asked share, and nothing larger than what stays ($scope, $measure)', (options) => {
    fc.assert(
      fc.property(tensors, shares, (all, sparsity) => {
        const weights = named(all);
        const masks = magnitudeMasks(weights, sparsity, options);
        expect([...masks.keys()]).toEqual([...weights.keys()]);
        for (const part of judged(weights, masks, options)) {
          const gone = part.filter(([, stays]) => !stays).map(([size]) => size);
          const left = part.filter(([, stays]) => stays).map(([size]) => size);
          expect(gone).toHaveLength(Math.round(sparsity * part.length));
          // Division by the size of a layer is rounded.
          if (gone.length * left.length > 0)
            expect(Math.max(...gone)).toBeLessThanOrEqual(Math.min(...left) * (1 + 1e-5));
        }
      }),
    );
  });

  it('are nested as the sparsity rises, when what was removed is 0', () => {
    fc.assert(
      fc.property(tensors, shares, shares, (all, a, b) => {
        const [low, high] = [Math.min(a, b), Math.max(a, b)];
        const first = magnitudeMasks(named(all), low, PLAIN);
        const zeroed = all.map((w, k) => w.map((v, i) => v * first.get(`w${String(k)}`)![i]!));
        const second = magnitudeMasks(named(zeroed), high, PLAIN);
        const before = all.reduce((sum, w) => sum + w.length, 0);
        let gone = 0;
        for (const mask of second.values()) gone += mask.filter((stays) => stays === 0).length;
        expect(gone).toBe(Math.round(high * before));
        const zeros = zeroed.reduce((sum, w) => sum + w.filter((v) => v === 0).length, 0);
        // As many zeros as may go are gone: none stays while a larger weight goes.
        const kept = zeroed.flatMap((w, k) =>
          [...w].filter((v, i) => v === 0 && second.get(`w${String(k)}`)![i] === 1),
        );
        expect(kept).toHaveLength(Math.max(0, zeros - gone));
      }),
    );
  });

  it('measure layers by their own size where that is asked', () => {
    const weights = named([Float32Array.of(100, 101, 102, 300), Float32Array.of(0.1, 1, 2, 3)]);
    expect([...magnitudeMasks(weights, 0.5, PLAIN).values()].map((m) => [...m])).toEqual([
      [1, 1, 1, 1],
      [0, 0, 0, 0],
    ]);
    const rms = magnitudeMasks(weights, 0.5, { scope: 'global', measure: 'rms' });
    expect([...rms.values()].map((m) => [...m])).toEqual([
      [0, 0, 1, 1],
      [0, 0, 1, 1],
    ]);
  });

  it.each([-0.1, 1, NaN])('refuse a sparsity of %f', (sparsity) => {
    expect(() => magnitudeMasks(named([Float32Array.of(1)]), sparsity, PLAIN)).toThrow(/is not in \[0, 1\)/);
  });
});

describe('sparsities of the Erdos-Renyi kernel distribution', () => {
  const dims = fc.array(fc.array(fc.integer({ min: 1, max: 6 }), { minLength: 2, maxLength: 4 }), {
    minLength: 1,
    maxLength: 5,
  });

  it('add up to the given one, in proportion to sum over product of the dims unless a layer is full', () => {
    fc.assert(
      fc.property(dims, shares, (all, sparsity) => {
        const tensors = new Map(all.map((sizes, i) => [String(i), sizes]));
        const found = kernelSparsities(tensors, sparsity);
        expect([...found.keys()]).toEqual([...tensors.keys()]);
        let [total, left] = [0, 0];
        const factors: number[] = [];
        for (const [name, sizes] of tensors) {
          const count = sizes.reduce((a, b) => a * b, 1);
          const share = 1 - found.get(name)!;
          expect(share).toBeGreaterThan(0);
          expect(share).toBeLessThanOrEqual(1);
          total += count;
          left += share * count;
          factors.push((share * count) / sizes.reduce((a, b) => a + b, 0));
          if (share > 1 - 1e-9) factors.pop();
        }
        expect(left).toBeCloseTo((1 - sparsity) * total, 6);
        for (const factor of factors) expect(factor).toBeCloseTo(factors[0]!, 6);
      }),
    );
  });

  it('leave more to small layers, and are what the masks take', () => {
    const tensors = new Map([
      ['small', [16, 16, 3, 3]],
      ['large', [64, 64, 3, 3]],
    ]);
    const sparsities = kernelSparsities(tensors, 0.9);
    expect(sparsities.get('small')).toBeLessThan(0.75);
    const weights = new Map(
      [...tensors].map(([name, sizes]) => [
        name,
        normals(
          sizes.reduce((a, b) => a * b, 1),
          1,
        ),
      ]),
    );
    for (const [name, mask] of localMasks(weights, sparsities)) {
      const gone = mask.filter((stays) => stays === 0).length;
      expect(gone).toBe(Math.round(sparsities.get(name)! * mask.length));
      const w = weights.get(name)!;
      const sizes = (kept: number): number[] => [...w].filter((_, i) => mask[i] === kept).map(Math.abs);
      expect(Math.max(...sizes(0))).toBeLessThanOrEqual(Math.min(...sizes(1)));
    }
    expect(() => kernelSparsities(tensors, 1)).toThrow(/is not in \[0, 1\)/);
  });
});

describe('the cubic schedule', () => {
  it('rises from the first to the last sparsity, ever more slowly, and stays there', () => {
    const values = Array.from({ length: 13 }, (_, t) => cubicSparsity(t, 10, 0.1, 0.9));
    expect(values[0]).toBeCloseTo(0.1);
    expect(values[5]).toBeCloseTo(0.9 - 0.8 * 0.125);
    expect(values.slice(10)).toEqual([0.9, 0.9, 0.9]);
    const steps = values.slice(1, 11).map((v, i) => v - values[i]!);
    steps.slice(1).forEach((step, i) => expect(step).toBeLessThan(steps[i]!));
    expect(cubicSparsity(0, 0, 0.1, 0.9)).toBe(0.9);
  });
});

describe('the tensors that take part', () => {
  const names = (model: Parameters<typeof tinyModel>[0] | undefined, edges?: boolean): string[] =>
    sparsifiable(new Graph(model ? tinyModel(model) : tinyResNet()), edges === undefined ? {} : { edges }).map(
      ({ layer }) => layer.weight.name,
    );

  it('are those between the first and the last layer, or all', () => {
    expect(names(undefined)).toEqual(['block.a.w', 'block.b.w']);
    expect(names(undefined, true)).toEqual(['stem.w', 'block.a.w', 'block.b.w', 'head.w']);
  });

  it('are no embeddings, and come once where layers share them', () => {
    const model = {
      inputs: [info('i', ['N'], 7)],
      outputs: [info('y', ['N', 4])],
      nodes: [
        op('Gather e i -> x', [intAttribute('axis', 0)]),
        op('MatMul x a -> p'),
        op('MatMul p b -> q'),
        op('MatMul q b -> r'),
        op('MatMul r a -> y'),
      ],
      initializers: [weights('e', [9, 4]), weights('a', [4, 4], 2), weights('b', [4, 4], 3), ints('unused', [1])],
    };
    // `a` is also the last layer's; the embedding is the one that the input reaches.
    expect(names(model)).toEqual(['b']);
    expect(names(model, true)).toEqual(['a', 'b']);
  });
});
