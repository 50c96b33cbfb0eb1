import { describe, expect, it } from 'vitest';
import { DivergenceModel } from './divergence-model.js';
import { agreementWith, flowSensitivity, kendallTau, steepLayers, strongLayers } from './sensitivity.js';

const layer = { flow: 1, weightMean: 0, weightStd: 1, params: 1000, weightNorm: 30 };

describe('flowSensitivity', () => {
  it('is 1 for the most sensitive layer and grows with the flow', () => {
    expect(flowSensitivity([layer, { ...layer, flow: 4 }, { ...layer, flow: 2 }])).toEqual([0.25, 1, 0.5]);
  });

  it('does not depend on the size of a layer, unlike the published form', () => {
    const large = { ...layer, params: 1e6, weightNorm: 1000 };
    expect(flowSensitivity([layer, large])).toEqual([1, 1]);
    const [small] = flowSensitivity([layer, large], { sensitivityMode: 'reference' });
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

  it('counts a layer without a gradient as one with a large gradient', () => {
    const [without, median, large] = flowSensitivity([
      layer,
      { ...layer, gradient: 1 },
      { ...layer, gradient: 1e6 },
      { ...layer, gradient: 0.5 },
    ]);
    expect(without).toBe(large);
    expect(median).toBeCloseTo(0.05 + 0.95 * Math.tanh(0.5), 9);
  });

  it('with gxw, counts the gradient times the norm of the weights', () => {
    const layers = [
      { ...layer, gradient: 1, weightNorm: 30 },
      { ...layer, gradient: 3, weightNorm: 10 },
      { ...layer, gradient: 1, weightNorm: 3 },
    ];
    const [a, b, c] = flowSensitivity(layers, { gradientTerm: 'gxw' });
    expect(a).toBe(b);
    expect(c! / a!).toBeCloseTo((0.05 + 0.95 * Math.tanh(0.05)) / (0.05 + 0.95 * Math.tanh(0.5)), 9);
    const [d, e, f] = flowSensitivity(layers);
    expect(d).toBe(f);
    expect(e).toBeGreaterThan(d!);
  });

  it('in the reference, multiplies by sigmoid(5 g), and by up to 1.5 above a tenth of the largest gradient', () => {
    const layers = [0.02, 0.06, 0.2].map((gradient) => ({ ...layer, gradient }));
    const sigmoid = (g: number): number => 1 / (1 + Math.exp(-5 * g));
    const raw = [sigmoid(0.02), sigmoid(0.06) * 1.15, sigmoid(0.2) * 1.5];
    flowSensitivity(layers, { sensitivityMode: 'reference' }).forEach((s, i) => {
      expect(s).toBeCloseTo(raw[i]! / raw[2]!, 9);
    });
    const small = flowSensitivity(
      [0.019, 0.2].map((gradient) => ({ ...layer, gradient })),
      { sensitivityMode: 'reference' },
    );
    expect(small[0]).toBeCloseTo(sigmoid(0.019) / raw[2]!, 9);
  });
});

describe('steepLayers and strongLayers', () => {
  it('mark gradients above 3 times the median, in the reference above 1', () => {
    const layers = [0.1, 0.2, 0.2, 0.2, 0.59, 0.61, 1.5].map((gradient) => ({ ...layer, gradient }));
    expect(steepLayers([...layers, layer])).toEqual([false, false, false, false, false, true, true, false]);
    expect(steepLayers(layers, { sensitivityMode: 'reference' })).toEqual([
      false,
      false,
      false,
      false,
      false,
      false,
      true,
    ]);
    expect(steepLayers([layer, layer])).toEqual([false, false]);
  });

  it('mark flows above half of the largest', () => {
    expect(strongLayers([1, 5, 5.1, 10].map((flow) => ({ ...layer, flow })))).toEqual([false, false, true, true]);
  });
});

describe('agreementWith', () => {
  // Without gradients the flow ranks them upside down.
  const layers = [
    { ...layer, flow: 1, gradient: 9 },
    { ...layer, flow: 1.1, gradient: 1 },
    { ...layer, flow: 1.2, gradient: 0.1 },
    { ...layer, flow: 1.3, gradient: 50 },
  ];

  it('is the tau over the layers that were measured, with and without the gradient term', () => {
    expect(agreementWith([3, 2, 1, undefined], layers)).toEqual({ kendallTau: 1, withoutGradient: -1, layers: 3 });
    const plain = layers.map((one) => ({ ...one, gradient: undefined }));
    expect(agreementWith([3, 2, 1, undefined], plain)).toEqual({ kendallTau: -1, layers: 3 });
  });

  it('says nothing about fewer than three layers', () => {
    expect(agreementWith([3, 2, undefined, undefined], layers)).toBeUndefined();
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
