import { describe, expect, it } from 'vitest';
import type { HostTensor } from './engine.js';
import { divergenceKind, meanKl, outputDivergence } from './output-divergence.js';

const rows = (dims: number[], values: number[]): HostTensor => ({
  type: 'float32',
  dims,
  data: Float32Array.from(values),
});

describe('outputDivergence', () => {
  it('sees one score per sample move, which has no distribution over classes', () => {
    const reference = { score: rows([2, 1], [0.5, 2]) };
    expect(divergenceKind(reference, undefined)).toBe('relative-error');
    expect(outputDivergence(reference, { score: rows([2, 1], [0.5, 1]) }, undefined)).toBeCloseTo(1 / 4.25, 6);
  });

  it('compares probabilities as they are, whatever operator made them, and logits behind a softmax', () => {
    const [p, q] = [
      [0.75, 0.25],
      [0.5, 0.5],
    ] as const;
    const expected = p[0] * Math.log(p[0] / q[0]) + p[1] * Math.log(p[1] / q[1]);
    expect(outputDivergence({ y: rows([1, 2], [...p]) }, { y: rows([1, 2], [...q]) }, 'y')).toBeCloseTo(expected, 6);
    const logits = (values: readonly number[]): HostTensor =>
      rows(
        [1, 2],
        values.map((v) => Math.log(v) + 3),
      );
    expect(outputDivergence({ y: logits(p) }, { y: logits(q) }, 'y')).toBeCloseTo(expected, 5);
  });

  it('looks at the scores alone where there are other outputs', () => {
    const [p, q] = [rows([1, 2], [1, 2]), rows([1, 2], [1, 3])];
    const [features, moved] = [rows([1, 1], [1]), rows([1, 1], [50])];
    expect(divergenceKind({ features, logits: p }, 'logits')).toBe('kl');
    expect(outputDivergence({ features, logits: p }, { features: moved, logits: p }, 'logits')).toBeCloseTo(0, 9);
    expect(outputDivergence({ features, logits: p }, { features, logits: q }, 'logits')).toBeGreaterThan(0.01);
  });

  it('is the relative error over all outputs of a model without scores', () => {
    const reference = { a: rows([1, 2], [3, 0]), b: rows([1, 1], [4]) };
    const changed = { a: rows([1, 2], [3, 1]), b: rows([1, 1], [2]) };
    expect(outputDivergence(reference, changed, undefined)).toBeCloseTo(5 / 25, 6);
  });
});

describe('meanKl', () => {
  it('agrees with a hand computation', () => {
    const logits = (values: number[]): never =>
      ({ type: 'float32', dims: [1, 2], data: Float32Array.from(values) }) as never;
    const p = [0.75, 0.25];
    const q = [0.5, 0.5];
    const expected = p[0]! * Math.log(p[0]! / q[0]!) + p[1]! * Math.log(p[1]! / q[1]!);
    expect(meanKl(logits(p.map(Math.log)), logits(q.map(Math.log)))).toBeCloseTo(expected, 6);
    expect(meanKl(logits(p), logits(q), true)).toBeCloseTo(expected, 6);
  });
});
