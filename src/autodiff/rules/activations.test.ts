import fc from 'fast-check';
import { describe, it } from 'vitest';
import type { AttributeProto, ModelProto } from 'onnx-buf';
import { floatAttribute, stringAttribute } from '../../onnx/attributes.js';
import { rewrite } from '../../onnx/graph.js';
import { checkGradients, randomArray } from '../../testing/check-gradients.js';
import { checkInEngine, checkRule } from '../../testing/check-in-engine.js';
import { info, op, tinyModel } from '../../testing/graph-writing.js';
import { array, map, type NdArray } from '../../testing/reference/array.js';

/** Every region of the activations on either side of their kinks, which all lie at multiples of 1/8. */
const points = (dims: readonly number[], seed: number): NdArray =>
  map(randomArray(dims, seed, 3), (v) => Math.floor(8 * v) / 8 + 0.06);

const alpha = (value: number): AttributeProto[] => [floatAttribute('alpha', value)];

function activationModel(name: string, attributes: AttributeProto[] = [], opset = 24): ModelProto {
  return tinyModel({
    opset,
    irVersion: 10,
    inputs: [info('x', ['N', 5])],
    outputs: [info('y')],
    nodes: [op(`${name} x -> y`, attributes)],
  });
}

const cases: [string, AttributeProto[], number?][] = [
  ['Relu', [], 13],
  ['LeakyRelu', [], 13],
  ['LeakyRelu', alpha(0.25)],
  ['LeakyRelu', alpha(-0.5)],
  ['LeakyRelu', alpha(1.5)],
  ['Elu', [], 13],
  ['Elu', alpha(0.7)],
  ['Selu', [], 13],
  ['Selu', [floatAttribute('alpha', 1.2), floatAttribute('gamma', 0.8)]],
  ['Celu', [], 13],
  ['Celu', alpha(2.5)],
  ['ThresholdedRelu', [], 13],
  ['ThresholdedRelu', alpha(0.5)],
  ['Sigmoid', [], 13],
  ['HardSigmoid', [], 13],
  ['HardSigmoid', [floatAttribute('alpha', 0.25), floatAttribute('beta', 0.5)]],
  ['HardSwish', [], 14],
  ['Tanh', [], 13],
  ['Gelu', [], 20],
  ['Gelu', [stringAttribute('approximate', 'tanh')], 20],
  ['Mish', [], 18],
  ['Softplus', [], 13],
  ['Softsign', [], 13],
  ['Swish', [], 24],
  ['Swish', alpha(1.7), 24],
];

describe('activations', () => {
  it.each(cases)('%s %#', async (name, attributes, opset) => {
    await checkRule(
      activationModel(name, attributes, opset),
      { x: points([4, 5], 1) },
      { others: [{ x: points([2, 5], 2) }] },
    );
  });

  it.each(['LeakyRelu', 'Elu', 'Celu', 'ThresholdedRelu', 'Swish'])('%s with any alpha', (name) => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 16 }), fc.integer({ min: 1, max: 999 }), (eighths, seed) => {
        checkGradients(activationModel(name, alpha(eighths / 8)), { x: points([1, 5], seed) });
      }),
      { numRuns: 15 },
    );
  });

  it('stay finite far from zero', async () => {
    for (const [name, attributes, opset] of cases) {
      const x = array([1, 5], [-80, -30, 30, 60, 80]);
      checkGradients(activationModel(name, attributes, opset), { x });
      await checkInEngine(activationModel(name, attributes, opset), { x });
    }
  });
});

describe('PRelu', () => {
  it.each([[[2, 3, 4]], [[3, 1]], [[4]], [[1]], [[]], [[1, 3, 1]]])('with a slope of shape [%s]', async (dims) => {
    const model = tinyModel({
      inputs: [info('x', ['N', 3, 4]), info('slope', dims)],
      outputs: [info('y')],
      nodes: [op('PRelu x slope -> y')],
    });
    const slope = map(randomArray(dims, 4), (v) => v / 4);
    const others = dims[0] === 2 ? [] : [{ x: points([3, 3, 4], 2), slope }];
    for (const wanted of [['x', 'slope'], ['x'], ['slope']])
      await checkRule(model, { x: points([2, 3, 4], 1), slope }, { wanted, others });
  });
});

describe('activations of com.microsoft', () => {
  it.each<[string, AttributeProto[], boolean]>([
    ['Gelu', [], false],
    ['FastGelu', [], false],
    ['FastGelu', [], true],
    ['BiasGelu', [], true],
    ['QuickGelu', [], false],
    ['QuickGelu', alpha(1), false],
  ])('%s %#', async (name, attributes, biased) => {
    const plain = tinyModel({
      inputs: [info('x', ['N', 5]), ...(biased ? [info('b', [5])] : [])],
      outputs: [info('y')],
      nodes: [op(`${name} x ${biased ? 'b ' : ''}-> y`, attributes)],
    });
    plain.graph!.node[0]!.domain = 'com.microsoft';
    const model = rewrite(plain, (graph) => graph.requireOpset(1, 'com.microsoft'));
    const bias: Record<string, NdArray> = biased ? { b: randomArray([5], 3) } : {};
    await checkRule(model, { x: points([3, 5], 1), ...bias }, { others: [{ x: points([2, 5], 2), ...bias }] });
  });
});
