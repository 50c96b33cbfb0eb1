import { describe, expect, it } from 'vitest';
import { DivergenceModel } from './divergence-model.js';
import { flowSensitivity, kendallTau } from './sensitivity.js';

const layer = { flow: 1, weightMean: 0, weightStd: 1, params: 1000, weightNorm: 30 };

describe('flowSensitivity', () => {
  it('is 1 for the most sensitive layer and grows with the flow', () => {
    expect(flowSensitivity([layer, { ...layer, flow: 4 }, { ...layer, flow: 2 }])).toEqual([0.25, 1, 0.5]);
  });

  it('does not depend on the size of a layer, unlike the published form', () => {
    const large = { ...layer, params: 1e6, weightNorm: 1000 };
    expect(flowSensitivity([layer, large])).toEqual([1, 1]);
    const [small] = flowSensitivity([layer, large], 'reference');
    expect(small).toBeCloseTo(0.03, 5);
  });

  it('counts gradients relative to their median once they are known', () => {
    const [low, high] = flowSensitivity([
      { ...layer, gradient: 0.1 },
      { ...layer, gradient: 10 },
      { ...layer, gradient: 1 },
    ]) as [number, number, number];
    expect(high).toBe(1);
    expect(low).toBeCloseTo(0.05 + 0.95 * Math.tanh(0.05), 3);
  });
});

describe('kendallTau', () => {
  it('is 1, -1 and 0 for equal, opposite and constant rankings', () => {
    expect(kendallTau([1, 2, 3, 4], [10, 20, 30, 40])).toBe(1);
    expect(kendallTau([1, 2, 3, 4], [4, 3, 2, 1])).toBe(-1);
    expect(kendallTau([1, 2, 3], [5, 5, 5])).toBe(0);
  });

  it('counts discordant pairs', () => {
    expect(kendallTau([1, 2, 3], [1, 3, 2])).toBeCloseTo(1 / 3);
  });
});

describe('DivergenceModel', () => {
  it('passes through its points where they follow a power law', () => {
    const model = new DivergenceModel([
      { bits: 2, error: 0.1, divergence: 0.02 },
      { bits: 4, error: 0.01, divergence: 0.002 },
    ]);
    expect(model.at(0.1)).toBeCloseTo(0.02);
    expect(model.at(0.01)).toBeCloseTo(0.002);
    expect(model.at(0.001)).toBeCloseTo(0.0002);
    expect(model.measured).toEqual({ '2': 0.02, '4': 0.002 });
  });

  it('keeps the power between 1/2 and 3/2, however steep the points are', () => {
    const steep = new DivergenceModel([
      { bits: 2, error: 0.1, divergence: 1 },
      { bits: 4, error: 0.01, divergence: 1e-4 },
    ]);
    expect(steep.at(0.01)).toBeCloseTo(10 ** -1.5, 6);
    const flat = new DivergenceModel([
      { bits: 2, error: 0.1, divergence: 1 },
      { bits: 4, error: 0.01, divergence: 1 },
    ]);
    expect(flat.at(0.01)).toBeCloseTo(10 ** -0.5, 6);
  });

  it('is linear in the error from a single point, and 0 for a layer without error', () => {
    expect(new DivergenceModel([{ bits: 2, error: 0.1, divergence: 0.02 }]).at(0.05)).toBeCloseTo(0.01);
    expect(new DivergenceModel([{ bits: 2, error: 0, divergence: 0 }]).at(0)).toBe(0);
  });
});
